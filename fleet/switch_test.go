package fleet_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/fleet"
	"github.com/lull-dev/lull/internal/bubble"
)

// Release 2 while release 1 is hammered and has a long exchange: nothing fails, and everything new sees release 2.
func TestSwitchWithoutAGap(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app", size(5, 3)))
		download := w.acquire("GET /download")
		ctx, stop := context.WithCancel(t.Context())
		var clients sync.WaitGroup
		for range 10 {
			clients.Go(func() {
				for ctx.Err() == nil {
					p, err := w.Acquire(t.Context(), fleet.Want{Why: "GET /hammer"})
					if err != nil {
						t.Errorf("a request failed: %v", err)
						return
					}
					bubble.Pass(7 * time.Millisecond)
					select {
					case <-p.Done():
						t.Errorf("cut off: %v", p.Err())
					default:
					}
					p.Free()
				}
			})
		}
		sleep(time.Second)
		if err := w.Switch(t.Context(), release(2, "app", size(5, 3))); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			p := w.acquire("GET /new")
			if p.Release().Number != 2 {
				t.Errorf("served by release %d after the switch", p.Release().Number)
			}
			p.Free()
			sleep(10 * time.Millisecond)
		}
		stop()
		clients.Wait()
		sleep(20 * time.Second)
		select {
		case <-download.Done():
			t.Errorf("the download was cut off: %v", download.Err())
		default:
		}
		if got := get(t, download); got != "hello" || download.Release().Number != 1 {
			t.Errorf("the download got %q", got)
		}
		download.Free()
		synctest.Wait()
		for _, s := range w.Environments() {
			if s.Release == 1 {
				t.Errorf("release 1 is still there: %+v", s)
			}
		}
	})
}

func TestSwitchToABrokenRelease(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app"))
		id := w.warm()
		err := w.Switch(t.Context(), release(2, "broken"))
		if lull.KindOf(err) != lull.KindNotReady || !strings.Contains(err.Error(), "chat@2 exited with code 1") ||
			!strings.Contains(lull.HintOf(err), "cannot find module express") {
			t.Errorf("error is %v, hint %q", err, lull.HintOf(err))
		}
		if len(w.fake.Sandboxes()) != 1 {
			t.Error("the broken one is still there")
		}
		p := w.acquire("GET /")
		if p.Environment() != id || p.How() != fleet.Warm {
			t.Errorf("served by %s, %s", p.Environment(), p.How())
		}
		p.Free()
		if err := w.Switch(t.Context(), release(3, "app")); err != nil {
			t.Errorf("the next release: %v", err)
		}
	})
}

func TestFirstReleaseThatIsBroken(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		if err := w.Switch(t.Context(), release(1, "broken")); lull.KindOf(err) != lull.KindNotReady {
			t.Errorf("error is %v", err)
		}
		if _, err := w.Acquire(t.Context(), fleet.Want{}); lull.KindOf(err) != lull.KindNotFound {
			t.Errorf("it is served: %v", err)
		}
	})
}

func TestSwitchCalledOff(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app"))
		id := w.warm()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if err := w.Switch(ctx, release(2, "silent")); lull.KindOf(err) != lull.KindNotReady || time.Since(began) != time.Second {
			t.Errorf("error is %v after %v", err, time.Since(began))
		}
		if boxes := w.fake.Sandboxes(); len(boxes) != 1 || boxes[0].ID() != id {
			t.Errorf("%d sandboxes are left", len(boxes))
		}
	})
}

// Rollback is a switch, and so is the same release once more. Many at once take turns.
func TestSwitchesTakeTurns(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		var all sync.WaitGroup
		for _, n := range []int{1, 2, 3, 2, 2, 1} {
			all.Go(func() {
				if err := w.Switch(t.Context(), release(n, "app")); err != nil {
					t.Error(err)
				}
			})
		}
		began := time.Now()
		all.Wait()
		if took := time.Since(began); took < 6*startTime {
			t.Errorf("six starts in %v: not in turn", took)
		}
		w.is("running")
		sleep(2 * time.Second)
		w.is("paused")
	})
}

// Streams may go on for the drain time; those that are quiet are told to close at once, the others at its end.
func TestSwitchDrainsStreams(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app"))
		quiet, _ := w.stream()
		sleep(40 * time.Second)
		w.is("paused")
		held := w.acquire("GET /")
		lively, _ := w.stream()
		held.Free()
		if err := w.Switch(t.Context(), release(2, "app")); err != nil {
			t.Fatal(err)
		}
		switched := time.Now()
		if !closing(quiet) || closing(lively) {
			t.Errorf("told to close: quiet %v, lively %v", closing(quiet), closing(lively))
		}
		quiet.Close()
		for range 20 {
			sleep(time.Second)
			lively.Moved()
		}
		if closing(lively) {
			t.Error("the lively one was told to close too early")
		}
		<-lively.Closing()
		if at := time.Since(switched); at != 25*time.Second {
			t.Errorf("the lively one was told after %v", at)
		}
		release, err := lively.Hold(t.Context(), "the last frame")
		if err != nil {
			t.Fatal(err)
		}
		release()
		lively.Close()
		synctest.Wait()
		for _, s := range w.Environments() {
			if s.Release == 1 {
				t.Errorf("release 1 is still there: %+v", s)
			}
		}
	})
}

func TestDrainEnds(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app"))
		p := w.acquire("GET /endless")
		if err := w.Switch(t.Context(), release(2, "app")); err != nil {
			t.Fatal(err)
		}
		switched := time.Now()
		<-p.Done()
		if took := time.Since(switched); took != 12*time.Second {
			t.Errorf("cut off after %v", took)
		}
		if err := p.Err(); lull.KindOf(err) != lull.KindDraining || !strings.Contains(err.Error(), "release 2 replaced it") {
			t.Errorf("ended with %v", err)
		}
		p.Free()
	}, func(c *fleet.Config) { c.Drain = 12 * time.Second })
}

// Those who wait while the release is replaced are served by the new one.
func TestQueueSurvivesASwitch(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app", size(1, 1)))
		p := w.acquire("GET /slow")
		got := make(chan fleet.Place)
		go func() { got <- w.acquire("GET /waiting") }()
		synctest.Wait()
		if err := w.Switch(t.Context(), release(2, "app", size(1, 1))); err != nil {
			t.Fatal(err)
		}
		if q := <-got; q.Release().Number != 2 {
			t.Errorf("served by release %d", q.Release().Number)
		}
		p.Free()
	})
}

func TestCloseDuringASwitch(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		switched := make(chan error)
		go func() { switched <- w.Switch(t.Context(), release(1, "silent")) }()
		sleep(time.Second)
		w.Close(time.Second)
		if err := <-switched; lull.KindOf(err) != lull.KindDraining {
			t.Errorf("error is %v", err)
		}
	})
}

// An app that becomes one without environments: exchanges finish, whoever comes is told that there is nothing.
func TestRetire(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app"))
		p := w.acquire("GET /")
		w.Retire("it is files now")
		w.is("running")
		if _, err := w.Acquire(t.Context(), fleet.Want{}); lull.KindOf(err) != lull.KindNotFound {
			t.Errorf("a new connection: %v", err)
		}
		p.Free()
		sleep(time.Second)
		w.is("")
		w.Use(release(2, "app"))
		w.acquire("GET /").Free()
		w.is("running")
	})
}
