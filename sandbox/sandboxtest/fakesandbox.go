package sandboxtest

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/sandbox"
)

// FakeSandbox is a sandbox of a Fake.
type FakeSandbox struct {
	fake *Fake
	spec sandbox.Spec

	verbs    sync.Mutex    // held while the sandbox is paused or resumed, so that these are done one after the other
	returned chan struct{} // closed by run when the program has returned: Done

	mu        sync.Mutex // guards everything below
	dead      bool
	exit      sandbox.Exit
	killed    chan struct{} // closed when the process is to end
	term      chan struct{} // closed when it is asked to end
	handles   bool          // it listens to that
	awake     chan struct{} // closed while it is not paused; made anew at every pause
	paused    bool
	ran       time.Duration // awake, before woke
	woke      time.Time
	spinning  int
	listeners map[int]*fakeListener
	pipes     map[*pipe]bool
}

func newFakeSandbox(f *Fake, spec sandbox.Spec) *FakeSandbox {
	s := &FakeSandbox{
		fake: f, spec: spec, returned: make(chan struct{}), killed: make(chan struct{}), term: make(chan struct{}),
		awake: make(chan struct{}), woke: time.Now(), listeners: map[int]*fakeListener{}, pipes: map[*pipe]bool{},
	}
	close(s.awake)
	return s
}

func (s *FakeSandbox) run(program Program) {
	p := &Process{sandbox: s, Args: s.spec.Args, Dir: s.spec.Dir}
	p.Stdout, p.Stderr = output{s, s.spec.Stdout}, output{s, s.spec.Stderr}
	code := program(p)
	s.die(sandbox.Exit{Code: code})
	close(s.returned)
}

// ID is part of sandbox.Sandbox.
func (s *FakeSandbox) ID() string { return s.spec.ID }

// Die ends the process as if it had come to this end by itself.
func (s *FakeSandbox) Die(exit sandbox.Exit) {
	s.die(exit)
	<-s.returned
}

// die notes how the process ends and cuts everything it has; only the first call counts.
func (s *FakeSandbox) die(exit sandbox.Exit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return
	}
	s.ran += s.sinceWoke()
	s.dead, s.exit = true, exit
	close(s.killed)
	for p := range s.pipes {
		p.breakOff()
	}
	for _, l := range s.listeners {
		l.stop()
	}
}

func (s *FakeSandbox) alive() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return sandbox.ErrExited
	}
	return nil
}

func (s *FakeSandbox) verb(ctx context.Context, name string) error {
	if err := s.alive(); err != nil {
		return err
	}
	if err := s.fake.before(ctx, name, s.spec); err != nil {
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
		return nil, fmt.Errorf("dial port %d: connection refused", port)
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
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.paused {
		return nil
	}
	s.ran += s.sinceWoke()
	s.paused, s.awake = true, make(chan struct{})
	for p := range s.pipes {
		p.hold(true)
	}
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

func (s *FakeSandbox) resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.paused {
		return
	}
	s.woke, s.paused = time.Now(), false
	close(s.awake)
	for p := range s.pipes {
		p.hold(false)
	}
}

// Paused reports whether the sandbox is paused.
func (s *FakeSandbox) Paused() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.paused
}

// sinceWoke is called under mu.
func (s *FakeSandbox) sinceWoke() time.Duration {
	if s.paused || s.dead {
		return 0
	}
	return time.Since(s.woke)
}

// Usage makes numbers up: 16 MB, and a hundredth of the time it was not paused, more if it spins.
func (s *FakeSandbox) Usage() (sandbox.Usage, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return sandbox.Usage{}, sandbox.ErrExited
	}
	ran := s.ran + s.sinceWoke()
	return sandbox.Usage{Memory: 16 * lull.MB, CPU: time.Millisecond + ran/100 + ran*time.Duration(s.spinning)}, nil
}

// Done is part of sandbox.Sandbox.
func (s *FakeSandbox) Done() <-chan struct{} { return s.returned }

// Exit is part of sandbox.Sandbox.
func (s *FakeSandbox) Exit() sandbox.Exit {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.exit
}

// Stop is part of sandbox.Sandbox.
func (s *FakeSandbox) Stop(grace time.Duration) {
	if s.verb(context.Background(), "stop") == nil && grace > 0 {
		s.resume()
		s.terminate()
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-s.returned:
		case <-timer.C:
		}
	}
	s.die(sandbox.Exit{Code: -1, Signal: "SIGKILL"})
	<-s.returned
}

// terminate is SIGTERM: it ends a process that does not handle it.
func (s *FakeSandbox) terminate() {
	s.mu.Lock()
	handles := s.handles
	select {
	case <-s.term:
	default:
		close(s.term)
	}
	s.mu.Unlock()
	if !handles {
		s.die(sandbox.Exit{Code: -1, Signal: "SIGTERM"})
	}
}

// Close is part of sandbox.Sandbox.
func (s *FakeSandbox) Close() error {
	s.die(sandbox.Exit{Code: -1, Signal: "SIGKILL"})
	<-s.returned
	s.fake.forget(s)
	return nil
}
