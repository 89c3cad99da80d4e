// Package fleet keeps the environments of one app on a node: it gives connections a place, brings environments up and
// takes them down the ladder, and replaces one release by the next without a gap.
//
// A Fleet has one lock. What it knows and decides is the ledger, which is only touched under that lock and never waits.
// What is slow (the driver, the app, the journal) is done by one goroutine per environment, which asks the ledger what
// is wanted, does it, and reports back. An app without environments costs no goroutine.
package fleet

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/capacity"
	"github.com/lull-dev/lull/sandbox"
	"github.com/lull-dev/lull/snapshot"
)

// Config is what a fleet is made of.
type Config struct {
	App    string
	Driver sandbox.Driver

	// Prepare returns what a sandbox of rel is started with: everything but ID, Stdout and Stderr. It may be slow and is
	// called once per environment, concurrently.
	Prepare func(ctx context.Context, rel lull.Release) (sandbox.Spec, error)

	Journal Journal       // nil keeps no output
	Log     *slog.Logger  // nil logs nothing
	Metrics *Metrics      // nil counts nothing
	Drain   time.Duration // how long exchanges and streams of a replaced release may go on; 0 is 30 s

	Snapshots *snapshot.Store  // nil puts nothing on disk; shared by the fleets of a node, as all that follows
	Memory    *capacity.Memory // nil is without a limit
	Overhead  lull.Size        // memory that an environment needs on top of its release's limit
	Wakes     *capacity.Turns  // how many wake at a time; nil is capacity's default
	Writes    *capacity.Turns  // how many are put on disk at a time; nil is capacity's default
}

// Journal keeps the output of environments.
type Journal interface {
	// Writer takes what the environment prints on the stream, "stdout" or "stderr", until it is closed.
	Writer(app, env, stream string) io.WriteCloser
	// Note adds a line of Lull's own.
	Note(app, env, text string)
	// Tail returns the last n lines that the environment printed.
	Tail(app, env string, n int) []string
}

const (
	defaultDrain = 30 * time.Second
	// closingMoment is how long before the end of a drain the streams that are left are told to close.
	closingMoment = 5 * time.Second
	// stopGrace is how long an environment has between SIGTERM and SIGKILL.
	stopGrace = 5 * time.Second
)

// Fleet is all environments of one app on a node. Its methods may be called concurrently.
type Fleet struct {
	config Config
	turn   chan struct{}  // capacity 1; filled by the Switch that is under way
	work   sync.WaitGroup // the environments' goroutines; added to under mu, never after closed

	mu    sync.Mutex
	books ledger      // guarded by mu
	leave func()      // Memory's list of those that can make room
	timer *time.Timer // guarded by mu; calls tick when the ledger wants to be looked at
	armed time.Time   // guarded by mu; when that is; zero: not at all
}

// New returns a fleet without a release. Nothing runs before Use or Switch.
func New(config Config) *Fleet {
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	if config.Journal == nil {
		config.Journal = nowhere{}
	}
	if config.Drain == 0 {
		config.Drain = defaultDrain
	}
	if config.Memory == nil {
		config.Memory = capacity.NewMemory(0)
	}
	if config.Wakes == nil {
		config.Wakes = capacity.NewTurns(0)
	}
	if config.Writes == nil {
		config.Writes = capacity.NewTurns(0)
	}
	f := &Fleet{config: config, turn: make(chan struct{}, 1)}
	f.books = ledger{fleet: f}
	f.leave = config.Memory.Join(f)
	config.Metrics.add(f)
	return f
}

// Use makes rel the current release without starting anything, unless its scale.min says so. Environments of another
// release are drained.
func (f *Fleet) Use(rel lull.Release) {
	f.change(func(b *ledger, now time.Time) {
		if !b.closed {
			b.promote(newGeneration(rel, f.snapshots()), now)
		}
	})
}

// Retire drains the environments of the current release and leaves the fleet without one, as New does: what replaces it has
// no environments. It does not wait.
func (f *Fleet) Retire(why string) {
	f.change(func(b *ledger, now time.Time) {
		b.retire(why, now)
		b.queue.drain(errNoRelease(f.config.App))
	})
}

// Acquire waits for a place. It fails with a *lull.Error: KindQueueFull at once if too many wait already, KindStarting
// if none came free within timeout.queue or the app does not start (RetryAfter knows more), KindDraining once the fleet
// is being closed, KindNotFound without a release; or with the cause of ctx if that ends first. The caller owns the
// place and must Free it.
func (f *Fleet) Acquire(ctx context.Context, want Want) (Place, error) {
	var w *waiter
	var deadline time.Duration
	var refusal error
	f.change(func(b *ledger, now time.Time) { w, deadline, refusal = b.enter(want, now) })
	if refusal != nil {
		f.config.Metrics.waited(f.config.App, string(lull.KindOf(refusal)), 0)
		return nil, refusal
	}
	return f.wait(ctx, w, deadline)
}

// wait brings the wait of w to exactly one end.
func (f *Fleet) wait(ctx context.Context, w *waiter, deadline time.Duration) (Place, error) {
	select {
	case a := <-w.answer:
		return f.accept(w, a)
	default:
	}
	timer := time.NewTimer(deadline)
	defer timer.Stop()
	select {
	case a := <-w.answer:
		return f.accept(w, a)
	case <-timer.C:
		if why, left := f.withdraw(w); left {
			f.config.Metrics.waited(f.config.App, "timeout", time.Since(w.asked))
			return nil, errTimedOut(f.config.App, time.Since(w.asked), why)
		}
		return f.accept(w, <-w.answer) // it came at the last moment
	case <-ctx.Done():
		if _, left := f.withdraw(w); !left {
			if a := <-w.answer; a.place != nil {
				a.place.Free()
			}
		}
		f.config.Metrics.waited(f.config.App, "gone", time.Since(w.asked))
		return nil, fmt.Errorf("wait for a place: %w", context.Cause(ctx))
	}
}

func (f *Fleet) accept(w *waiter, a answer) (Place, error) {
	if a.err != nil {
		f.config.Metrics.waited(f.config.App, string(lull.KindOf(a.err)), time.Since(w.asked))
		return nil, a.err
	}
	f.config.Metrics.waited(f.config.App, string(a.place.how), a.place.waited)
	return a.place, nil
}

// withdraw takes w out of the queue; left is false if it has been answered. why says what it has waited for.
func (f *Fleet) withdraw(w *waiter) (why waited, left bool) {
	f.change(func(b *ledger, _ time.Time) {
		left = b.queue.leave(w)
		switch g := b.current; {
		case g == nil:
		case g.short() > 0:
			why = waitedMemory
		case g.onlyStarting():
			why = waitedStart
		}
	})
	return why, left
}

// Close stops everything and waits. Connections that wait for a place are refused, streams are told to close, exchanges
// may finish within grace; then the environments are stopped.
func (f *Fleet) Close(grace time.Duration) { f.end(grace, false) }

// Suspend is Close, but the environments of the current release are put on disk, if they can be, and stay there: see
// Adopt.
func (f *Fleet) Suspend(grace time.Duration) { f.end(grace, true) }

func (f *Fleet) end(grace time.Duration, keep bool) {
	f.leave()
	f.change(func(b *ledger, now time.Time) { b.close(now, grace, keep) })
	f.work.Wait()
	f.config.Metrics.remove(f)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.timer != nil {
		f.timer.Stop()
	}
}

// change is the only way to the ledger: act, let the ledger draw its conclusions, and then, without the lock, do what it
// left for later.
func (f *Fleet) change(act func(b *ledger, now time.Time)) {
	for _, later := range f.underLock(act) {
		later()
	}
}

func (f *Fleet) underLock(act func(b *ledger, now time.Time)) []func() {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	act(&f.books, now)
	f.arm(f.books.review(now), now)
	later := f.books.later
	f.books.later = nil
	return later
}

// arm sees to it that the ledger is looked at again at that time, with one timer for all environments. It is called
// under mu. A timer that fires too early does no harm, so it is never put off.
func (f *Fleet) arm(at, now time.Time) {
	if at.IsZero() || !f.armed.IsZero() && !at.Before(f.armed) {
		return
	}
	f.armed = at
	if f.timer == nil {
		f.timer = time.AfterFunc(at.Sub(now), f.tick)
		return
	}
	f.timer.Reset(at.Sub(now))
}

func (f *Fleet) tick() {
	f.change(func(*ledger, time.Time) { f.armed = time.Time{} })
}

// launch starts an environment's goroutine. It is called under mu.
func (f *Fleet) launch(e *environment) {
	f.work.Add(1)
	go func() {
		defer f.work.Done()
		(&keeper{fleet: f, environment: e}).run()
	}()
}

// nowhere is the journal of a fleet that has none.
type nowhere struct{}

func (nowhere) Writer(string, string, string) io.WriteCloser { return nopCloser{io.Discard} }
func (nowhere) Note(string, string, string)                  {}
func (nowhere) Tail(string, string, int) []string            { return nil }

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }
