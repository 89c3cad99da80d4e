package fleet_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/fleet"
	"github.com/lull-dev/lull/internal/bubble"
)

func closing(s fleet.Stream) bool {
	select {
	case <-s.Closing():
		return true
	default:
		return false
	}
}

// Quiet after 30 s, idle for 2 s: asleep, with the stream held. A frame from the client wakes it.
func TestQuietStreamDoesNotKeepItUp(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app"))
		s, id := w.stream()
		sleep(31 * time.Second)
		w.is("running")
		s.Moved()
		sleep(31 * time.Second)
		w.is("running")
		sleep(time.Second)
		w.is("paused")
		if got := w.Environments()[0]; got.Streams != 1 || got.Held != 1 || got.Exchanges != 0 {
			t.Errorf("status is %+v", got)
		}
		release, err := s.Hold(t.Context(), "frame of 5 bytes")
		if err != nil || w.fake.Sandbox(id).Paused() {
			t.Fatalf("hold: %v, paused: %v", err, w.fake.Sandbox(id).Paused())
		}
		if got := w.Environments()[0]; got.Reason != "frame of 5 bytes" || got.Held != 0 {
			t.Errorf("status is %+v", got)
		}
		sleep(time.Hour)
		w.is("running") // as long as it is held
		release()
		release()
		sleep(31 * time.Second)
		w.is("running")
		s.Close()
		s.Close()
		sleep(2 * time.Second)
		w.is("paused")
		if got := w.Environments()[0]; got.Streams != 0 {
			t.Errorf("status is %+v", got)
		}
		if _, err := s.Hold(t.Context(), "late"); err == nil {
			t.Error("a closed stream was held")
		}
	})
}

func TestHoldEndsWithItsClient(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app"))
		s, _ := w.stream()
		sleep(time.Minute)
		w.fake.Before(slowly("resume", time.Second))
		gone := errors.New("gone")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Millisecond, func() { cancel(gone) })
		if _, err := s.Hold(ctx, "frame"); !errors.Is(err, gone) {
			t.Errorf("hold ended with %v", err)
		}
		sleep(time.Minute)
		w.is("paused") // nothing keeps it up
	})
}

// Held streams cause nothing: a thousand of them at concurrency 1 are one environment.
func TestHeldStreamsCauseNoScaleOut(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app", size(1, 10)))
		var streams []fleet.Stream
		for range 1000 {
			s, _ := w.stream()
			streams = append(streams, s)
		}
		w.is("running")
		sleep(time.Minute)
		w.is("paused")
		var all sync.WaitGroup
		for _, s := range streams {
			all.Go(func() {
				release, err := s.Hold(t.Context(), "frame")
				if err != nil {
					t.Error(err)
					return
				}
				bubble.Pass(time.Millisecond)
				release()
			})
		}
		all.Wait()
		w.is("running")
		p := w.acquire("GET /")
		if p.How() != fleet.Warm {
			t.Errorf("beside the streams a request got its place by %s", p.How())
		}
	})
}

// Streams have a capacity of their own: the third of two goes elsewhere, a plain request does not mind.
func TestStreamsPerEnvironment(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app", func(m *lull.Manifest) { m.Streams, m.Scale.Max = 2, 2 }))
		ids := map[string]int{}
		var last fleet.Stream
		for range 4 {
			s, id := w.stream()
			ids[id]++
			last = s
		}
		if diff := cmp.Diff([]int{2, 2}, values(ids)); diff != "" {
			t.Errorf("streams per environment: (-want +got)\n%s", diff)
		}
		got := make(chan fleet.Place)
		go func() {
			p, err := w.Acquire(t.Context(), fleet.Want{Why: "GET /socket", Stream: true})
			if err != nil {
				t.Error(err)
			}
			got <- p
		}()
		sleep(time.Second)
		w.acquire("GET /").Free() // may pass
		last.Close()
		p := <-got
		p.Stream().Close()
		p.Free()
	})
}

func values(m map[string]int) (list []int) {
	for _, v := range m {
		list = append(list, v)
	}
	return list
}

// stream.hold: off keeps the environment up; stream.timeout ends what is quiet.
func TestHoldOff(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app", func(m *lull.Manifest) { m.Stream.Hold, m.Stream.Timeout = "off", lull.Duration(time.Hour) }))
		s, _ := w.stream()
		sleep(time.Hour + 29*time.Second)
		w.is("running")
		if closing(s) {
			t.Error("told to close too early")
		}
		sleep(time.Second)
		if !closing(s) {
			t.Error("not told to close")
		}
		s.Close()
		sleep(2 * time.Second)
		w.is("paused")
	})
}

// A stream taken after the place was given back counts all the same.
func TestStreamAfterFree(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app"))
		p := w.acquire("GET /")
		p.Free()
		s := p.Stream()
		if got := w.Environments()[0]; got.Streams != 1 || got.Exchanges != 0 {
			t.Errorf("status is %+v", got)
		}
		if p.Stream() != s {
			t.Error("asked again, it is another stream")
		}
		s.Close()
	})
}

func TestStopTellsHeldStreams(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app", func(m *lull.Manifest) { m.Idle.Stop = lull.Duration(time.Hour) }))
		s, _ := w.stream()
		sleep(time.Hour + 29*time.Second)
		w.is("paused")
		sleep(time.Second)
		synctest.Wait()
		w.is("")
		if !closing(s) {
			t.Error("not told")
		}
		if _, err := s.Hold(t.Context(), "frame"); lull.KindOf(err) != lull.KindDraining {
			t.Errorf("hold: %v", err)
		}
		s.Close()
	})
}
