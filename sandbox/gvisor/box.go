package gvisor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/runsc/config"
	"gvisor.dev/gvisor/runsc/container"
	runsc "gvisor.dev/gvisor/runsc/sandbox"

	"github.com/lull-dev/lull/network"
	"github.com/lull-dev/lull/sandbox"
)

// box is one sandbox. It is made by Driver.start and owned by the caller of Start; its two goroutines, started by watch
// and in newOutput, end with the sandbox's processes, and Close waits for them.
type box struct {
	driver *Driver
	spec   sandbox.Spec // a spare's own until it is given to an environment; gVisor goes by that one's id for ever
	dir    string       // its bundle and gVisor's state
	undo   undo         // what Close does; not changed after the start

	link      *network.Link
	cgroup    *cgroup
	line      *line
	output    *output
	oci       *specs.Spec
	conf      *config.Config
	container *container.Container // used by start and Close only: it is not safe for more
	sentry    *runsc.Sandbox
	process   pidfd // the sentry's
	maker     maker // of a spare: see thisMaker

	verbs  sync.Mutex // held while the sandbox is paused, resumed, saved or vacated, and guards:
	paused bool
	saved  bool // it has a snapshot of what it is now

	killed atomic.Bool // by kill
	hung   atomic.Bool // it did not answer, and was killed by command
	done   chan struct{}
	exit   sandbox.Exit // set before done is closed

	closing  sync.Once
	kept     bool // the link was, or is to be, kept by the driver; changed while it starts and in closing only
	closeErr error
}

func newBox(d *Driver, spec sandbox.Spec) *box {
	return &box{driver: d, spec: spec, dir: filepath.Join(d.dir, sandboxesDir, spec.ID), done: make(chan struct{})}
}

// ID returns the id it was started with.
func (b *box) ID() string { return b.spec.ID }

// Done is closed when the process has ended.
func (b *box) Done() <-chan struct{} { return b.done }

// Exit says how; it is valid once Done is closed.
func (b *box) Exit() sandbox.Exit { return b.exit }

func (b *box) ended() bool {
	select {
	case <-b.done:
		return true
	default:
		return false
	}
}

// failed turns the error of a verb into ErrExited if the sandbox is at its end, which may show in the error a moment
// before it shows in the process, and in Done.
func (b *box) failed(verb string, err error, moment time.Duration) error {
	if err == nil {
		return nil
	}
	if b.process.ends(moment) {
		<-b.done
		return sandbox.ErrExited
	}
	return fmt.Errorf("%s sandbox %s: %w", verb, b.spec.ID, err)
}

// dyingMoment is how long a sentry that no longer answers may take until it has ended.
const dyingMoment = 50 * time.Millisecond

// Pause stops all processes where they stand.
func (b *box) Pause(ctx context.Context) error {
	return b.turn(ctx, "pause", true, b.sentry.Pause)
}

// Resume undoes Pause.
func (b *box) Resume(ctx context.Context) error {
	return b.turn(ctx, "resume", false, b.sentry.Resume)
}

func (b *box) turn(ctx context.Context, verb string, paused bool, call func(id string) error) error {
	b.verbs.Lock()
	defer b.verbs.Unlock()
	if b.ended() {
		return sandbox.ErrExited
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if b.paused == paused {
		return nil
	}
	if err := b.command(ctx, func() error { return call(b.sentry.ID) }); err != nil {
		return b.failed(verb, err, dyingMoment)
	}
	b.paused = paused
	if paused {
		return nil
	}
	b.saved = false
	return b.link.Unsilence()
}

// patience is how long a sentry may take to answer after nobody wants to wait for it any more.
const patience = 5 * time.Second

// command calls the sentry by its control socket. Such a call cannot be called off; but a sentry that has not answered
// long after ctx has ended is of no use, and is killed, so that the call returns.
func (b *box) command(ctx context.Context, call func() error) error {
	answered := make(chan struct{})
	defer close(answered)
	defer context.AfterFunc(ctx, func() {
		select {
		case <-answered:
		case <-time.After(patience):
			b.hung.Store(true)
			b.process.kill()
		}
	})()
	return call()
}

// Dial connects to a port of the sandbox. The sandbox's network accepts connections while it is paused, too.
func (b *box) Dial(ctx context.Context, port int) (net.Conn, error) {
	if b.ended() {
		return nil, sandbox.ErrExited
	}
	// No keep-alive: the sandbox may be away for days, and nothing but an answer it cannot give would come of a probe.
	dialer := net.Dialer{KeepAlive: -1, KeepAliveConfig: net.KeepAliveConfig{Enable: false}}
	conn, err := dialer.DialContext(ctx, "tcp4", fmt.Sprintf("%s:%d", b.link.Addr(), port))
	return conn, b.failed("dial", err, 0) // that nobody listens is nothing unusual
}

// Listeners asks the sentry, which knows also while the app is paused. (Its /proc/net/tcp has no addresses in it for
// readers from outside, and a process inside could not be snapshotted.)
func (b *box) Listeners(ctx context.Context) ([]sandbox.Listener, error) {
	if b.ended() {
		return nil, sandbox.ErrExited
	}
	listeners, err := b.line.listeners(ctx)
	return listeners, b.failed("list the listeners of", err, dyingMoment)
}

// Unread asks the sentry.
func (b *box) Unread(ctx context.Context) (int, error) {
	if b.ended() {
		return 0, sandbox.ErrExited
	}
	text, err := b.line.ask(ctx, askUnread)
	if err != nil {
		return 0, b.failed("look at the connections of", err, dyingMoment)
	}
	return strconv.Atoi(strings.TrimSpace(text))
}

// Usage reads the counters of the sandbox's cgroup. They include gVisor's own needs.
func (b *box) Usage() (sandbox.Usage, error) {
	if b.ended() {
		return sandbox.Usage{}, sandbox.ErrExited
	}
	memory, err := b.cgroup.memory()
	cpu, cpuErr := b.cgroup.cpuTime()
	return sandbox.Usage{Memory: memory, CPU: cpu}, b.failed("read the usage of", errors.Join(err, cpuErr), dyingMoment)
}

// Stop asks the process to end, waits at most grace, then kills the sandbox.
func (b *box) Stop(grace time.Duration) {
	if grace > 0 && !b.ended() {
		ctx, cancel := context.WithTimeout(context.Background(), grace)
		defer cancel()
		defer context.AfterFunc(ctx, b.kill)()
		if err := b.ask(ctx); err != nil && !errors.Is(err, sandbox.ErrExited) {
			b.driver.log.Warn("asking a sandbox to end failed", "sandbox", b.spec.ID, "error", err)
		}
		select {
		case <-b.done:
		case <-ctx.Done():
		}
	}
	b.kill()
	<-b.done
}

func (b *box) ask(ctx context.Context) error {
	if err := b.Resume(ctx); err != nil {
		return err
	}
	signal := func() error { return b.sentry.SignalContainer(b.sentry.ID, unix.SIGTERM, false) }
	return b.failed("signal", b.command(ctx, signal), dyingMoment)
}

// kill ends the sandbox's processes. The sentry is the first in its process namespace: all others go with it.
func (b *box) kill() {
	if !b.ended() {
		b.killed.Store(true)
		b.process.kill()
	}
}

// Close ends the sandbox and removes all of it.
func (b *box) Close() error { return b.close(false) }

// Vacate ends the sandbox and removes all of it but its link, which the driver keeps.
func (b *box) Vacate() error {
	b.verbs.Lock()
	defer b.verbs.Unlock()
	if b.ended() {
		return sandbox.ErrExited
	}
	if !b.saved {
		return fmt.Errorf("vacate sandbox %s: it has no snapshot", b.spec.ID)
	}
	if err := b.close(true); err != nil {
		return err
	}
	if !b.kept { // closed at the same time
		return sandbox.ErrExited
	}
	return nil
}

func (b *box) close(keep bool) error {
	b.closing.Do(func() {
		b.kept = keep
		b.kill()
		<-b.done
		b.closeErr = b.undo.run()
		b.driver.forget(b.spec.ID)
	})
	return b.closeErr
}

// leaveLink is what undo does with the link.
func (b *box) leaveLink() error {
	if b.kept {
		return errors.Join(b.link.Silence(), b.driver.keep(b.spec.ID, b.link))
	}
	return b.link.Close()
}
