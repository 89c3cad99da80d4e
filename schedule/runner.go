package schedule

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/lull-dev/lull"
)

// Marks remembers, durably, the last due time of each schedule that was served.
type Marks interface {
	Marks(ctx context.Context, app string) (map[string]time.Time, error)
	Mark(ctx context.Context, app, schedule string, due time.Time) error
}

// Call is a schedule that is due.
type Call struct {
	App      string
	Name     string
	Due      time.Time
	Schedule lull.Schedule
}

// Config is what a Runner works with.
type Config struct {
	Marks Marks
	Do    func(ctx context.Context, call Call) error // carries a call out; its context ends with the Runner
	Log   *slog.Logger
}

// Runner serves the schedules of all apps on a node. Its methods may be called concurrently.
type Runner struct {
	config Config
	ctx    context.Context // of the calls
	cancel context.CancelFunc
	work   sync.WaitGroup // goroutines of entries, added to under mu; Close waits for them

	mu     sync.Mutex // guards what follows
	apps   map[string]*set
	closed bool
}

// set is the schedules of an app.
type set struct {
	cancel  context.CancelFunc
	ended   sync.WaitGroup
	entries []*entry
}

// entry is one schedule. Its goroutine ends with the set's context.
type entry struct {
	call  Call
	times Times

	mu     sync.Mutex // guards what follows
	status Status
}

// Status is what is known of a schedule.
type Status struct {
	Name   string
	Next   time.Time // zero: never
	Last   time.Time // due time that was served last; zero: none yet
	Took   time.Duration
	Result string // of the last call: "ok" or what went wrong; "" while it is under way, or if there was none since the node's start
}

// New returns a runner without schedules.
func New(config Config) *Runner {
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	r := &Runner{config: config, apps: map[string]*set{}}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

// Set replaces the schedules of an app. A schedule that was there before, by name, goes on from its last due time; a new
// one begins now. It waits for calls of the old ones, which are told to end.
func (r *Runner) Set(ctx context.Context, app string, schedules []lull.Schedule) error {
	r.Remove(app)
	if len(schedules) == 0 {
		return nil
	}
	marks, err := r.config.Marks.Marks(ctx, app)
	if err != nil {
		return err
	}
	s := &set{}
	for i, schedule := range schedules {
		times, err := Parse(schedule)
		if err != nil {
			return err
		}
		name := Name(schedules, i)
		e := &entry{call: Call{App: app, Name: name, Schedule: schedule}, times: times, status: Status{Name: name, Last: marks[name]}}
		if e.status.Last.IsZero() {
			e.status.Last = time.Now()
			if err := r.config.Marks.Mark(ctx, app, name, e.status.Last); err != nil {
				return err
			}
		}
		s.entries = append(s.entries, e)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || r.apps[app] != nil { // somebody else was faster: the app's own lock is held around Set
		return nil
	}
	setCtx, cancel := context.WithCancel(r.ctx)
	s.cancel = cancel
	r.apps[app] = s
	for _, e := range s.entries {
		r.work.Add(1)
		s.ended.Go(func() {
			defer r.work.Done()
			r.runEntry(setCtx, e)
		})
	}
	return nil
}

// Remove ends the schedules of an app and waits for their calls.
func (r *Runner) Remove(app string) {
	r.mu.Lock()
	s := r.apps[app]
	delete(r.apps, app)
	r.mu.Unlock()
	if s != nil {
		s.cancel()
		s.ended.Wait()
	}
}

// Close ends all schedules and waits for their calls, which are told to end.
func (r *Runner) Close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.cancel()
	r.work.Wait()
}

// List returns the schedules of an app in the order of its manifest.
func (r *Runner) List(app string) []Status {
	r.mu.Lock()
	s := r.apps[app]
	r.mu.Unlock()
	if s == nil {
		return nil
	}
	list := make([]Status, len(s.entries))
	for i, e := range s.entries {
		e.mu.Lock()
		list[i] = e.status
		e.mu.Unlock()
	}
	return slices.Clip(list)
}

// runEntry serves one schedule until ctx ends. Due times that pass while a call is under way are not served.
func (r *Runner) runEntry(ctx context.Context, e *entry) {
	from := e.last()
	for {
		if due := e.times.Last(from, time.Now()); !due.IsZero() {
			r.serve(ctx, e, due)
		}
		from = time.Now()
		next := e.times.Next(from)
		e.note(func(s *Status) { s.Next = next })
		if next.IsZero() || !wait(ctx, next) {
			return
		}
	}
}

// wait waits until a time; it reports false if ctx ended before.
func wait(ctx context.Context, until time.Time) bool {
	for left := time.Until(until); left > 0 && ctx.Err() == nil; left = time.Until(until) {
		timer := time.NewTimer(min(left, time.Minute)) // the wall clock may be set meanwhile
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
	return ctx.Err() == nil
}

// serve carries out a call for a due time, once that is marked as served.
func (r *Runner) serve(ctx context.Context, e *entry, due time.Time) {
	log := r.config.Log.With("app", e.call.App, "schedule", e.call.Name, "due", due)
	if err := r.config.Marks.Mark(ctx, e.call.App, e.call.Name, due); err != nil {
		if ctx.Err() == nil {
			log.Error("schedule not served: its due time cannot be recorded", "error", err)
			e.note(func(s *Status) { s.Last, s.Result = due, err.Error() })
		}
		return
	}
	e.note(func(s *Status) { s.Last, s.Next, s.Result = due, e.times.Next(due), "" })
	call := e.call
	call.Due = due
	began := time.Now()
	err := r.config.Do(ctx, call)
	took := time.Since(began)
	result := "ok"
	if err != nil {
		result = err.Error()
		log.Warn("scheduled call failed", "took", took, "error", err)
	} else {
		log.Info("scheduled call done", "took", took)
	}
	e.note(func(s *Status) { s.Result, s.Took = result, took })
}

func (e *entry) last() time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.status.Last
}

func (e *entry) note(change func(*Status)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	change(&e.status)
}
