package fleet_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/fleet"
	"github.com/lull-dev/lull/internal/bubble"
	"github.com/lull-dev/lull/sandbox"
)

func TestFirstConnectionStartsCold(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app"))
		w.is("")
		p := w.acquire("GET /rooms")
		if p.How() != fleet.Started || p.Waited() < startTime || p.Waited() > startTime+30*time.Millisecond {
			t.Errorf("got a place by %s after %v, want by start after %v", p.How(), p.Waited(), startTime)
		}
		if id := p.Environment(); !strings.HasPrefix(id, "chat-") || len(id) != len("chat-")+8 || id != strings.ToLower(id) {
			t.Errorf("environment is called %s", id)
		}
		if p.Release().Number != 1 || get(t, p) != "hello" {
			t.Errorf("release %v does not answer", p.Release())
		}
		again := w.acquire("GET /again")
		if again.How() != fleet.Warm || again.Waited() != 0 || again.Environment() != p.Environment() {
			t.Errorf("the next one got %s by %s after %v", again.Environment(), again.How(), again.Waited())
		}
		p.Free()
		p.Free()
		status := w.Environments()
		if len(status) != 1 || status[0].Exchanges != 1 || status[0].Memory == 0 || status[0].CPU == 0 {
			t.Errorf("after one of two was freed twice: %+v", status)
		}
		again.Free()
	})
}

func TestNothingToUse(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		if _, err := w.Acquire(t.Context(), fleet.Want{}); lull.KindOf(err) != lull.KindNotFound {
			t.Errorf("without a release: %v", err)
		}
	})
}

// 250 at once at concurrency 100: three environments, started in parallel.
func TestScaleOut(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app"))
		counts, began := w.storm(250, time.Second), time.Now()
		if len(counts) != 3 || w.fake.Peak() != 3 {
			t.Errorf("served by %v, with %d environments at most; want 3", counts, w.fake.Peak())
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("took %v", took)
		}
		w.is("running running running")
		sleep(3 * time.Second)
		w.is("paused paused paused")
		sleep(168 * time.Hour)
		w.is("")
	})
}

// storm makes n exchanges at once, each of which takes some time, and returns how many each environment had.
func (w *world) storm(n int, each time.Duration) map[string]int {
	var mu sync.Mutex
	counts := map[string]int{}
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			p, err := w.Acquire(w.t.Context(), fleet.Want{Why: "GET /storm"})
			if err != nil {
				w.t.Errorf("acquire: %v", err)
				return
			}
			bubble.Pass(each)
			p.Free()
			mu.Lock()
			defer mu.Unlock()
			counts[p.Environment()]++
		})
	}
	all.Wait()
	return counts
}

// 250 at once with one environment: served in turn.
func TestOneEnvironmentInTurn(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app", size(100, 1)))
		began := time.Now()
		if counts := w.storm(250, time.Second); len(counts) != 1 {
			t.Errorf("served by %v", counts)
		}
		if took := time.Since(began); took < 3*time.Second || took > 4*time.Second {
			t.Errorf("three turns of a second took %v", took)
		}
	})
}

// 2,000 at once to an app that is stopped, with room for 1,000.
func TestStormOnAStoppedApp(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app"))
		counts := w.storm(2000, time.Second)
		total := 0
		for _, n := range counts {
			total += n
		}
		if total != 2000 || len(counts) != 10 || w.fake.Peak() > 10 {
			t.Errorf("%d served by %d environments, with %d at most", total, len(counts), w.fake.Peak())
		}
	})
}

// What frees up first is taken by who has waited longest, whatever was brought up for whom.
func TestFirstComeFirstServed(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app", size(1, 2)))
		first := w.acquire("GET /1")
		type got struct {
			name  string
			how   fleet.How
			place fleet.Place
		}
		served := make(chan got)
		for _, name := range []string{"GET /2", "GET /3", "GET /4"} {
			go func() {
				p := w.acquire(name)
				served <- got{name, p.How(), p}
			}()
			synctest.Wait()
		}
		sleep(10 * time.Millisecond) // the second environment was asked for by /2, and is not ready yet
		first.Free()
		second := <-served
		third := <-served
		second.place.Free()
		fourth := <-served
		for i, g := range []got{second, third, fourth} {
			want := []got{{name: "GET /2", how: fleet.Queued}, {name: "GET /3", how: fleet.Started}, {name: "GET /4", how: fleet.Queued}}[i]
			if g.name != want.name || g.how != want.how {
				t.Errorf("number %d is %s by %s, want %s by %s", i+2, g.name, g.how, want.name, want.how)
			}
		}
		third.place.Free()
		fourth.place.Free()
	})
}

func TestQueueIsBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app", size(1, 1), func(m *lull.Manifest) { m.Queue, m.Timeout.Queue = 2, lull.Duration(10*time.Second) }))
		p := w.acquire("GET /1")
		errs := make(chan error, 2)
		for range 2 {
			go func() {
				_, err := w.Acquire(t.Context(), fleet.Want{})
				errs <- err
			}()
		}
		synctest.Wait()
		began := time.Now()
		if _, err := w.Acquire(t.Context(), fleet.Want{}); lull.KindOf(err) != lull.KindQueueFull || time.Since(began) != 0 {
			t.Errorf("the third in a queue of two: %v after %v", err, time.Since(began))
		}
		for range 2 {
			if err := <-errs; lull.KindOf(err) != lull.KindStarting || !strings.Contains(err.Error(), "10s") {
				t.Errorf("in the queue: %v", err)
			}
		}
		if waited := time.Since(began); waited != 10*time.Second {
			t.Errorf("waited %v, want the 10s of timeout.queue", waited)
		}
		p.Free()
	})
}

// "queue: 0" is for those who would have to wait for somebody else; an app that sleeps is still woken.
func TestNoQueueAtAll(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app", size(1, 1), func(m *lull.Manifest) { m.Queue = 0 }))
		p := w.acquire("GET /1")
		if _, err := w.Acquire(t.Context(), fleet.Want{}); lull.KindOf(err) != lull.KindQueueFull {
			t.Errorf("no room, no queue: %v", err)
		}
		p.Free()
	})
}

func TestClientGoesWhileItWaits(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app", size(1, 1)))
		p := w.acquire("GET /1")
		gone := errors.New("client has gone")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(gone) })
		if _, err := w.Acquire(ctx, fleet.Want{}); !errors.Is(err, gone) {
			t.Errorf("error is %v", err)
		}
		p.Free()
		w.acquire("GET /2").Free() // its place was not lost
	})
}

// A place that is given to a client in the moment it goes is not lost.
func TestClientGoesAsItsTurnComes(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app", size(1, 1)))
		p := w.acquire("GET /1")
		lost := 0
		for range 50 { // each time it is a matter of luck which comes first
			time.AfterFunc(time.Second, p.Free)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if q, err := w.Acquire(ctx, fleet.Want{}); err == nil {
				q.Free()
			} else {
				lost++
			}
			cancel()
			p = w.acquire("GET /next")
		}
		p.Free()
		if lost == 0 || lost == 50 {
			t.Logf("the client was gone %d times of 50", lost)
		}
	})
}

func TestCloseEndsEverything(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app", size(1, 1)))
		p := w.acquire("GET /slow")
		waiting := make(chan error)
		go func() {
			_, err := w.Acquire(t.Context(), fleet.Want{})
			waiting <- err
		}()
		synctest.Wait()
		time.AfterFunc(3*time.Second, p.Free)
		closed := make(chan time.Duration)
		go func() {
			began := time.Now()
			w.Close(10 * time.Second)
			closed <- time.Since(began)
		}()
		if err := <-waiting; lull.KindOf(err) != lull.KindDraining {
			t.Errorf("waiting ended with %v", err)
		}
		if _, err := w.Acquire(t.Context(), fleet.Want{}); lull.KindOf(err) != lull.KindDraining {
			t.Errorf("acquire while it closes: %v", err)
		}
		if took := <-closed; took != 3*time.Second {
			t.Errorf("close took %v, want until the exchange had ended", took)
		}
		if err := w.Switch(t.Context(), release(2, "app")); lull.KindOf(err) != lull.KindDraining {
			t.Errorf("switch after close: %v", err)
		}
		w.is("")
	})
}

func TestCloseDoesNotWaitForEver(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app"))
		p := w.acquire("GET /endless")
		began := time.Now()
		w.Close(2 * time.Second)
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("close took %v", took)
		}
		<-p.Done()
		if err := p.Err(); lull.KindOf(err) != lull.KindDraining {
			t.Errorf("the exchange ended with %v", err)
		}
		if s := p.Stream(); !closing(s) {
			t.Error("a stream on what is over is not told to close")
		}
		p.Free()
	})
}

func TestCloseWhileStarting(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "silent"))
		waiting := make(chan error)
		go func() {
			_, err := w.Acquire(t.Context(), fleet.Want{})
			waiting <- err
		}()
		sleep(time.Second)
		w.is("starting")
		began := time.Now()
		w.Close(time.Minute)
		if took := time.Since(began); took != 0 {
			t.Errorf("close took %v, want that it calls the start off", took)
		}
		if err := <-waiting; lull.KindOf(err) != lull.KindDraining {
			t.Errorf("waiting ended with %v", err)
		}
	})
}

func TestCrash(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app", size(2, 1)))
		id := w.warm()
		sleep(time.Minute)
		p := w.acquire("GET /boom")
		s, _ := w.stream()
		waiting := make(chan fleet.Place)
		q := w.acquire("GET /fill")
		go func() { waiting <- w.acquire("GET /next") }()
		synctest.Wait()
		w.fake.Sandbox(id).Die(sandbox.Exit{Code: -1, Signal: "SIGKILL", Limit: sandbox.LimitMemory})
		<-p.Done()
		if err := p.Err(); lull.KindOf(err) != lull.KindCrashed || !strings.Contains(err.Error(), "memory limit of 256MB") {
			t.Errorf("the exchange ended with %v", err)
		}
		if _, err := p.Dial(t.Context()); lull.KindOf(err) != lull.KindCrashed {
			t.Errorf("dial: %v", err)
		}
		<-s.Closing()
		if _, err := s.Hold(t.Context(), "frame"); lull.KindOf(err) != lull.KindCrashed {
			t.Errorf("hold: %v", err)
		}
		s.Close()
		p.Free()
		q.Free()
		next := <-waiting
		if next.How() != fleet.Started || next.Environment() == id {
			t.Errorf("the queue was served by %s, %s", next.How(), next.Environment())
		}
		next.Free()
		status := w.Environments()
		if len(status) != 2 || status[0].State != lull.Failed || !strings.Contains(status[0].Reason, "memory limit") {
			t.Errorf("environments are %+v", status)
		}
	})
}

func TestMovesSayWhy(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app"))
		id := w.warm()
		sleep(10 * time.Second)
		w.acquire("GET /rooms").Free()
		w.fake.Sandbox(id).Die(sandbox.Exit{Code: 1})
		synctest.Wait()
		var story []string
		for _, m := range w.Environments()[0].Moves {
			why := m.Why
			if strings.HasPrefix(why, "ready after ") {
				why = "ready" // how long that took depends on how often it is asked
			}
			story = append(story, m.State.String()+": "+why)
		}
		want := []string{"starting: GET /warm", "running: ready", "paused: idle 2s", "running: GET /rooms",
			"failed: crashed: exited with code 1"}
		if diff := cmp.Diff(want, story); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	})
}
