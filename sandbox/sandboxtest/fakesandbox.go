package sandboxtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"syscall"
	"time"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/sandbox"
)

// FakeSandbox is a sandbox of a Fake. One that was vacated stays as it is; the restored one is another, of the same
// process.
type FakeSandbox struct {
	*fakeBody
	done  chan struct{}
	ended sandbox.Exit // set before done is closed
}

// newFakeSandbox makes the sandbox of a body that has none.
func newFakeSandbox(body *fakeBody) *FakeSandbox {
	return &FakeSandbox{fakeBody: body, done: make(chan struct{})}
}

// end closes done. The body's mu is held.
func (s *FakeSandbox) end(exit sandbox.Exit) {
	s.ended = exit
	s.handle = nil
	close(s.done)
}

// ID is part of sandbox.Sandbox.
func (s *FakeSandbox) ID() string { return s.spec.ID }

// Die ends the process as if it had come to this end by itself.
func (s *FakeSandbox) Die(exit sandbox.Exit) {
	if s.alive() == nil {
		s.die(exit)
	}
	<-s.done
}

func (s *FakeSandbox) alive() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead || s.handle != s {
		return sandbox.ErrExited
	}
	return nil
}

func (s *FakeSandbox) verb(ctx context.Context, name string) error {
	if err := s.alive(); err != nil {
		return err
	}
	if err := s.before(ctx, name); err != nil {
		return err
	}
	return s.alive()
}

// Listeners is part of sandbox.Sandbox.
func (s *FakeSandbox) Listeners(ctx context.Context) ([]sandbox.Listener, error) {
	if err := s.verb(ctx, "listeners"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []sandbox.Listener
	for _, l := range s.listeners {
		list = append(list, sandbox.Listener{Addr: l.addr})
	}
	slices.SortFunc(list, func(a, b sandbox.Listener) int { return cmp.Compare(a.Addr.Port(), b.Addr.Port()) })
	return list, nil
}

// Dial is part of sandbox.Sandbox.
func (s *FakeSandbox) Dial(ctx context.Context, port int) (net.Conn, error) {
	if err := s.verb(ctx, "dial"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	l, paused := s.listeners[port], s.paused
	s.mu.Unlock()
	if paused {
		s.fake.trespass()
	}
	if l == nil {
		return nil, fmt.Errorf("dial port %d: %w", port, syscall.ECONNREFUSED)
	}
	return l.connect(ctx)
}

// Pause is part of sandbox.Sandbox.
func (s *FakeSandbox) Pause(ctx context.Context) error {
	s.verbs.Lock()
	defer s.verbs.Unlock()
	if err := s.verb(ctx, "pause"); err != nil {
		return err
	}
	s.pause()
	return nil
}

// Resume is part of sandbox.Sandbox.
func (s *FakeSandbox) Resume(ctx context.Context) error {
	s.verbs.Lock()
	defer s.verbs.Unlock()
	if err := s.verb(ctx, "resume"); err != nil {
		return err
	}
	s.resume()
	return nil
}

// Snapshot is part of sandbox.Sandbox. What it writes only names the process, which stays in the Fake.
func (s *FakeSandbox) Snapshot(ctx context.Context, dir string) error {
	s.verbs.Lock()
	defer s.verbs.Unlock()
	if !s.fake.Capabilities().Snapshot {
		return sandbox.ErrUnsupported
	}
	if err := s.verb(ctx, "snapshot"); err != nil {
		return err
	}
	if !s.Paused() {
		return fmt.Errorf("snapshot sandbox %s: it is not paused", s.ID())
	}
	token, err := writeFakeSnapshot(dir, s.ID())
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.snapshot = token
	return nil
}

// Vacate is part of sandbox.Sandbox. The process and its connections stay in the Fake, and stand still.
func (s *FakeSandbox) Vacate() error {
	s.verbs.Lock()
	defer s.verbs.Unlock()
	if err := s.verb(context.Background(), "vacate"); err != nil {
		return err
	}
	return s.fake.vacate(s)
}

// leave ends the sandbox, but not the process. It returns the token of the snapshot.
func (s *FakeSandbox) leave() (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.dead || s.handle != s:
		return "", sandbox.ErrExited
	case s.snapshot == "":
		return "", errors.New("sandbox has no snapshot")
	}
	s.end(sandbox.Exit{Code: -1, Signal: "SIGKILL"})
	return s.snapshot, nil
}

// Paused reports whether the sandbox is paused.
func (s *FakeSandbox) Paused() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.paused
}

// Unread is part of sandbox.Sandbox.
func (s *FakeSandbox) Unread(context.Context) (count int, err error) {
	if err := s.alive(); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := range s.pipes {
		if p.readerHeld && p.filled() {
			count++
		}
	}
	return count, nil
}

// Usage makes numbers up: 16 MB, and a hundredth of the time it was not paused, more if it spins.
func (s *FakeSandbox) Usage() (sandbox.Usage, error) {
	if err := s.alive(); err != nil {
		return sandbox.Usage{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ran := s.ran + s.sinceWoke()
	return sandbox.Usage{Memory: 16 * lull.MB, CPU: time.Millisecond + ran/100 + ran*time.Duration(s.spinning)}, nil
}

// Done is part of sandbox.Sandbox.
func (s *FakeSandbox) Done() <-chan struct{} { return s.done }

// Exit is part of sandbox.Sandbox.
func (s *FakeSandbox) Exit() sandbox.Exit {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended
}

// Stop is part of sandbox.Sandbox.
func (s *FakeSandbox) Stop(grace time.Duration) {
	if s.verb(context.Background(), "stop") == nil && grace > 0 {
		s.resume()
		s.terminate()
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-s.done:
		case <-timer.C:
		}
	}
	s.Die(sandbox.Exit{Code: -1, Signal: "SIGKILL"})
}

// Close is part of sandbox.Sandbox.
func (s *FakeSandbox) Close() error {
	s.Die(sandbox.Exit{Code: -1, Signal: "SIGKILL"})
	s.fake.forget(s)
	return nil
}
