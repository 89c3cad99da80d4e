// Package queue carries out asynchronous invocations of functions. An event that was taken is on disk, and stays there until
// its function has answered without an error, or it is given up: then it is kept as a dead letter.
//
// An event is delivered at least once: a node that is killed while a function works at it delivers it again. The first
// attempts at the events of one function begin in the order in which they were accepted. As on AWS a function that fails is
// tried again after one and after two minutes (Function.Retries), and an event for which there is no place waits ever longer,
// up to five minutes, until it is too old (Function.MaxAge). So do the events of an app whose current release is no function.
// https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html
package queue

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/store"
)

const (
	retryStep  = time.Minute     // longer after each failure
	firstPause = time.Second     // before an event that found no place is tried again; then twice as long
	mostPause  = 5 * time.Minute //
	mostBuried = 1000            // dead letters kept of one app: the newest

	// Of one app that are not done, so that a function that sends itself more events than it can work at does not fill the
	// disk, which all apps share.
	mostEvents = 100_000
	mostSize   = 1 * lull.GB // of payloads
)

// Store keeps the events. It is *store.Store.
type Store interface {
	AddEvent(ctx context.Context, event store.Event, payload store.Payload) error
	UpdateEvent(ctx context.Context, event store.Event) error
	EventPayload(ctx context.Context, app, id string) (store.Payload, error)
	RemoveEvent(ctx context.Context, app, id string) error
	Events(ctx context.Context) ([]store.Event, error)
}

// Settings are what a function says of its events.
type Settings struct {
	Retries int
	MaxAge  time.Duration
	AtOnce  int // how many are delivered at a time; 0: none, they wait until they are too old
}

// Config is what a Queue works with.
type Config struct {
	Store Store
	// Invoke delivers an event. failed says that the function answered with an error; err that it may not have been asked.
	Invoke func(ctx context.Context, app, id string, payload store.Payload) (failed string, err error)
	// Settings returns those of an app; false if there is none of that name. It must not call the Queue.
	Settings func(app string) (Settings, bool)
	Log      *slog.Logger
	Metrics  prometheus.Registerer // may be nil
}

// Queue is the asynchronous invocations of a node. Its methods may be called concurrently.
type Queue struct {
	config   Config
	ctx      context.Context // of the deliveries
	cancel   context.CancelFunc
	open     context.Context // ends when Close begins
	shut     context.CancelFunc
	nudge    chan struct{}  // capacity 1: something has changed
	work     sync.WaitGroup // run, and deliveries; added to by run only
	attempts *prometheus.CounterVec

	mu   sync.Mutex // guards what follows
	apps map[string]*line
}

// Open takes up the events that the store has and begins to deliver. The caller must Close it.
func Open(ctx context.Context, config Config) (*Queue, error) {
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	q := &Queue{config: config, nudge: make(chan struct{}, 1), apps: map[string]*line{}}
	q.meter(config.Metrics)
	events, err := config.Store.Events(ctx)
	if err != nil {
		return nil, fmt.Errorf("open the queue of events: %w", err)
	}
	for _, event := range events {
		l := q.line(event.App)
		if event.Buried.IsZero() {
			l.add(&entry{Event: event})
		} else {
			l.buried = append(l.buried, event)
		}
	}
	q.ctx, q.cancel = context.WithCancel(context.Background())
	q.open, q.shut = context.WithCancel(q.ctx)
	q.work.Go(q.run)
	return q, nil
}

// Close begins no more deliveries and waits for those under way. When ctx ends they are called off, and made again after the
// next Open. Events are taken, and stored, also after it.
func (q *Queue) Close(ctx context.Context) {
	q.shut()
	defer context.AfterFunc(ctx, q.cancel)()
	q.work.Wait()
	q.cancel()
}

// Add takes an event; id is new, or "". Once it has returned the event will not be lost. Errors are the store's, of kind
// queue-full if too many events of the app are not done, and of kind not-found if there is no such app.
func (q *Queue) Add(ctx context.Context, app, id string, payload store.Payload) error {
	now := time.Now().UTC()
	if id == "" {
		id = strings.ToLower(rand.Text())
	}
	e := &entry{Event: store.Event{App: app, ID: id, Accepted: now, Due: now, Size: payload.Size()}}
	if err := q.admit(e); err != nil {
		return err
	}
	defer q.admitted(e)
	if err := q.config.Store.AddEvent(ctx, e.Event, payload); err != nil {
		return err
	}
	if !q.put(e) {
		return cmp.Or(q.config.Store.RemoveEvent(context.WithoutCancel(ctx), app, id), noApp(app))
	}
	return nil
}

// admit finds the line of an event that is about to be stored, and room in it; admitted is to be called after that.
func (q *Queue) admit(e *entry) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, exists := q.config.Settings(e.App); !exists {
		return noApp(e.App)
	}
	e.line = q.line(e.App)
	if !e.line.admit(e.Size) {
		return &lull.Error{Kind: lull.KindQueueFull,
			Message: fmt.Sprintf("%d asynchronous events of %s, with %s, are not done: no more are taken", len(e.line.entries), e.App, e.line.size),
			Hint:    "send fewer, or let more be worked at: concurrency and scale.max. `lull events` lists them"}
	}
	return nil
}

func (q *Queue) admitted(e *entry) {
	q.mu.Lock()
	defer q.mu.Unlock()
	e.line.admitted(e.Size)
}

func noApp(app string) error {
	return &lull.Error{Kind: lull.KindNotFound, Message: fmt.Sprintf("there is no app %q", app)}
}

// put has an event, which is stored, wait in its line. It reports false if the app was removed meanwhile.
func (q *Queue) put(e *entry) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if e.line.removed {
		return false
	}
	e.line.add(e)
	q.Wake()
	return true
}

// Forget drops the events of an app that was removed, from memory: the store has dropped its own. Deliveries under way end as
// they may, and leave nothing behind.
func (q *Queue) Forget(app string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if l := q.apps[app]; l != nil {
		l.removed = true
		delete(q.apps, app)
	}
}

// Status is an event as the queue has it.
type Status struct {
	store.Event
	Delivering bool // an attempt is being made
}

// List returns the events of an app: its dead letters, the oldest first, and then those that wait or are being delivered, by
// the time they were accepted.
func (q *Queue) List(app string) []Status {
	buried, waiting := q.copies(app)
	slices.SortFunc(waiting, func(a, b Status) int { return byAcceptance(&a.Event, &b.Event) })
	return append(buried, waiting...)
}

// copies returns the dead letters of an app, and its other events in no order.
func (q *Queue) copies(app string) (buried, waiting []Status) {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.apps[app]
	if l == nil {
		return nil, nil
	}
	for _, event := range l.buried {
		buried = append(buried, Status{Event: event})
	}
	for _, e := range l.entries {
		waiting = append(waiting, Status{Event: e.Event, Delivering: e.delivering})
	}
	return buried, waiting
}

// Payload returns what an event carries.
func (q *Queue) Payload(ctx context.Context, app, id string) (store.Payload, error) {
	return q.config.Store.EventPayload(ctx, app, id)
}

// Retry delivers an event now: a dead letter as if it had just been accepted, one that waits without waiting any longer.
func (q *Queue) Retry(ctx context.Context, app, id string) error {
	e, err := q.claim(app, id)
	if err != nil {
		return err
	}
	now := time.Now().UTC()
	again := &entry{Event: e.Event, line: e.line}
	again.Due = now
	if !again.Buried.IsZero() {
		again.Accepted, again.Attempts, again.Buried, again.LastErr = now, 0, time.Time{}, ""
	}
	if err := q.record(ctx, again); err != nil {
		q.give(e)
		return err
	}
	q.give(again)
	return nil
}

// Remove deletes an event: a dead letter, or one that waits.
func (q *Queue) Remove(ctx context.Context, app, id string) error {
	e, err := q.claim(app, id)
	if err != nil {
		return err
	}
	if err := q.config.Store.RemoveEvent(ctx, app, id); err != nil {
		q.give(e)
		return err
	}
	return nil
}

// claim takes an event that is not being delivered out of its line.
func (q *Queue) claim(app, id string) (*entry, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.apps[app]
	if l == nil {
		l = newLine()
	}
	if i := slices.IndexFunc(l.buried, func(event store.Event) bool { return event.ID == id }); i >= 0 {
		e := &entry{Event: l.buried[i], line: l}
		l.buried = slices.Delete(l.buried, i, i+1)
		return e, nil
	}
	e := l.entries[id]
	switch {
	case e == nil:
		return nil, &lull.Error{Kind: lull.KindNotFound, Message: fmt.Sprintf("%s has no event %s", app, id)}
	case e.delivering:
		return nil, &lull.Error{Kind: lull.KindConflict, Message: fmt.Sprintf("event %s is just being delivered", id)}
	}
	l.drop(e)
	return e, nil
}

// give puts an event where it belongs, after claim.
func (q *Queue) give(e *entry) {
	if e.Buried.IsZero() {
		q.put(e)
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	e.line.buried = append(e.line.buried, e.Event)
	slices.SortStableFunc(e.line.buried, func(a, b store.Event) int { return a.Buried.Compare(b.Buried) })
}

// line returns the events of an app. q.mu is held, or q is not known to anybody yet.
func (q *Queue) line(app string) *line {
	l := q.apps[app]
	if l == nil {
		l = newLine()
		q.apps[app] = l
	}
	return l
}

// Wake has the queue look again at what Settings says.
func (q *Queue) Wake() {
	select {
	case q.nudge <- struct{}{}:
	default:
	}
}

// run begins deliveries when they are due, until the queue is closed.
func (q *Queue) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-q.open.Done():
		case <-q.nudge:
		case <-timer.C:
		}
		if q.open.Err() != nil {
			return
		}
		if next := q.begin(time.Now()); !next.IsZero() {
			timer.Reset(time.Until(next))
		}
	}
}

// begin begins what is due and returns when to look again; zero: when something changes.
func (q *Queue) begin(now time.Time) (next time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for app, l := range q.apps {
		settings, exists := q.config.Settings(app)
		l.hold(settings.held(exists))
		for len(l.waiting) > 0 && l.busy < max(settings.AtOnce, 1) { // one that is only given up is a delivery as well
			if look := l.waiting[0].look; look.After(now) {
				if next.IsZero() || look.Before(next) {
					next = look
				}
				break
			}
			e := l.take()
			q.work.Go(func() { q.deliver(e, settings, exists) })
		}
	}
	return next
}

// held returns the age to which events wait without being delivered; 0 if they are delivered.
func (s Settings) held(exists bool) time.Duration {
	if exists && s.AtOnce == 0 {
		return s.MaxAge
	}
	return 0
}

// deliver makes one attempt at an event.
func (q *Queue) deliver(e *entry, settings Settings, exists bool) {
	defer q.Wake()
	now := time.Now()
	switch {
	case !exists:
		q.bury(e, "there is no such function any more")
		return
	case now.Sub(e.Accepted) >= settings.MaxAge:
		q.bury(e, cmp.Or(e.LastErr, "it found no place")+"; it is older than "+lull.Duration(settings.MaxAge).String())
		return
	}
	payload, err := q.config.Store.EventPayload(q.ctx, e.App, e.ID)
	failed := ""
	if err == nil {
		failed, err = q.config.Invoke(q.ctx, e.App, e.ID, payload)
	}
	if err != nil && q.ctx.Err() != nil {
		return // it stays as it is, for the next Open
	}
	if q.removed(e) {
		return // with its app
	}
	switch kind := lull.KindOf(err); {
	case err == nil && failed == "":
		q.attempts.WithLabelValues("ok").Inc()
		q.done(e)
	case err == nil:
		q.failed(e, settings, failed)
	case kind == lull.KindInvalid || kind == lull.KindTooLarge || kind == lull.KindNotFound:
		if settings, exists = q.config.Settings(e.App); settings.held(exists) > 0 {
			q.settle(e, false) // it has come upon a release that is no function
			return
		}
		q.bury(e, err.Error())
	case kind == lull.KindCrashed || kind == lull.KindRefused || kind == lull.KindTimeout: // it may have been asked
		q.failed(e, settings, err.Error())
	default:
		q.attempts.WithLabelValues("no place").Inc()
		e.pause = min(max(2*e.pause, firstPause), mostPause)
		q.later(e, time.Now().Add(e.pause), err.Error())
	}
}

// failed notes that the function has failed on an event.
func (q *Queue) failed(e *entry, settings Settings, why string) {
	q.attempts.WithLabelValues("failed").Inc()
	q.mu.Lock()
	e.Attempts++
	attempts := e.Attempts
	q.mu.Unlock()
	if attempts > settings.Retries {
		q.bury(e, why)
		return
	}
	q.later(e, time.Now().Add(time.Duration(attempts)*retryStep), why)
}

// later puts an event off.
func (q *Queue) later(e *entry, due time.Time, why string) {
	q.mu.Lock()
	e.Due, e.LastErr = due.UTC(), shorten(why)
	q.mu.Unlock()
	if err := q.record(context.WithoutCancel(q.ctx), e); err != nil {
		q.config.Log.Error("attempt at an event not recorded", "app", e.App, "event", e.ID, "error", err)
	}
	q.settle(e, false)
}

// done forgets an event.
func (q *Queue) done(e *entry) {
	if err := q.config.Store.RemoveEvent(context.WithoutCancel(q.ctx), e.App, e.ID); err != nil {
		q.config.Log.Error("event that is done not removed: it may be delivered again", "app", e.App, "event", e.ID, "error", err)
	}
	q.settle(e, true)
}

// bury makes a dead letter of an event.
func (q *Queue) bury(e *entry, why string) {
	q.attempts.WithLabelValues("buried").Inc()
	q.config.Log.Warn("event given up", "app", e.App, "event", e.ID, "attempts", e.Attempts, "why", why)
	q.mu.Lock()
	e.LastErr, e.Buried = shorten(why), time.Now().UTC()
	q.mu.Unlock()
	ctx := context.WithoutCancel(q.ctx)
	if err := q.record(ctx, e); err != nil {
		q.config.Log.Error("dead letter not recorded", "app", e.App, "event", e.ID, "error", err)
	}
	for _, old := range q.keep(e) {
		if err := q.config.Store.RemoveEvent(ctx, old.App, old.ID); err != nil {
			q.config.Log.Error("old dead letter not removed", "app", old.App, "event", old.ID, "error", err)
		}
	}
}

// keep ends the last delivery of an event, which is a dead letter now, and returns those that are too many with it.
func (q *Queue) keep(e *entry) (old []store.Event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := e.line
	l.settle(e, true)
	l.buried = append(l.buried, e.Event)
	if over := len(l.buried) - mostBuried; over > 0 {
		old = slices.Clone(l.buried[:over])
		l.buried = slices.Delete(l.buried, 0, over)
	}
	return old
}

// record stores what has become of an event, unless its app was removed meanwhile.
func (q *Queue) record(ctx context.Context, e *entry) error {
	q.mu.Lock()
	event, removed := e.Event, e.line.removed
	q.mu.Unlock()
	if removed {
		return nil
	}
	return q.config.Store.UpdateEvent(ctx, event)
}

func (q *Queue) removed(e *entry) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return e.line.removed
}

// settle ends a delivery; the event waits again unless it is over.
func (q *Queue) settle(e *entry, over bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	e.line.settle(e, over)
}

// shorten bounds what is kept of an error.
func shorten(text string) string {
	if len(text) > 2000 {
		return strings.ToValidUTF8(text[:2000], "") + "…"
	}
	return text
}

// meter publishes how many wait, and how attempts end.
func (q *Queue) meter(registry prometheus.Registerer) {
	q.attempts = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "lull_events_attempts_total", Help: "Attempts to deliver asynchronous events, by result.",
	}, []string{"result"})
	if registry == nil {
		return
	}
	registry.MustRegister(q.attempts, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "lull_events_waiting", Help: "Asynchronous events that are not done.",
	}, func() float64 {
		q.mu.Lock()
		defer q.mu.Unlock()
		waiting := 0
		for _, l := range q.apps {
			waiting += len(l.entries)
		}
		return float64(waiting)
	}))
}
