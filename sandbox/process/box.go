package process

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/sandbox"
)

// killDeadline bounds the wait for killed processes to end: one that waits for a dead disk may never.
const killDeadline = 5 * time.Second

// box is one process with all it has started. See sandbox.Sandbox for its contract.
type box struct {
	driver *Driver
	spec   sandbox.Spec
	cmd    *exec.Cmd
	mark   mark
	output output
	done   chan struct{}
	exit   sandbox.Exit // written before done is closed

	mu      sync.Mutex // guards what follows, and orders signals to the group
	pid     int        // 0 before the start; also the number of the session and the process group
	ended   bool       // the numbers are no longer ours to signal
	paused  bool
	strays  []int // processes outside the group that were paused with it
	closed  bool
	sockets map[int]netip.AddrPort // addresses that have been dialled, by port
}

func newBox(d *Driver, spec sandbox.Spec, cmd *exec.Cmd) *box {
	return &box{driver: d, spec: spec, cmd: cmd, mark: newMark(), done: make(chan struct{}), sockets: map[int]netip.AddrPort{}}
}

// start starts the process. If it fails, done is closed and nothing is left.
func (b *box) start() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return errors.New("driver is closed")
	}
	if err := b.launch(); err != nil {
		b.ended = true
		b.output.drain()
		close(b.done)
		return err
	}
	b.pid = b.cmd.Process.Pid
	go b.runWait()
	return nil
}

// launch opens the output and starts the process with it.
func (b *box) launch() error {
	stdout, err := b.output.open(b.spec.Stdout)
	if err != nil {
		return err
	}
	defer func() { _ = stdout.Close() }()
	stderr, err := b.output.open(b.spec.Stderr)
	if err != nil {
		return err
	}
	defer func() { _ = stderr.Close() }()
	b.cmd.Stdout, b.cmd.Stderr = stdout, stderr
	return b.driver.launch(b.cmd, b.mark)
}

// runWait waits for the process to end, ends what it has left behind and closes done. start starts it; the end of the
// process ends it, and Close waits for it.
func (b *box) runWait() {
	// The process is not reaped yet, so that its number, which is the group's, cannot be given to another one while
	// signals to the group may be under way.
	for {
		err := unix.Waitid(unix.P_PID, b.pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	b.mu.Lock()
	b.ended = true
	b.mu.Unlock()
	left := b.killAll()
	b.exit = exitOf(b.cmd.Wait())
	if left > 0 {
		b.driver.log.Warn("killed processes do not end", "environment", b.spec.ID, "processes", left)
	}
	b.output.drain()
	close(b.done)
}

// killAll kills the processes of the sandbox and says how many do not end. The leader must not have been reaped.
func (b *box) killAll() (left int) {
	again := time.NewTicker(2 * time.Millisecond)
	defer again.Stop()
	for deadline := time.After(killDeadline); ; {
		_ = unix.Kill(-b.pid, unix.SIGKILL) // in one stroke, so that it also ends a group that keeps forking
		alive := members(b.pid, b.mark)
		for _, process := range alive {
			_ = unix.Kill(process.pid, unix.SIGKILL)
		}
		if len(alive) == 0 {
			return 0
		}
		select {
		case <-again.C:
		case <-deadline:
			return len(alive)
		}
	}
}

// exitOf reads what exec.Cmd.Wait returns.
func exitOf(err error) sandbox.Exit {
	var ended *exec.ExitError
	switch {
	case err == nil:
		return sandbox.Exit{}
	case !errors.As(err, &ended):
		return sandbox.Exit{Code: -1, Err: err}
	}
	if status, ok := ended.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return sandbox.Exit{Code: -1, Signal: unix.SignalName(status.Signal())}
	}
	return sandbox.Exit{Code: ended.ExitCode()}
}

// ID is the environment's.
func (b *box) ID() string { return b.spec.ID }

// Done is closed when the process has ended, all it has started was killed, and the output has been delivered.
func (b *box) Done() <-chan struct{} { return b.done }

// Exit says how the process ended.
func (b *box) Exit() sandbox.Exit { return b.exit }

// Pause stops the group and, one by one, processes that have left it.
func (b *box) Pause(context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		return sandbox.ErrExited
	}
	if b.paused {
		return nil
	}
	if err := unix.Kill(-b.pid, unix.SIGSTOP); err != nil {
		return fmt.Errorf("pause %s: %w", b.spec.ID, err)
	}
	b.paused = true
	for _, process := range members(b.pid, b.mark) {
		if process.group != b.pid && unix.Kill(process.pid, unix.SIGSTOP) == nil {
			b.strays = append(b.strays, process.pid)
		}
	}
	return nil
}

// Resume lets them go on.
func (b *box) Resume(context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		return sandbox.ErrExited
	}
	return b.resume()
}

// resume undoes Pause. b.mu is held.
func (b *box) resume() error {
	if !b.paused {
		return nil
	}
	for _, pid := range b.strays {
		if markOf(pid) == b.mark { // else it has ended, and the number may be another's
			_ = unix.Kill(pid, unix.SIGCONT)
		}
	}
	b.strays = nil
	if err := unix.Kill(-b.pid, unix.SIGCONT); err != nil {
		return fmt.Errorf("resume %s: %w", b.spec.ID, err)
	}
	b.paused = false
	return nil
}

// Usage adds up what the living processes use; memory that they share is counted for each.
func (b *box) Usage() (sandbox.Usage, error) {
	if b.isEnded() {
		return sandbox.Usage{}, sandbox.ErrExited
	}
	var usage sandbox.Usage
	for _, process := range members(b.pid, b.mark) {
		usage.Memory += lull.Size(process.memory)
		usage.CPU += process.cpu
	}
	return usage, nil
}

// Stop asks the whole group to end, as a terminal would, and kills it after grace.
func (b *box) Stop(grace time.Duration) {
	if grace > 0 && b.ask() {
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-b.done:
		case <-timer.C:
		}
	}
	b.kill()
	<-b.done
}

func (b *box) ask() (asked bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended || b.resume() != nil {
		return false
	}
	return unix.Kill(-b.pid, unix.SIGTERM) == nil
}

// kill kills the group; runWait does the rest.
func (b *box) kill() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.pid != 0 && !b.ended {
		_ = unix.Kill(-b.pid, unix.SIGKILL)
	}
}

// Close kills what is left.
func (b *box) Close() error {
	b.mu.Lock()
	unstarted := b.pid == 0 && !b.ended
	b.closed = true
	b.mu.Unlock()
	if !unstarted {
		b.kill()
		<-b.done
	}
	b.driver.forget(b)
	return nil
}

func (b *box) isEnded() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ended
}

// Snapshot is not supported: processes of this machine cannot be put on disk.
func (b *box) Snapshot(context.Context, string) error { return sandbox.ErrUnsupported }

// Unread does not know: there are no snapshots to lose anything in.
func (b *box) Unread(context.Context) (int, error) { return 0, nil }

// Vacate is not supported, as there are no snapshots.
func (b *box) Vacate() error { return sandbox.ErrUnsupported }
