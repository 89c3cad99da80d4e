package schedule

import (
	"cmp"
	"context"
	"log/slog"
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
	Do    func(ctx context.Context, call Call) error // carries a call out until ctx ends: by Remove, or at the end of Close
	Log   *slog.Logger
}

// Runner serves the schedules of all apps on a node. Its methods may be called concurrently.
type Runner struct {
	config Config
	ctx    context.Context // of the calls
	cancel context.CancelFunc
	open   context.Context // ends when Close begins
	shut   context.CancelFunc
	work   sync.WaitGroup // goroutines of entries, added to under mu; Close waits for them

	mu     sync.Mutex // guards what follows
	apps   map[string]*set
	closed bool
}

// set is the schedules of an app, and the calls of those it had before.
type set struct {
	ctx     context.Context // of the calls
	cancel  context.CancelFunc
	ended   sync.WaitGroup
	entries []*entry // in the order of the manifest
}

// entry is one schedule. Its goroutine ends with ctx, once no call is under way.
type entry struct {
	ctx     context.Context
	end     context.CancelFunc
	changed chan struct{} // capacity 1: call and times are others now

	mu     sync.Mutex // guards what follows
	call   Call
	times  Times
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
	r.open, r.shut = context.WithCancel(r.ctx)
	return r
}

// Set replaces the schedules of an app. A schedule that was there before, by name, goes on from its last due time; a new
// one begins now. Calls under way go on.
func (r *Runner) Set(ctx context.Context, app string, schedules []lull.Schedule) error {
	entries, err := r.entries(ctx, app, schedules)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	s := r.apps[app]
	if s == nil && len(entries) == 0 {
		return nil
	}
	if s == nil {
		s = &set{}
		s.ctx, s.cancel = context.WithCancel(r.ctx)
		r.apps[app] = s
	}
	before := map[string]*entry{}
	for _, e := range s.entries {
		before[e.call.Name] = e
	}
	for i, e := range entries {
		if old := before[e.call.Name]; old != nil {
			old.become(e)
			entries[i] = old
			delete(before, e.call.Name)
			continue
		}
		r.start(s, e)
	}
	for _, e := range before {
		e.end()
	}
	s.entries = entries
	return nil
}

// entries makes entries of schedules, which do not run yet.
func (r *Runner) entries(ctx context.Context, app string, schedules []lull.Schedule) ([]*entry, error) {
	if len(schedules) == 0 {
		return nil, nil
	}
	marks, err := r.config.Marks.Marks(ctx, app)
	if err != nil {
		return nil, err
	}
	var entries []*entry
	for i, schedule := range schedules {
		times, err := Parse(schedule)
		if err != nil {
			return nil, err
		}
		name := Name(schedules, i)
		last := marks[name]
		if last.IsZero() {
			last = time.Now()
			if err := r.config.Marks.Mark(ctx, app, name, last); err != nil {
				return nil, err
			}
		}
		entries = append(entries, &entry{
			changed: make(chan struct{}, 1),
			call:    Call{App: app, Name: name, Schedule: schedule}, times: times, status: Status{Name: name, Last: last},
		})
	}
	return entries, nil
}

// start begins to serve an entry. r.mu is held.
func (r *Runner) start(s *set, e *entry) {
	e.ctx, e.end = context.WithCancel(r.open)
	r.work.Add(1)
	s.ended.Go(func() {
		defer r.work.Done()
		r.runEntry(s.ctx, e)
	})
}

// Remove ends the schedules of an app and waits for their calls, which are told to end.
func (r *Runner) Remove(app string) {
	r.mu.Lock()
	s := r.apps[app]
	delete(r.apps, app)
	if s != nil {
		for _, e := range s.entries {
			e.end()
		}
	}
	r.mu.Unlock()
	if s != nil {
		s.cancel()
		s.ended.Wait()
	}
}

// Close ends all schedules and waits for their calls, which are told to end when ctx does.
func (r *Runner) Close(ctx context.Context) {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.shut()
	defer context.AfterFunc(ctx, r.cancel)()
	r.work.Wait()
	r.cancel()
}

// List returns the schedules of an app in the order of its manifest.
func (r *Runner) List(app string) []Status {
	r.mu.Lock()
	var entries []*entry
	if s := r.apps[app]; s != nil {
		entries = s.entries
	}
	r.mu.Unlock()
	list := make([]Status, len(entries))
	for i, e := range entries {
		e.mu.Lock()
		list[i] = e.status
		e.mu.Unlock()
	}
	return list
}

// runEntry serves one schedule until its context ends; calls have ctx. Due times that pass while a call is under way are not
// served.
func (r *Runner) runEntry(ctx context.Context, e *entry) {
	from := e.last()
	for e.ctx.Err() == nil {
		now := time.Now()
		call := e.due(from, now)
		from = now
		if !call.Due.IsZero() {
			r.serve(ctx, e, call)
			from = time.Now()
		}
		e.wait(cmp.Or(e.plan(from), from.AddDate(0, 0, 1)))
	}
}

// due returns the call for the last due time after from that is not after now; that is zero if there is none.
func (e *entry) due(from, now time.Time) Call {
	e.mu.Lock()
	defer e.mu.Unlock()
	call := e.call
	call.Due = e.times.Last(from, now)
	return call
}

// plan notes and returns the first due time after from; zero if there is none.
func (e *entry) plan(from time.Time) time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.status.Next = e.times.Next(from)
	return e.status.Next
}

// become takes over the schedule of another entry, if it is different.
func (e *entry) become(other *entry) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.call.Schedule == other.call.Schedule {
		return
	}
	e.call, e.times = other.call, other.times
	select {
	case e.changed <- struct{}{}:
	default:
	}
}

// wait waits until a time, or until the entry changes or is to end.
func (e *entry) wait(until time.Time) {
	for left := time.Until(until); left > 0; left = time.Until(until) {
		timer := time.NewTimer(min(left, time.Minute)) // the wall clock may be set meanwhile
		select {
		case <-timer.C:
		case <-e.changed:
			timer.Stop()
			return
		case <-e.ctx.Done():
			timer.Stop()
			return
		}
	}
}

// serve carries out a call, once its due time is marked as served.
func (r *Runner) serve(ctx context.Context, e *entry, call Call) {
	due := call.Due
	log := r.config.Log.With("app", call.App, "schedule", call.Name, "due", due)
	if err := r.config.Marks.Mark(ctx, call.App, call.Name, due); err != nil {
		if ctx.Err() == nil {
			log.Error("schedule not served: its due time cannot be recorded", "error", err)
			e.note(func(s *Status) { s.Last, s.Result = due, err.Error() })
		}
		return
	}
	e.note(func(s *Status) { s.Last, s.Next, s.Result = due, e.times.Next(due), "" })
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
