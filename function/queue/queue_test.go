package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/internal/bubble"
	"github.com/lull-dev/lull/store"
)

// shelf is a Store for as long as a test lasts, so that time can be played; the real one is in TestOverARestart.
type shelf struct {
	mu       sync.Mutex
	events   map[string]store.Event
	payloads map[string]store.Payload
	fails    error // of every change
}

func newShelf() *shelf {
	return &shelf{events: map[string]store.Event{}, payloads: map[string]store.Payload{}}
}

func (s *shelf) AddEvent(_ context.Context, event store.Event, payload store.Payload) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events[event.ID], s.payloads[event.ID] = event, payload
	return nil
}

func (s *shelf) UpdateEvent(_ context.Context, event store.Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fails == nil {
		s.events[event.ID] = event
	}
	return s.fails
}

func (s *shelf) EventPayload(_ context.Context, _, id string) (store.Payload, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.payloads[id], nil
}

func (s *shelf) RemoveEvent(_ context.Context, _, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fails == nil {
		delete(s.events, id)
		delete(s.payloads, id)
	}
	return s.fails
}

func (s *shelf) Events(context.Context) ([]store.Event, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []store.Event
	for _, event := range s.events {
		all = append(all, event)
	}
	slices.SortFunc(all, func(a, b store.Event) int { return cmp.Or(a.Accepted.Compare(b.Accepted), cmp.Compare(a.ID, b.ID)) })
	return all, nil
}

// function is what the events are for.
type function struct {
	mu      sync.Mutex
	calls   []string // event and minute
	began   time.Time
	answers map[string][]any // by event: "" is well, a string fails, an error is one; the last one stays
	takes   time.Duration
	most    int
	now     int
}

func (f *function) invoke(ctx context.Context, _, id string, _ store.Payload) (string, error) {
	f.mu.Lock()
	f.calls = append(f.calls, fmt.Sprintf("%s@%s", id, time.Since(f.began).Round(time.Second)))
	f.now++
	f.most = max(f.most, f.now)
	answers := f.answers[id]
	var answer any = ""
	if len(answers) > 0 {
		answer = answers[0]
		if len(answers) > 1 {
			f.answers[id] = answers[1:]
		}
	}
	f.mu.Unlock()
	if f.takes > 0 {
		timer := time.NewTimer(f.takes)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now--
	if err, is := answer.(error); is {
		return "", err
	}
	return answer.(string), ctx.Err()
}

func begin(t *testing.T, s Store, f *function) *Queue {
	t.Helper()
	f.began = time.Now()
	q, err := Open(t.Context(), Config{Store: s, Invoke: f.invoke, Log: slog.New(slog.DiscardHandler),
		Settings: func(app string) (Settings, bool) {
			if app != "shop" {
				return Settings{}, false
			}
			return Settings{Retries: 2, MaxAge: 6 * time.Hour, AtOnce: 2}, true
		}})
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// pass lets time pass, until everything that can happen has.
func pass(d time.Duration) {
	bubble.Pass(d)
	synctest.Wait()
}

func (q *Queue) mustAdd(t *testing.T, app, id string) {
	t.Helper()
	if err := q.Add(t.Context(), app, id, store.Payload{Event: []byte("{}")}); err != nil {
		t.Fatal(err)
	}
}

func TestRetriesAsOnAWS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, f := newShelf(), &function{answers: map[string][]any{
			"well": {""}, "once": {"it failed", ""}, "never": {"it failed"},
			"crashes": {&lull.Error{Kind: lull.KindCrashed, Message: "it has ended"}, ""},
			"bad":     {&lull.Error{Kind: lull.KindInvalid, Message: "no JSON"}},
		}}
		s.events["orphan"] = store.Event{App: "gone", ID: "orphan", Accepted: time.Now(), Due: time.Now()}
		q := begin(t, s, f)
		for _, id := range []string{"well", "once", "never", "crashes", "bad"} {
			q.mustAdd(t, "shop", id)
			synctest.Wait()
		}
		pass(time.Hour)
		want := []string{"well@0s", "once@0s", "never@0s", "crashes@0s", "bad@0s", "once@1m0s", "never@1m0s", "crashes@1m0s", "never@3m0s"}
		slices.Sort(want)
		slices.Sort(f.calls)
		if diff := gocmp.Diff(want, f.calls); diff != "" {
			t.Error(diff)
		}
		var buried []string
		for _, event := range append(q.List("shop"), q.List("gone")...) {
			buried = append(buried, fmt.Sprintf("%s %d %s", event.ID, event.Attempts, event.LastErr))
		}
		slices.Sort(buried)
		if diff := gocmp.Diff([]string{"bad 0 no JSON", "never 3 it failed", "orphan 0 there is no such function any more"}, buried); diff != "" {
			t.Error(diff)
		}
		if len(s.events) != 3 {
			t.Errorf("%v are stored", s.events)
		}

		f.answers["never"] = []any{""}
		if err := q.Retry(t.Context(), "shop", "never"); err != nil {
			t.Error(err)
		}
		if err := q.Remove(t.Context(), "shop", "bad"); err != nil {
			t.Error(err)
		}
		pass(time.Second)
		if err := q.Remove(t.Context(), "shop", "never"); lull.KindOf(err) != lull.KindNotFound || len(s.events) != 1 {
			t.Errorf("%v, %v are stored", err, s.events)
		}
		q.Close(t.Context())
	})
}

// An event that finds no place waits, without that counting as a failure, until it is too old.
func TestNoPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		full := &lull.Error{Kind: lull.KindQueueFull, Message: "no place"}
		s, f := newShelf(), &function{answers: map[string][]any{"soon": {full, full, full, ""}, "never": {full}}}
		q := begin(t, s, f)
		q.mustAdd(t, "shop", "soon")
		pass(time.Minute)
		if diff := gocmp.Diff([]string{"soon@0s", "soon@1s", "soon@3s", "soon@7s"}, f.calls); diff != "" {
			t.Error(diff)
		}
		q.mustAdd(t, "shop", "never")
		pass(7 * time.Hour)
		buried := q.List("shop")
		if len(buried) != 1 || buried[0].Buried.IsZero() || buried[0].ID != "never" || buried[0].Attempts != 0 || len(f.calls) > 100 {
			t.Errorf("%+v after %d calls", buried, len(f.calls))
		}
		q.Close(t.Context())
	})
}

// What a person can do with the events of a function: see them, have one delivered now, delete one, but not under delivery. If the
// store fails, everything stays as it was.
func TestEventsByHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, f := newShelf(), &function{takes: time.Second, answers: map[string][]any{"bad": {&lull.Error{Kind: lull.KindInvalid, Message: "no JSON"}},
			"fails": {"it failed", ""}}}
		q := begin(t, s, f)
		list := func() (all []string) {
			for _, e := range q.List("shop") {
				all = append(all, fmt.Sprintf("%s buried:%v delivering:%v", e.ID, !e.Buried.IsZero(), e.Delivering))
			}
			return all
		}
		check := func(want ...string) {
			t.Helper()
			if diff := gocmp.Diff(want, list()); diff != "" {
				t.Error(diff)
			}
		}
		for _, id := range []string{"bad", "fails", "later"} { // two at a time
			q.mustAdd(t, "shop", id)
		}
		synctest.Wait()
		check("bad buried:false delivering:true", "fails buried:false delivering:true", "later buried:false delivering:false")
		if err := q.Remove(t.Context(), "shop", "bad"); lull.KindOf(err) != lull.KindConflict {
			t.Errorf("an event under delivery: %v", err)
		}
		if err := q.Remove(t.Context(), "shop", "later"); err != nil {
			t.Error(err)
		}
		pass(2 * time.Second)
		check("bad buried:true delivering:false", "fails buried:false delivering:false")

		s.fails = errors.New("the disk is full")
		for _, act := range []func(context.Context, string, string) error{q.Retry, q.Remove} {
			if err := act(t.Context(), "shop", "bad"); err != s.fails {
				t.Errorf("%v", err)
			}
		}
		s.fails = nil
		check("bad buried:true delivering:false", "fails buried:false delivering:false")

		if err := q.Retry(t.Context(), "shop", "fails"); err != nil {
			t.Error(err)
		}
		pass(2 * time.Second) // long before its time
		check("bad buried:true delivering:false")
		if payload, err := q.Payload(t.Context(), "shop", "bad"); err != nil || string(payload.Event) != "{}" {
			t.Errorf("%s %v", payload.Event, err)
		}
		q.Close(t.Context())
	})
}

func TestOrderAndBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, f := newShelf(), &function{takes: time.Second}
		q := begin(t, s, f)
		for n := range 6 {
			q.mustAdd(t, "shop", fmt.Sprintf("e%d", n))
		}
		pass(time.Minute)
		if f.most != 2 {
			t.Errorf("%d at a time, want 2", f.most)
		}
		for n := 0; n < 6; n += 2 { // two at a time, in order
			pair := slices.Sorted(slices.Values(f.calls[n : n+2]))
			want := []string{fmt.Sprintf("e%d@%ds", n, n/2), fmt.Sprintf("e%d@%ds", n+1, n/2)}
			if diff := gocmp.Diff(want, pair); diff != "" {
				t.Error(diff)
			}
		}
		q.Close(t.Context())
	})
}

// The events of an app wait while it is no function, for as long as they may.
func TestNoFunctionForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, f := newShelf(), &function{began: time.Now(), takes: time.Minute, answers: map[string][]any{
			"caught": {&lull.Error{Kind: lull.KindInvalid, Message: "it is not a function"}, ""}}}
		var atOnce atomic.Int64
		q, err := Open(t.Context(), Config{Store: s, Invoke: f.invoke, Settings: func(string) (Settings, bool) {
			return Settings{Retries: 2, MaxAge: 6 * time.Hour, AtOnce: int(atOnce.Load())}, true
		}})
		if err != nil {
			t.Fatal(err)
		}
		become := func(n int64) { atOnce.Store(n); q.Wake(); synctest.Wait() }
		become(2)
		q.mustAdd(t, "shop", "caught") // by a deploy
		synctest.Wait()
		become(0)
		q.mustAdd(t, "shop", "later")
		pass(time.Hour)
		if list := q.List("shop"); len(list) != 2 || !list[0].Buried.IsZero() || !list[1].Buried.IsZero() || list[0].Delivering {
			t.Errorf("%+v", list)
		}
		become(2)
		pass(time.Hour)
		slices.Sort(f.calls)
		if diff := gocmp.Diff([]string{"caught@0s", "caught@1h0m0s", "later@1h0m0s"}, f.calls); diff != "" {
			t.Error(diff)
		}
		become(0)
		q.mustAdd(t, "shop", "never")
		pass(6*time.Hour - time.Second)
		if list := q.List("shop"); len(list) != 1 || !list[0].Buried.IsZero() {
			t.Errorf("%+v", list)
		}
		pass(time.Second)
		if list := q.List("shop"); len(list) != 1 || list[0].Buried.IsZero() || len(f.calls) != 3 {
			t.Errorf("%+v after %v", list, f.calls)
		}
		q.Close(t.Context())
	})
}

// A function that sends itself events without end does not fill the disk.
func TestEventsOfAnAppAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, f := newShelf(), &function{}
		settings := func(app string) (Settings, bool) { return Settings{MaxAge: time.Hour}, true }
		q, err := Open(t.Context(), Config{Store: s, Invoke: f.invoke, Settings: settings})
		if err != nil {
			t.Fatal(err)
		}
		large := store.Payload{Event: make([]byte, store.MaxEvent)}
		for range int(mostSize / store.MaxEvent) {
			if err := q.Add(t.Context(), "shop", "", large); err != nil {
				t.Fatal(err)
			}
		}
		full := func(app string, payload store.Payload) bool {
			err := q.Add(t.Context(), app, "", payload)
			if err != nil && lull.KindOf(err) != lull.KindQueueFull {
				t.Error(err)
			}
			return err != nil
		}
		if !full("shop", store.Payload{Event: []byte("1")}) || full("other", large) {
			t.Error("too much was taken, or what is another app's counted")
		}
		q.Close(t.Context())
		if q, err = Open(t.Context(), Config{Store: s, Invoke: f.invoke, Settings: settings}); err != nil {
			t.Fatal(err)
		}
		if !full("shop", store.Payload{Event: []byte("1")}) {
			t.Error("too much was taken after a restart")
		}
		if err := q.Remove(t.Context(), "shop", q.List("shop")[0].ID); err != nil {
			t.Error(err)
		}
		if full("shop", large) || !full("shop", large) {
			t.Error("there is not room for exactly one more")
		}
		pass(2 * time.Hour) // all are given up
		if full("shop", large) {
			t.Error("what was given up counts")
		}
		q.Close(t.Context())
	})
	l := newLine()
	for range mostEvents {
		if !l.admit(0) {
			t.Fatal("too few are taken")
		}
	}
	if l.admit(0) {
		t.Error("too many are taken")
	}
}

// slow is a shelf on which a change takes a second.
type slow struct {
	*shelf
	now, most atomic.Int64
}

func (s *slow) UpdateEvent(ctx context.Context, event store.Event) error {
	now := s.now.Add(1)
	defer s.now.Add(-1)
	s.most.Store(max(s.most.Load(), now))
	bubble.Pass(time.Second)
	return s.shelf.UpdateEvent(ctx, event)
}

// Events of an app that is not there are given up one after the other, however many there are.
func TestOrphans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slow{shelf: newShelf()}
		for n := range 5 {
			id := fmt.Sprintf("e%d", n)
			s.events[id] = store.Event{App: "gone", ID: id, Accepted: time.Now(), Due: time.Now()}
		}
		q := begin(t, s, &function{})
		pass(time.Minute)
		if list := q.List("gone"); len(list) != 5 || list[4].Buried.IsZero() || s.most.Load() != 1 {
			t.Errorf("%+v, %d at a time", list, s.most.Load())
		}
		q.Close(t.Context())
	})
}

// Of an app that was removed nothing is left, and nothing of it comes into the way of the next one of its name.
func TestRemovedApp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, f := newShelf(), &function{takes: time.Minute, answers: map[string][]any{"old": {&lull.Error{Kind: lull.KindCrashed, Message: "it has ended"}}}}
		q := begin(t, s, f)
		q.mustAdd(t, "shop", "old")
		pass(30 * time.Second)
		clear(s.events) // as the store does
		q.Forget("shop")
		for n := range 4 {
			q.mustAdd(t, "shop", fmt.Sprintf("e%d", n))
		}
		pass(time.Hour)
		slices.Sort(f.calls)
		if diff := gocmp.Diff([]string{"e0@30s", "e1@30s", "e2@1m30s", "e3@1m30s", "old@0s"}, f.calls); diff != "" {
			t.Error(diff)
		}
		if list := q.List("shop"); len(list) != 0 || len(s.events) != 0 {
			t.Errorf("the queue has %+v, the store %v", list, s.events)
		}
		if err := q.Add(t.Context(), "gone", "new", store.Payload{}); lull.KindOf(err) != lull.KindNotFound || len(s.events) != 0 {
			t.Errorf("an event for no app: %v, %v are stored", err, s.events)
		}
		q.Close(t.Context())
	})
}

// removing is a shelf whose app is removed while an event is being stored.
type removing struct {
	*shelf
	remove func()
}

func (r *removing) AddEvent(ctx context.Context, event store.Event, payload store.Payload) error {
	r.remove()
	return r.shelf.AddEvent(ctx, event, payload)
}

func TestRemovedWhileAnEventIsStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &removing{shelf: newShelf()}
		q := begin(t, s, &function{})
		s.remove = func() { q.Forget("shop") }
		if err := q.Add(t.Context(), "shop", "late", store.Payload{}); lull.KindOf(err) != lull.KindNotFound || len(s.events) != 0 {
			t.Errorf("%v, %v are stored", err, s.events)
		}
		q.Close(t.Context())
	})
}

// What is being delivered when the queue is closed gets its time, and is not done twice; nothing else begins.
func TestCloseWaits(t *testing.T) {
	for _, c := range []struct {
		name    string
		drain   time.Duration
		answer  any
		want    []string
		closing time.Duration // what Close takes
	}{
		{"in time", time.Hour, "", []string{"second"}, time.Minute},
		{"not in time", time.Second, "", []string{"first", "second"}, time.Second},
		{"failed in time", time.Hour, "it failed", []string{"first 1", "second"}, time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			s, f := newShelf(), &function{takes: time.Minute, answers: map[string][]any{"first": {c.answer}}}
			q, err := Open(t.Context(), Config{Store: s, Invoke: f.invoke, Settings: func(string) (Settings, bool) {
				return Settings{Retries: 2, MaxAge: time.Hour, AtOnce: 1}, true
			}})
			if err != nil {
				t.Fatal(err)
			}
			q.mustAdd(t, "shop", "first")
			synctest.Wait()
			q.mustAdd(t, "shop", "second")
			ctx, cancel := context.WithTimeout(t.Context(), c.drain)
			defer cancel()
			began := time.Now()
			q.Close(ctx)
			if took := time.Since(began); took != c.closing {
				t.Errorf("%s: Close took %s", c.name, took)
			}
			var left []string
			for id, event := range s.events {
				if event.Attempts > 0 {
					id = fmt.Sprint(id, " ", event.Attempts)
				}
				left = append(left, id)
			}
			slices.Sort(left)
			if diff := gocmp.Diff(c.want, left); diff != "" || len(f.calls) != 1 {
				t.Errorf("%s: %s%d calls", c.name, diff, len(f.calls))
			}
		})
	}
}

// The function has answered when the delivery is called off: that counts.
func TestAnswerAtTheLastMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		q, err := Open(t.Context(), Config{Store: s,
			Invoke:   func(ctx context.Context, _, _ string, _ store.Payload) (string, error) { <-ctx.Done(); return "", nil },
			Settings: func(string) (Settings, bool) { return Settings{MaxAge: time.Hour, AtOnce: 1}, true }})
		if err != nil {
			t.Fatal(err)
		}
		q.mustAdd(t, "shop", "last")
		synctest.Wait()
		over, cancel := context.WithCancel(t.Context())
		cancel()
		q.Close(over)
		if len(s.events) != 0 {
			t.Errorf("%v is left", s.events)
		}
	})
}

// A queue that ends in the middle of a delivery makes it again the next time; one that was done is not.
func TestOverARestart(t *testing.T) {
	s, err := store.Open(t.Context(), t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	began := make(chan string, 10)
	hang := true
	config := Config{Store: s, Settings: func(string) (Settings, bool) { return Settings{Retries: 2, MaxAge: time.Hour, AtOnce: 1}, true },
		Invoke: func(ctx context.Context, _, id string, payload store.Payload) (string, error) {
			began <- id + string(payload.Event)
			if id == "second" && hang {
				<-ctx.Done()
				return "", errors.New("called off")
			}
			return "", nil
		}}
	q, err := Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"first", "second", "third"} {
		if err := q.Add(t.Context(), "shop", id, store.Payload{Event: []byte("{}")}); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"first{}", "second{}"} {
		if got := <-began; got != want {
			t.Errorf("%s was delivered, want %s", got, want)
		}
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	q.Close(over)
	hang = false
	if q, err = Open(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"second{}", "third{}"} {
		if got := <-began; got != want {
			t.Errorf("%s was delivered, want %s", got, want)
		}
	}
	q.Close(t.Context())
	select {
	case id := <-began:
		t.Errorf("%s was delivered as well", id)
	default:
	}
}
