package schedule

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/internal/bubble"
)

func at(t *testing.T, text string) time.Time {
	t.Helper()
	when, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return when
}

func TestTimes(t *testing.T) {
	for _, c := range []struct{ cron, zone, after, next string }{
		{"*/5 * * * *", "", "2026-03-01T12:01:00Z", "2026-03-01T12:05:00Z"},
		{"0 9 * * mon-fri", "", "2026-03-06T10:00:00Z", "2026-03-09T09:00:00Z"}, // a Friday
		{"30 2 * * *", "Europe/Berlin", "2026-07-01T00:00:00Z", "2026-07-01T00:30:00Z"},
		{"0 0 29 2 *", "", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"},
		{"@daily", "", "2026-03-01T12:00:00Z", "2026-03-02T00:00:00Z"},
	} {
		times, err := Parse(lull.Schedule{Cron: c.cron, Zone: c.zone})
		if err != nil {
			t.Errorf("%q: %v", c.cron, err)
			continue
		}
		if got := times.Next(at(t, c.after)); !got.Equal(at(t, c.next)) {
			t.Errorf("%q after %s: %s, want %s", c.cron, c.after, got, c.next)
		}
	}
}

func TestLastMissed(t *testing.T) {
	hourly, err := Parse(lull.Schedule{Cron: "0 * * * *"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ after, now, want string }{
		{"2026-03-01T12:00:00Z", "2026-03-01T12:59:59Z", ""},
		{"2026-03-01T12:00:00Z", "2026-03-01T13:00:00Z", "2026-03-01T13:00:00Z"},
		{"2020-03-01T12:00:00Z", "2026-03-01T13:30:00Z", "2026-03-01T13:00:00Z"},
	} {
		got := hourly.Last(at(t, c.after), at(t, c.now))
		if c.want == "" && !got.IsZero() || c.want != "" && !got.Equal(at(t, c.want)) {
			t.Errorf("after %s, at %s: %s, want %s", c.after, c.now, got, c.want)
		}
	}
}

func TestCheck(t *testing.T) {
	got := Check([]lull.Schedule{{Cron: "* * * *"}, {Cron: "@every 5s"}, {Cron: "0 0 30 2 *"}, {Cron: "* * * * *", Zone: "Mars/Olympus"}, {Cron: strings.Repeat("1,", 500) + "1 * * * *"}, {Cron: "TZ=UTC * * * * *"}})
	var paths []string
	for _, p := range got {
		paths = append(paths, p.Path)
	}
	want := []string{"schedules[0].cron", "schedules[1].cron", "schedules[2].cron", "schedules[3].zone", "schedules[4].cron", "schedules[5].cron"}
	if diff := cmp.Diff(want, paths); diff != "" {
		t.Errorf("%s\n%v", diff, got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("*/5 * * * *", "Europe/Berlin")
	f.Add("0 0 L * 1#2", "")
	f.Fuzz(func(t *testing.T, cron, zone string) {
		times, err := Parse(lull.Schedule{Cron: cron, Zone: zone})
		if err != nil {
			return
		}
		now := time.Now()
		if next := times.Next(now); !next.After(now) {
			t.Errorf("%q is due at %s, after %s", cron, next, now)
		}
	})
}

// memory is Marks for as long as the test lasts: what it has outlives a Runner.
type memory struct {
	mu    sync.Mutex
	marks map[string]time.Time
	err   error
}

func (m *memory) Marks(context.Context, string) (map[string]time.Time, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	marks := map[string]time.Time{}
	for name, due := range m.marks {
		marks[name] = due
	}
	return marks, m.err
}

func (m *memory) Mark(_ context.Context, _, name string, due time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err == nil {
		m.marks[name] = due
	}
	return m.err
}

// calls collects what a Runner does.
type calls struct {
	mu   sync.Mutex
	made []string
	do   func(ctx context.Context) error
}

func (c *calls) take(ctx context.Context, call Call) error {
	c.mu.Lock()
	c.made = append(c.made, call.Name+" "+call.Due.UTC().Format("15:04"))
	c.mu.Unlock()
	if c.do != nil {
		return c.do(ctx)
	}
	return nil
}

func (c *calls) want(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	if diff := cmp.Diff(want, c.made); diff != "" {
		t.Error(diff)
	}
	c.made = nil
}

// A bubble's clock begins at midnight.
func TestEachDueTimeOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kept, made := &memory{marks: map[string]time.Time{}}, &calls{}
		schedules := []lull.Schedule{{Name: "often", Cron: "*/20 * * * *"}, {Cron: "30 * * * *"}}
		r := New(Config{Marks: kept, Do: made.take})
		if err := r.Set(t.Context(), "app", schedules); err != nil {
			t.Fatal(err)
		}
		bubble.Pass(time.Hour + time.Minute)
		made.want(t, "often 00:20", "schedule-2 00:30", "often 00:40", "often 01:00")
		if err := r.Set(t.Context(), "app", schedules); err != nil { // a deploy
			t.Fatal(err)
		}
		made.want(t)
		r.Close(t.Context())

		// The node is away for three hours: the last due time of each is served, once.
		bubble.Pass(3*time.Hour + 4*time.Minute)
		for range 2 {
			r = New(Config{Marks: kept, Do: made.take})
			if err := r.Set(t.Context(), "app", schedules); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if list := r.List("app"); len(list) != 2 || list[0].Result == "" && list[0].Next.IsZero() {
				t.Errorf("status is %+v", list)
			}
			r.Close(t.Context())
		}
		if len(made.made) != 2 {
			t.Errorf("calls after the node was away: %v", made.made)
		}
		made.mu.Lock()
		made.made = nil
		made.mu.Unlock()

		r = New(Config{Marks: kept, Do: made.take})
		if err := r.Set(t.Context(), "app", schedules); err != nil {
			t.Fatal(err)
		}
		r.Remove("app")
		bubble.Pass(2 * time.Hour)
		made.want(t)
		r.Close(t.Context())
	})
}

func TestLongCallLetsDueTimesPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		made := &calls{do: func(context.Context) error { bubble.Pass(25 * time.Minute); return errors.New("too slow") }}
		r := New(Config{Marks: &memory{marks: map[string]time.Time{}}, Do: made.take})
		if err := r.Set(t.Context(), "app", []lull.Schedule{{Name: "s", Cron: "*/10 * * * *"}}); err != nil {
			t.Fatal(err)
		}
		bubble.Pass(time.Hour)
		made.want(t, "s 00:10", "s 00:40")
		bubble.Pass(20 * time.Minute)
		if got := r.List("app")[0].Result; got != "too slow" && got != "" {
			t.Errorf("result is %q", got)
		}
		r.Close(t.Context())
	})
}

// lasting is a call of a length; it counts those that were cut short.
func lasting(length time.Duration, cut *atomic.Int64) func(context.Context) error {
	return func(ctx context.Context) error {
		timer := time.NewTimer(length)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			cut.Add(1)
		}
		return ctx.Err()
	}
}

func TestCallsGoOnOverADeploy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var cut atomic.Int64
		made := &calls{do: lasting(25*time.Minute, &cut)}
		r := New(Config{Marks: &memory{marks: map[string]time.Time{}}, Do: made.take})
		set := func(schedules ...lull.Schedule) {
			t.Helper()
			if err := r.Set(t.Context(), "app", schedules); err != nil {
				t.Fatal(err)
			}
		}
		same := lull.Schedule{Name: "same", Cron: "10,40 * * * *"}
		set(same, lull.Schedule{Name: "other", Cron: "11,41 * * * *"}, lull.Schedule{Name: "gone", Cron: "12,42 * * * *"}, lull.Schedule{Name: "idle", Cron: "59 * * * *"})
		bubble.Pass(15 * time.Minute)
		set(lull.Schedule{Name: "idle", Cron: "20 * * * *"}, same, lull.Schedule{Name: "other", Cron: "50 * * * *"})
		bubble.Pass(51 * time.Minute)
		made.want(t, "same 00:10", "other 00:11", "gone 00:12", "idle 00:20", "same 00:40", "other 00:50")
		var results []string
		for _, s := range r.List("app") {
			results = append(results, s.Name+" "+s.Result+" "+s.Next.UTC().Format("15:04"))
		}
		if diff := cmp.Diff([]string{"idle ok 01:20", "same ok 01:10", "other  01:50"}, results); diff != "" || cut.Load() != 0 {
			t.Errorf("%s%d calls were cut", diff, cut.Load())
		}

		began := time.Now() // at 01:06
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		r.Close(ctx)
		if took := time.Since(began); took != 9*time.Minute || cut.Load() != 0 {
			t.Errorf("Close took %s, %d calls were cut", took, cut.Load())
		}
		made.want(t)
	})
}

func TestCallsAreCut(t *testing.T) {
	for name, end := range map[string]func(ctx context.Context, r *Runner){
		"the end of a drain": func(ctx context.Context, r *Runner) { r.Close(ctx) },
		"a removal":          func(_ context.Context, r *Runner) { bubble.Pass(time.Minute); r.Remove("app") },
		"a removal after a deploy": func(ctx context.Context, r *Runner) {
			_ = r.Set(ctx, "app", nil)
			bubble.Pass(time.Minute)
			r.Remove("app")
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			var cut atomic.Int64
			r := New(Config{Marks: &memory{marks: map[string]time.Time{}}, Do: (&calls{do: lasting(time.Hour, &cut)}).take})
			if err := r.Set(t.Context(), "app", []lull.Schedule{{Cron: "10 * * * *"}}); err != nil {
				t.Fatal(err)
			}
			bubble.Pass(11 * time.Minute)
			began := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			end(ctx, r)
			if took := time.Since(began); took != time.Minute || cut.Load() != 1 {
				t.Errorf("%s took %s and cut %d calls", name, took, cut.Load())
			}
			r.Close(t.Context())
		})
	}
}

// What cannot be recorded is not done: it might be done twice.
func TestNoCallWithoutMark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kept, made := &memory{marks: map[string]time.Time{}}, &calls{}
		r := New(Config{Marks: kept, Do: made.take})
		if err := r.Set(t.Context(), "app", []lull.Schedule{{Name: "s", Cron: "*/10 * * * *"}}); err != nil {
			t.Fatal(err)
		}
		kept.mu.Lock()
		kept.err = errors.New("no room on the disk")
		kept.mu.Unlock()
		bubble.Pass(15 * time.Minute)
		made.want(t)
		if got := r.List("app")[0].Result; got != "no room on the disk" {
			t.Errorf("result is %q", got)
		}
		r.Close(t.Context())
	})
}
