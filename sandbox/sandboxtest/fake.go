package sandboxtest

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/lull-dev/lull/sandbox"
)

// Fake is a driver whose processes are Go functions and whose network is in memory, for the tests of other packages. It
// passes the suite, works inside a synctest bubble, and its sandboxes really stop when they are paused: connections stay
// open, and no byte is read, written or accepted by the program. What the program does otherwise goes on.
type Fake struct {
	programs map[string]Program

	trespasses atomic.Int64

	mu         sync.Mutex // guards everything below
	hook       Hook
	sandboxes  map[string]*FakeSandbox
	closed     bool
	starts     int
	restores   int
	peak       int
	frozen     map[string]frozen // what is left of vacated sandboxes, by id
	used       map[string]bool   // tokens of snapshots that were restored
	noSnapshot bool
}

// Hook is called before a verb of a driver or sandbox: start, pause, resume, snapshot, vacate, restore, listeners, dial
// or stop. It may sleep, and its error makes the verb fail, except stop.
type Hook func(ctx context.Context, verb string, spec sandbox.Spec) error

// NewFake returns a driver that runs the program named by Spec.Args[0], and the suite's own.
func NewFake(programs map[string]Program) *Fake {
	return &Fake{programs: programs, sandboxes: map[string]*FakeSandbox{}, frozen: map[string]frozen{}, used: map[string]bool{}}
}

// Name is "fake".
func (f *Fake) Name() string { return "fake" }

// Capabilities: a sandbox has its ports to itself, and can be put on disk unless WithoutSnapshots was called.
func (f *Fake) Capabilities() sandbox.Capabilities {
	f.mu.Lock()
	defer f.mu.Unlock()
	return sandbox.Capabilities{Ports: true, Snapshot: !f.noSnapshot}
}

// WithoutSnapshots makes the driver one that cannot snapshot, and returns it.
func (f *Fake) WithoutSnapshots() *Fake {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.noSnapshot = true
	return f
}

// Before has hook called before every verb from now on, instead of the one before; nil calls none.
func (f *Fake) Before(hook Hook) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hook = hook
}

// Starts returns how many sandboxes were started so far.
func (f *Fake) Starts() int { return f.read(&f.starts) }

// Restores returns how many snapshots were restored so far.
func (f *Fake) Restores() int { return f.read(&f.restores) }

// Peak returns how many sandboxes there were at once, at most.
func (f *Fake) Peak() int { return f.read(&f.peak) }

// Trespasses returns how often somebody connected to a paused sandbox, wrote to a paused or vacated one, or restored a
// snapshot for the second time.
func (f *Fake) Trespasses() int { return int(f.trespasses.Load()) }

func (f *Fake) read(number *int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return *number
}

// Sandboxes returns those that have not been closed, in order of their ids.
func (f *Fake) Sandboxes() []*FakeSandbox {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []*FakeSandbox
	for _, s := range f.sandboxes {
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b *FakeSandbox) int { return cmp.Compare(a.ID(), b.ID()) })
	return list
}

// Sandbox returns the one with this id, nil if it has been closed.
func (f *Fake) Sandbox(id string) *FakeSandbox {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sandboxes[id]
}

// directories are those that every fake sandbox has, besides its mounts.
var directories = []string{"/", "/app", "/tmp", "/usr", "/usr/lib"}

// Start is part of sandbox.Driver.
func (f *Fake) Start(ctx context.Context, spec sandbox.Spec) (sandbox.Sandbox, error) {
	if err := sandbox.CheckSpec(spec); err != nil {
		return nil, err
	}
	if spec.Root != "" {
		return nil, fmt.Errorf("image as root: %w", sandbox.ErrUnsupported)
	}
	program, err := f.program(spec)
	if err != nil {
		return nil, err
	}
	if err := f.before(ctx, "start", spec); err != nil {
		return nil, err
	}
	s, err := f.add(spec)
	if err != nil {
		return nil, err
	}
	go s.run(program) // ends when the program returns; Close of the sandbox, or of the driver, waits for it
	return s, nil
}

func (f *Fake) program(spec sandbox.Spec) (Program, error) {
	isTarget := func(m sandbox.Mount) bool { return m.Target == spec.Dir }
	if !slices.Contains(directories, spec.Dir) && !slices.ContainsFunc(spec.Mounts, isTarget) {
		return nil, fmt.Errorf("no directory %s in the sandbox", spec.Dir)
	}
	if mode, args, ok := ParseCommand(spec.Args); ok {
		return play(mode, args), nil
	}
	program, ok := f.programs[spec.Args[0]]
	if !ok {
		return nil, fmt.Errorf("no program %s in the sandbox", spec.Args[0])
	}
	return program, nil
}

func (f *Fake) before(ctx context.Context, verb string, spec sandbox.Spec) error {
	f.mu.Lock()
	hook := f.hook
	f.mu.Unlock()
	if hook != nil {
		if err := hook(ctx, verb, spec); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (f *Fake) add(spec sandbox.Spec) (*FakeSandbox, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, fmt.Errorf("start %s: driver is closed", spec.ID)
	}
	if f.sandboxes[spec.ID] != nil || f.frozen[spec.ID].kept {
		return nil, fmt.Errorf("there is a sandbox %s already", spec.ID)
	}
	s := newFakeSandbox(newFakeBody(f, spec))
	s.handle = s
	f.sandboxes[spec.ID] = s
	f.starts++
	f.peak = max(f.peak, len(f.sandboxes))
	return s, nil
}

func (f *Fake) forget(s *FakeSandbox) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sandboxes[s.ID()] == s {
		delete(f.sandboxes, s.ID())
	}
}

func (f *Fake) trespass() { f.trespasses.Add(1) }

// Close is part of sandbox.Driver.
func (f *Fake) Close() error {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	for _, s := range f.Sandboxes() {
		s.Close()
	}
	f.killFrozen()
	return nil
}
