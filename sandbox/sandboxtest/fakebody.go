package sandboxtest

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/lull-dev/lull/sandbox"
)

// fakeBody is what a FakeSandbox stands for: the process with its memory, listeners and connections. It outlives the
// FakeSandbox when that is vacated, and gets another when it is restored.
type fakeBody struct {
	fake *Fake
	spec sandbox.Spec // its Stdout, Stderr and Limited may change: guarded by mu

	verbs    sync.Mutex    // held while a verb changes the state, so that these are done one after the other
	returned chan struct{} // closed by run when the program has returned

	mu        sync.Mutex   // guards everything below
	handle    *FakeSandbox // nil while vacated
	snapshot  string       // the token of the snapshot that counts; empty if there is none
	dead      bool
	gone      bool // run is done
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

func newFakeBody(f *Fake, spec sandbox.Spec) *fakeBody {
	b := &fakeBody{
		fake: f, spec: spec, returned: make(chan struct{}), killed: make(chan struct{}), term: make(chan struct{}),
		awake: make(chan struct{}), woke: time.Now(), listeners: map[int]*fakeListener{}, pipes: map[*pipe]bool{},
	}
	close(b.awake)
	return b
}

func (b *fakeBody) run(program Program) {
	p := &Process{sandbox: b, Args: b.spec.Args, Dir: b.spec.Dir}
	p.Stdout = &output{b, func(spec sandbox.Spec) io.Writer { return spec.Stdout }}
	p.Stderr = &output{b, func(spec sandbox.Spec) io.Writer { return spec.Stderr }}
	code := program(p)
	b.die(sandbox.Exit{Code: code})
	close(b.returned)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.gone = true
	if b.handle != nil {
		b.handle.end(b.exit)
	}
}

// die notes how the process ends and cuts everything it has; only the first call counts.
func (b *fakeBody) die(exit sandbox.Exit) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.dead {
		return
	}
	b.ran += b.sinceWoke()
	b.dead, b.exit = true, exit
	close(b.killed)
	b.cut()
	for _, l := range b.listeners {
		l.stop()
	}
}

// cut breaks all connections. mu is held.
func (b *fakeBody) cut() {
	for p := range b.pipes {
		p.breakOff()
	}
	clear(b.pipes)
}

// kill ends the process and waits for it.
func (b *fakeBody) kill() {
	b.die(sandbox.Exit{Code: -1, Signal: "SIGKILL"})
	<-b.returned
}

func (b *fakeBody) pause() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.paused {
		return
	}
	b.ran += b.sinceWoke()
	b.paused, b.awake = true, make(chan struct{})
	for p := range b.pipes {
		p.hold(true)
	}
}

func (b *fakeBody) resume() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.paused {
		return
	}
	b.snapshot = "" // from now on it is of another moment
	b.woke, b.paused = time.Now(), false
	close(b.awake)
	for p := range b.pipes {
		p.hold(false)
	}
}

// adopt makes s the body's sandbox. If its address has not been kept, its connections are cut.
func (b *fakeBody) adopt(s *FakeSandbox, spec sandbox.Spec, kept bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.handle = s
	b.spec.Stdout, b.spec.Stderr, b.spec.Limited = spec.Stdout, spec.Stderr, spec.Limited
	if !kept {
		b.cut()
	}
	if b.gone { // unlike a real process, this one could end while it was frozen
		s.end(b.exit)
	}
}

// sinceWoke is called under mu.
func (b *fakeBody) sinceWoke() time.Duration {
	if b.paused || b.dead {
		return 0
	}
	return time.Since(b.woke)
}

// terminate is SIGTERM: it ends a process that does not handle it.
func (b *fakeBody) terminate() {
	b.mu.Lock()
	handles := b.handles
	select {
	case <-b.term:
	default:
		close(b.term)
	}
	b.mu.Unlock()
	if !handles {
		b.die(sandbox.Exit{Code: -1, Signal: "SIGTERM"})
	}
}

// before calls the hook.
func (b *fakeBody) before(ctx context.Context, verb string) error {
	b.mu.Lock()
	spec := b.spec
	b.mu.Unlock()
	return b.fake.before(ctx, verb, spec)
}

// waitAwake returns when the sandbox is not paused, with an error when it is dead.
func (b *fakeBody) waitAwake() error {
	b.mu.Lock()
	awake, killed := b.awake, b.killed
	b.mu.Unlock()
	select {
	case <-killed:
		return sandbox.ErrExited
	default:
	}
	select {
	case <-awake:
		return nil
	case <-killed:
		return sandbox.ErrExited
	}
}
