package fleet_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/fleet"
	"github.com/lull-dev/lull/internal/bubble"
)

// memoryOnly is a manifest whose streams are not held on disk.
func memoryOnly(m *lull.Manifest) {
	deep(m)
	m.Stream.Hold = "memory"
}

func (w *world) moves() (list []fleet.Move) {
	return w.Environments()[0].Moves
}

func TestTicks(t *testing.T) {
	_, disk := onDisk(t, 0)
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app", memoryOnly))
		s, id := w.stream()
		sleep(10 * time.Second)
		w.is("paused")
		box := w.fake.Sandbox(id)
		var ran []time.Duration
		began := time.Now()
		for range 40_000 { // a minute, looked at every 1.5 ms
			bubble.Pass(1500 * time.Microsecond)
			if !box.Paused() && s.Sleep() == 0 {
				ran = append(ran, time.Since(began))
			}
		}
		if n := len(ran); n < 4*10 || n > 4*20 {
			t.Errorf("it ran at %v", ran)
		}
		if gap := ran[len(ran)-1] - ran[0]; gap < 45*time.Second {
			t.Errorf("the last tick came %v after the first", gap)
		}
		w.is("paused")
		sleep(24 * time.Hour)
		w.is("paused") // not on disk: its streams are held in memory
		if moves := w.moves(); len(moves) > 5 || moves[len(moves)-2].Why != "tick" {
			t.Errorf("remembered: %v", moves)
		}
		s.Close()
		sleep(10 * time.Second)
		w.is("hibernated")
	}, disk)
}

// A tick in which something happens is none.
func TestTickBecomesReal(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app", deep))
		s, _ := w.stream()
		tick := func() {
			t.Helper()
			sleep(time.Second)
			for range 15_000 {
				if s.Sleep() == 0 {
					return
				}
				bubble.Pass(time.Millisecond)
			}
			t.Error("it did not tick")
		}
		sleep(4 * time.Second)
		w.is("paused")
		tick()
		s.Moved() // data from the app
		sleep(2 * time.Second)
		w.is("running")
		sleep(time.Second)
		w.is("paused")
		if moves := w.moves(); moves[len(moves)-2].Why != "data from the app" {
			t.Errorf("remembered: %v", moves)
		}
		tick()
		p := w.acquire("GET /rooms")
		if p.How() != fleet.Warm {
			t.Errorf("in a tick: by %s", p.How())
		}
		sleep(time.Minute)
		w.is("running")
		p.Free()
		sleep(2 * time.Second)
		w.is("paused")
		s.Close()
	})
}

// A step down waits for the answer to a ping of the app's, but not for ever; one that comes later is what the app finds
// first.
func TestUnsettledStreams(t *testing.T) {
	_, disk := onDisk(t, 0)
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app", deep))
		s, _ := w.stream()
		defer s.Close()
		answer := func(want bool) {
			t.Helper()
			release, ok := s.HoldIfThere()
			if ok {
				release()
			}
			if ok != want {
				t.Errorf("the answer could be given: %v", ok)
			}
			s.Unsettled(false)
		}
		sleep(2900 * time.Millisecond)
		s.Unsettled(true)
		sleep(300 * time.Millisecond)
		w.is("running")
		answer(true)
		w.is("running") // the app is given a moment for it
		sleep(20 * time.Millisecond)
		w.is("paused")
		s.Unsettled(true) // what it said last is read after the pause
		sleep(time.Second)
		answer(true)
		w.is("paused")
		s.Unsettled(true)
		sleep(2200 * time.Millisecond)
		w.is("paused") // it would be on disk by now
		answer(true)
		sleep(50 * time.Millisecond)
		w.is("hibernated")
		s.Unsettled(true)
		answer(false)

		release, err := s.Hold(t.Context(), "websocket data")
		if err != nil {
			t.Fatal(err)
		}
		release()
		s.Unsettled(true)
		sleep(4 * time.Second)
		w.is("paused") // a client that never answers does not keep it up
		sleep(5 * time.Second)
		w.is("hibernated")
	}, disk)
}

// What may come late comes with the next thing, whatever that is.
func TestWhenUp(t *testing.T) {
	_, disk := onDisk(t, 0)
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app", deep))
		s, id := w.stream()
		other, _ := w.stream()
		var done atomic.Int32
		late := func() {
			if box := w.fake.Sandbox(id); box == nil || box.Paused() {
				t.Error("it was done while the environment slept")
			}
			done.Add(1)
		}
		s.WhenUp(late)
		synctest.Wait()
		if done.Load() != 1 {
			t.Error("not done at once")
		}
		sleep(4 * time.Second)
		w.is("paused")
		s.WhenUp(late)
		sleep(time.Second)
		if done.Load() != 1 {
			t.Error("done while it is paused")
		}
		sleep(10 * time.Second)
		w.is("hibernated")
		s.WhenUp(late)
		s.Close()
		sleep(time.Hour)
		w.is("hibernated")
		release, err := other.Hold(t.Context(), "websocket data")
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if done.Load() != 3 {
			t.Errorf("%d of 3 done", done.Load())
		}
		release()
		other.Close()
	}, disk)
}

// beatFor passes heartbeats on for d, the next of which begins before the last has ended, and returns for how many
// milliseconds they came through.
func beatFor(s fleet.Stream, d time.Duration) (passed int) {
	ended := func() {}
	for range d.Milliseconds() {
		last := ended
		ended = func() {}
		if release, ok := s.HoldIfUp(); ok {
			ended = release
			passed++
		}
		last()
		bubble.Pass(time.Millisecond)
	}
	ended()
	return passed
}

// Heartbeats of many clients, one of which is always being written: no step down waits for a moment without one.
func TestHeartbeatsDoNotKeepItUp(t *testing.T) {
	_, disk := onDisk(t, 0)
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app", deep))
		s, _ := w.stream()
		defer s.Close()
		if passed := beatFor(s, 4*time.Second); passed < 2500 {
			t.Errorf("%d ms of heartbeats came through before it slept", passed)
		}
		w.is("paused")
		beatFor(s, 5*time.Second)
		w.is("hibernated")
	}, disk)
}

func TestHeartbeatsDoNotMakeATickLonger(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app", memoryOnly))
		s, _ := w.stream()
		defer s.Close()
		beatFor(s, 4*time.Second)
		w.is("paused")
		if passed := beatFor(s, time.Minute); passed < 20 || passed > 500 {
			t.Errorf("in a minute %d ms of heartbeats came through", passed)
		}
		w.is("paused")
	})
}
