package store

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lull-dev/lull"
)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestEventsComeBack(t *testing.T) {
	dir, ctx := t.TempDir(), t.Context()
	s := open(t, dir)
	now := time.Now().UTC().Round(0)
	first := Event{App: "shop", ID: "1", Accepted: now, Due: now}
	second := Event{App: "shop", ID: "2", Accepted: now.Add(time.Second), Due: now}
	other := Event{App: "shop-2", ID: "1", Accepted: now.Add(-time.Second), Due: now}
	payload := Payload{Event: []byte(`{"a": 1}`), ClientContext: []byte(`{}`)}
	for _, event := range []Event{second, first, other} {
		check(t, s.AddEvent(ctx, event, payload))
	}
	first.Attempts, first.LastErr, first.Due = 1, "it failed", now.Add(time.Minute)
	check(t, s.UpdateEvent(ctx, first))
	check(t, s.RemoveEvent(ctx, "shop", "2"))
	closed(t, s)

	s = open(t, dir)
	defer closed(t, s)
	got, err := s.Events(ctx)
	check(t, err)
	if diff := cmp.Diff([]Event{other, first}, got); diff != "" {
		t.Error(diff)
	}
	back, err := s.EventPayload(ctx, "shop", "1")
	if diff := cmp.Diff(payload, back); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if _, err := s.EventPayload(ctx, "shop", "2"); lull.KindOf(err) != lull.KindNotFound {
		t.Errorf("payload of an event that was removed: %v", err)
	}
	add(t, s, "shop", "x")
	check(t, s.RemoveApp(ctx, "shop"))
	if got, err = s.Events(ctx); err != nil || len(got) != 1 || got[0].App != "shop-2" {
		t.Errorf("after the app was removed: %+v, %v", got, err)
	}
}

func TestEventIsBounded(t *testing.T) {
	s := open(t, t.TempDir())
	defer closed(t, s)
	event := Event{App: "shop", ID: "1"}
	wantKind(t, s.AddEvent(t.Context(), event, Payload{Event: make([]byte, MaxEvent+1)}), lull.KindTooLarge)
	check(t, s.AddEvent(t.Context(), event, Payload{Event: make([]byte, MaxEvent)}))
	for _, bad := range []Event{{App: "shop", ID: "a.b"}, {App: "shop", ID: ">"}, {App: "*", ID: "1"}, {App: "shop"}} {
		if err := s.AddEvent(t.Context(), bad, Payload{}); err == nil {
			t.Errorf("%+v was stored", bad)
		}
	}
}

// What was never acknowledged is gone at the next start.
func TestHalfAnEventIsRemoved(t *testing.T) {
	s := open(t, t.TempDir())
	defer closed(t, s)
	check(t, s.events.put(t.Context(), "shop.1.payload", []byte(`{}`)))
	if events, err := s.Events(t.Context()); err != nil || len(events) != 0 {
		t.Errorf("%+v, %v", events, err)
	}
	if left, err := s.events.list(t.Context(), ">"); err != nil || len(left) != 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}

func TestMarksComeBack(t *testing.T) {
	dir, ctx := t.TempDir(), t.Context()
	s := open(t, dir)
	due := time.Date(2026, 3, 1, 12, 0, 0, 5, time.UTC)
	check(t, s.Mark(ctx, "shop", "hourly", due.Add(-time.Hour)))
	check(t, s.Mark(ctx, "shop", "hourly", due))
	check(t, s.Mark(ctx, "shop", "schedule-2", due))
	check(t, s.Mark(ctx, "other", "hourly", due.Add(time.Hour)))
	closed(t, s)
	s = open(t, dir)
	defer closed(t, s)
	got, err := s.Marks(ctx, "shop")
	if diff := cmp.Diff(map[string]time.Time{"hourly": due, "schedule-2": due}, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if err := s.Mark(ctx, "shop", "a.b", due); err == nil {
		t.Error("a schedule with a dot in its name was taken")
	}
}

// A directory of the version before, which had neither events nor marks, gets them.
func TestOlderDirectoryIsCompleted(t *testing.T) {
	dir, ctx := t.TempDir(), t.Context()
	s := open(t, dir)
	add(t, s, "shop", "x")
	for _, name := range []string{eventsStream, marksStream} {
		check(t, s.events.js.DeleteStream(ctx, name))
	}
	closed(t, s)
	check(t, os.WriteFile(filepath.Join(dir, formatFile), []byte("1\n"), 0o600))
	s = open(t, dir)
	check(t, s.Mark(ctx, "shop", "hourly", time.Now()))
	check(t, s.events.js.DeleteStream(ctx, marksStream))
	closed(t, s)
	if _, err := Open(ctx, dir, s.log); err == nil {
		t.Error("a directory that has lost a stream was opened")
	}
}
