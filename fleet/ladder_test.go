package fleet_test

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/fleet"
	"github.com/lull-dev/lull/internal/bubble"
	"github.com/lull-dev/lull/sandbox"
)

func TestPauseAndResume(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app"))
		id := w.warm()
		sleep(2*time.Second - time.Millisecond)
		w.is("running")
		sleep(time.Millisecond)
		w.is("paused")
		if !w.fake.Sandbox(id).Paused() {
			t.Error("the sandbox is not paused")
		}
		p := w.acquire("GET /rooms")
		if p.How() != fleet.Resumed || p.Environment() != id || get(t, p) != "hello" {
			t.Errorf("got %s by %s", p.Environment(), p.How())
		}
		sleep(time.Hour)
		w.is("running")
		p.Free()
		sleep(2 * time.Second)
		w.is("paused")
		sleep(168*time.Hour - 3*time.Second)
		w.is("paused")
		sleep(time.Second)
		w.is("")
	})
}

// A connection that arrives while an environment is being paused has it resumed at once, and no byte comes too early.
func TestPauseIsCalledOff(t *testing.T) {
	slow := 100 * time.Millisecond
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app"))
		id := w.warm()
		w.fake.Before(func(_ context.Context, verb string, _ sandbox.Spec) error {
			if verb == "pause" {
				bubble.Pass(slow)
			}
			return nil
		})
		sleep(2*time.Second + slow/2)
		w.is("paused") // as far as anybody may know
		p := w.acquire("GET /rooms")
		if p.How() != fleet.Resumed || p.Waited() != slow/2 || w.fake.Sandbox(id).Paused() {
			t.Errorf("got it by %s after %v", p.How(), p.Waited())
		}
		if w.fake.Starts() != 1 {
			t.Error("another one was started")
		}
		p.Free()
	})
}

// One that is being stopped gets nothing, and counts until it is gone.
func TestArrivalDuringAStop(t *testing.T) {
	const stopping = time.Second
	for most, want := range map[int]time.Duration{1: stopping/2 + startTime, 2: startTime} {
		inBubble(t, func(t *testing.T, w *world) {
			w.Use(release(1, "app", size(1, most)))
			id := w.warm()
			w.fake.Before(slowly("stop", stopping))
			sleep(168*time.Hour + stopping/2)
			w.is("paused")
			p := w.acquire("GET /")
			if p.Environment() == id || p.How() != fleet.Started || p.Waited() < want || p.Waited() > want+30*time.Millisecond {
				t.Errorf("max %d: got it by %s after %v, want a new one after %v", most, p.How(), p.Waited(), want)
			}
			p.Free()
			sleep(stopping)
			if w.fake.Peak() != most {
				t.Errorf("max %d: there were %d", most, w.fake.Peak())
			}
		})
	}
}

func TestEnvironmentThatCannotBePausedGoesOn(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app"))
		id := w.warm()
		w.fake.Before(func(_ context.Context, verb string, _ sandbox.Spec) error {
			if verb == "pause" {
				return errors.New("freezer is busy")
			}
			return nil
		})
		sleep(2 * time.Second)
		w.is("running")
		if p := w.acquire("GET /"); p.Environment() != id {
			t.Error("it was replaced")
		}
	})
}

func TestEnvironmentThatCannotBeResumedIsReplaced(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app"))
		id := w.warm()
		sleep(time.Minute)
		w.fake.Before(func(_ context.Context, verb string, _ sandbox.Spec) error {
			if verb == "resume" {
				return errors.New("freezer is broken")
			}
			return nil
		})
		p := w.acquire("GET /")
		if p.Environment() == id || p.How() != fleet.Started {
			t.Errorf("got %s by %s", p.Environment(), p.How())
		}
		p.Free()
		w.is("failed running")
	})
}

func TestDeathWhilePausedIsNoticed(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app"))
		id := w.warm()
		sleep(time.Minute)
		w.fake.Sandbox(id).Die(sandbox.Exit{Code: -1, Signal: "SIGKILL"})
		w.is("failed")
		if p := w.acquire("GET /"); p.How() != fleet.Started {
			t.Errorf("got a place by %s", p.How())
		}
	})
}

// min keeps one up; of several it is the one that was busy last.
func TestMinIsKeptUp(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app", size(1, 3), func(m *lull.Manifest) { m.Scale.Min = 1 }))
		sleep(time.Second)
		w.is("running")
		a, b := w.acquire("GET /a"), w.acquire("GET /b")
		a.Free()
		sleep(time.Second)
		b.Free()
		sleep(time.Hour)
		w.is("paused running")
		w.fake.Sandbox(b.Environment()).Die(sandbox.Exit{Code: 3})
		synctest.Wait()
		sleep(time.Second)
		w.is("running failed") // the one that was asleep has taken over
		if w.fake.Starts() != 2 {
			t.Errorf("%d were started, want 2", w.fake.Starts())
		}
		sleep(200 * time.Hour)
		w.is("running")
	})
}

func TestMinHonoursTheBackoff(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "broken", func(m *lull.Manifest) { m.Scale.Min = 1 }))
		sleep(10 * time.Second) // starts at 0, 1.05, 3.1, 7.15
		if got := w.fake.Starts(); got != 4 {
			t.Errorf("started %d times in 10s, want 4", got)
		}
		sleep(10 * time.Minute)
		if got := w.fake.Starts(); got > 18 {
			t.Errorf("started %d times in 10m", got)
		}
	})
}

// An app that sleeps costs one goroutine, that of its environment; an app with nothing costs none.
func TestIdleAppsCostNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := runtime.NumGoroutine()
		w := newWorld(t)
		w.Use(release(1, "app"))
		w.warm()
		sleep(169 * time.Hour)
		w.is("")
		if got := runtime.NumGoroutine() - before; got > 0 {
			t.Errorf("%d goroutines for an app with nothing running", got)
		}
		w.end()
	})
}
