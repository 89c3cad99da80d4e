package gvisor

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/sentry/usage"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/sandbox"
)

// A spare is a sandbox without an app, made ahead: to start its processes takes longer than to restore an app into them.
// It can become any environment that is restored and has the host's runtime for its root. What of that depends on the
// environment comes to it then: the link by connectNetwork, the release by graft, the limits in its cgroup and over the
// line.

const (
	spareAfter = time.Second     // how long after a restore a new one is made: the app that is awake comes first
	spareLasts = time.Minute     // how long one is kept that nobody needs
	spareLimit = 5 * time.Second // for making one
)

// spareSpec is what a spare is until it becomes something else. No environment's id has a dot.
func spareSpec(number int64) sandbox.Spec {
	return sandbox.Spec{
		ID: fmt.Sprintf("spare.%d", number), Args: []string{"/"}, Dir: "/",
		Limits: lull.Resources{CPU: lull.DefaultManifest().Resources.CPU},
	}
}

// errUnfit means that an environment could not be had in a spare, and has to be made anew.
var errUnfit = errors.New("adopt a spare sandbox")

// spareNumber is what the latest spare's id ends with.
var spareNumber atomic.Int64

// makeSpare makes a spare.
func (d *Driver) makeSpare() (_ *box, err error) {
	here, err := thisMaker()
	if err != nil {
		return nil, err
	}
	b := newBox(d, spareSpec(spareNumber.Add(1)))
	b.maker = here
	defer func() {
		if err != nil {
			err = fmt.Errorf("make a spare sandbox: %w", errors.Join(err, b.undo.run()))
		}
	}()
	if err := b.makeDir(); err != nil {
		return nil, err
	}
	var nobody user
	if err := b.surround(b.order(nobody), nobody, ""); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), spareLimit)
	defer cancel()
	wanted := context.AfterFunc(ctx, b.abort)
	if err := b.create(); err != nil {
		return nil, err
	}
	if !wanted() {
		return nil, ctx.Err()
	}
	return b, nil
}

// takeSpare returns the spare if it is there and can become what spec says, or else nil. The caller owns it.
func (d *Driver) takeSpare(ctx context.Context, spec sandbox.Spec) *box {
	here, err := thisMaker()
	if err != nil || spec.Root != "" || processors(spec.Limits.CPU) != processors(spareSpec(0).Limits.CPU) || !graftable(spec) {
		return nil
	}
	b := d.spares.take(ctx)
	if b == nil {
		return nil
	}
	if b.maker == here && !b.process.ends(0) && !isZombie(b.container.GoferPid.Load()) {
		return b
	}
	if err := b.undo.run(); err != nil {
		d.log.Warn("removing a spare sandbox failed", "error", err)
	}
	return nil
}

// isZombie reports whether a child that nobody has waited for has ended.
func isZombie(pid int) bool {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	return err != nil || info.Signo != 0
}

// graftable reports whether what an environment has besides the host's runtime can be put into a spare's root: mounts
// that gVisor makes itself cannot, nor what lies in places that are shown from the host.
func graftable(spec sandbox.Spec) bool {
	base := rootOf(spareSpec(0), user{}, "")
	for _, m := range spec.Mounts {
		if m.Mode != sandbox.Layered || !base.lacks(path.Clean(m.Target)) {
			return false
		}
	}
	return true
}

// adopt makes the spare the sandbox of spec, up to the point where the app is to be restored. It fails with errUnfit if
// that may be the spare's fault.
func (b *box) adopt(ctx context.Context, spec sandbox.Spec, who user, from *snapshot) error {
	base := b.order(who).Root
	b.spec = spec
	order := b.order(who)
	order.Wider = from.Wider
	grafted := make(chan error, 1)
	go func() { // the receive below waits
		grafted <- graft(b.container.GoferPid.Load(), order.Root.Dirs[len(base.Dirs):], order.Root.Binds[len(base.Binds):])
	}()
	err := b.attach(true)
	if err == nil {
		b.cgroup.cpu = spec.Limits.CPU
		err = b.cgroup.apply(b.cgroup.host.limits(spec.Limits))
	}
	b.output.begin(spec.Stdout, spec.Stderr)
	b.line.tellOf(spec.Limited)
	if err == nil {
		_, err = b.line.request(ctx, order.errand.question())
	}
	if err = errors.Join(err, <-grafted); err != nil {
		return fmt.Errorf("%w: %w", errUnfit, err)
	}
	return nil
}

// question returns the errand as it is sent: its length, then JSON.
func (e errand) question() []byte {
	text, _ := json.Marshal(e) // numbers, addresses and lists of them: it cannot fail
	return append(binary.NativeEndian.AppendUint32([]byte{askAdopt}, uint32(len(text))), text...)
}

// adopt reads the errand that follows askAdopt.
func (in *inside) adopt() error {
	var size [4]byte
	if err := in.read(size[:]); err != nil {
		return err
	}
	text := make([]byte, binary.NativeEndian.Uint32(size[:]))
	if err := in.read(text); err != nil {
		return err
	}
	var e errand
	if err := json.NewDecoder(bytes.NewReader(text)).Decode(&e); err != nil {
		return err
	}
	postponeGC()
	in.began = time.Now() // gVisor makes the app's clock anew
	in.take(e)
	if e.Memory > 0 {
		usage.MinimumTotalMemoryBytes, usage.MaximumTotalMemoryBytes = uint64(e.Memory), uint64(e.Memory)
	}
	return nil
}

// read fills data from the line.
func (in *inside) read(data []byte) error {
	for len(data) > 0 {
		n, err := unix.Read(in.line, data)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return err
		case n == 0:
			return io.ErrUnexpectedEOF
		default:
			data = data[n:]
		}
	}
	return nil
}

// take does as the errand says, before there is an app.
func (in *inside) take(e errand) {
	in.processes.Store(int64(e.Processes))
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, w := range e.Wider {
		in.wider[boundPort{w.Inet6, w.Port}] = w.Asked
	}
}

// spares keeps at most one spare. One is made when a sandbox has gone to disk, and when one has come back: never while
// others are being started, as that costs them the time that it saves another.
type spares struct {
	make func() (*box, error) // set once

	mu      sync.Mutex // guards what follows
	ready   *box
	working chan struct{} // closed when the goroutine that makes or removes one is done; nil if there is none
	timer   *time.Timer   // until one is made, or removed; nil if neither
	starts  int           // under way
	wanted  bool
	closed  bool
}

// want has a spare made, if there is none.
func (s *spares) want() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wanted = true
	s.plan(0)
}

// busy says that a sandbox is being started, until what it returns is called.
func (s *spares) busy(restored bool) (done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.starts++
	if s.ready == nil {
		s.unplan()
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.starts--
		s.wanted = s.wanted || restored
		s.plan(spareAfter)
	}
}

// plan has a spare made after a while, if one is wanted and nothing is against it. s.mu is held.
func (s *spares) plan(after time.Duration) {
	if !s.wanted || s.closed || s.starts > 0 || s.ready != nil || s.working != nil {
		return
	}
	s.unplan()
	s.timer = time.AfterFunc(after, func() { s.work(s.begin) })
}

func (s *spares) unplan() {
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
}

// work calls step, unless another is at it. Others wait for it by way of s.working.
func (s *spares) work(step func()) {
	s.mu.Lock()
	if s.working != nil || s.closed || s.timer == nil {
		s.mu.Unlock()
		return
	}
	done := make(chan struct{})
	s.working, s.timer = done, nil
	s.mu.Unlock()
	step()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.working = nil
	close(done)
}

// begin makes a spare.
func (s *spares) begin() {
	b, _ := s.make()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wanted = false
	if s.ready = b; b != nil {
		s.timer = time.AfterFunc(spareLasts, func() { s.work(func() { _ = s.remove() }) })
	}
}

// remove removes the spare that is ready.
func (s *spares) remove() error {
	s.mu.Lock()
	b := s.ready
	s.ready = nil
	s.mu.Unlock()
	if b == nil {
		return nil
	}
	return b.undo.run()
}

// take returns the spare, if need be when it is made, or nil.
func (s *spares) take(ctx context.Context) *box {
	s.await(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.ready
	s.ready = nil
	if b != nil {
		s.unplan()
	}
	return b
}

// await waits until nobody is making or removing a spare.
func (s *spares) await(ctx context.Context) {
	for {
		s.mu.Lock()
		working := s.working
		s.mu.Unlock()
		if working == nil {
			return
		}
		select {
		case <-working:
		case <-ctx.Done():
			return
		}
	}
}

// drop removes the spare, also one that is being made. No other is made before want or busy say so.
func (s *spares) drop() error {
	s.mu.Lock()
	s.wanted = false
	s.unplan()
	s.mu.Unlock()
	s.await(context.Background())
	s.mu.Lock()
	s.wanted = false
	s.unplan()
	s.mu.Unlock()
	return s.remove()
}

// close is drop for ever.
func (s *spares) close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	return s.drop()
}
