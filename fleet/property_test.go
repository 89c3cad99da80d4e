package fleet_test

import (
	"context"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/fleet"
	"github.com/lull-dev/lull/internal/bubble"
	"github.com/lull-dev/lull/sandbox"
)

// act is one thing that happens to a fleet, at some time after the one before. Acts overlap.
type act struct {
	wait    time.Duration
	what    string // exchange, stream, crash, switch
	program string // of a switch
	lasts   time.Duration
	patient time.Duration // how long the client waits for its place
	pick    int
}

// play is a random history: acts, and how long the driver takes for its verbs.
type play struct {
	concurrency, most, least, queue int
	acts                            []act
	verbs                           map[string]time.Duration
}

func drawPlay(t *rapid.T) play {
	ms := func(name string, low, high int) time.Duration {
		return time.Duration(rapid.IntRange(low, high).Draw(t, name)) * time.Millisecond
	}
	p := play{
		concurrency: rapid.IntRange(1, 4).Draw(t, "concurrency"), most: rapid.IntRange(1, 4).Draw(t, "max"),
		queue: rapid.IntRange(0, 8).Draw(t, "queue"),
		verbs: map[string]time.Duration{"start": ms("start", 0, 300), "pause": ms("pause", 0, 200), "resume": ms("resume", 0, 200), "stop": ms("stop", 0, 200)},
	}
	p.least = rapid.IntRange(0, p.most).Draw(t, "min")
	for range rapid.IntRange(1, 40).Draw(t, "acts") {
		p.acts = append(p.acts, act{
			// Mostly about as long as it takes to fall asleep, where things cross.
			wait:    rapid.SampledFrom([]time.Duration{0, 0, time.Millisecond, 100 * time.Millisecond, 2 * time.Second, 2100 * time.Millisecond, 12 * time.Second}).Draw(t, "wait"),
			what:    rapid.SampledFrom([]string{"exchange", "exchange", "exchange", "exchange", "stream", "stream", "crash", "switch"}).Draw(t, "what"),
			program: rapid.SampledFrom([]string{"app", "app", "literal", "broken", "silent"}).Draw(t, "program"),
			lasts:   rapid.SampledFrom([]time.Duration{0, time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second}).Draw(t, "lasts"),
			patient: rapid.SampledFrom([]time.Duration{0, 50 * time.Millisecond, time.Hour, time.Hour, time.Hour}).Draw(t, "patient"),
			pick:    rapid.IntRange(0, 3).Draw(t, "pick"),
		})
	}
	return p
}

// stage is where a play is performed. It notes what must not happen.
type stage struct {
	*world
	play   play
	run    sync.WaitGroup
	mu     sync.Mutex
	using  map[string]int // exchanges by environment
	faults []string
	ended  int // how many exchanges and streams have come to an end, of any kind
}

func (s *stage) fault(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, fmt.Sprintf(format, args...))
}

// whatever happens: a place is given only on a running environment, which has room for it and stays up; every connection
// ends once; there are never more than max environments of a release; no byte reaches one that sleeps; and in the end
// there is nothing.
func TestWhateverHappens(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := drawPlay(rt)
		var s *stage
		synctest.Test(t, func(t *testing.T) {
			s = &stage{world: newWorld(t), play: p, using: map[string]int{}}
			s.perform()
		})
		if len(s.faults) > 0 {
			rt.Fatalf("%d faults: %q", len(s.faults), s.faults[:min(5, len(s.faults))])
		}
	})
}

func (s *stage) perform() {
	s.fake.Before(func(_ context.Context, verb string, _ sandbox.Spec) error {
		bubble.Pass(s.play.verbs[verb])
		return nil
	})
	s.Use(s.release(1, "app"))
	connections := 0
	for i, a := range s.play.acts {
		bubble.Pass(a.wait)
		switch a.what {
		case "exchange", "stream":
			connections++
			s.run.Go(func() { s.connection(a) })
		case "crash":
			if boxes := s.fake.Sandboxes(); len(boxes) > 0 {
				boxes[a.pick%len(boxes)].Die(sandbox.Exit{Code: 1})
			}
		case "switch":
			s.run.Go(func() { s.change(i+2, a) })
		}
		s.count()
	}
	s.run.Wait()
	if s.ended != connections {
		s.fault("%d of %d connections came to an end", s.ended, connections)
	}
	s.calm()
	s.Close(time.Second)
	if left := len(s.fake.Sandboxes()); left > 0 {
		s.fault("%d sandboxes are left", left)
	}
	if n := s.fake.Trespasses(); n > 0 {
		s.fault("%d bytes to a paused sandbox", n)
	}
	s.fake.Close()
}

func (s *stage) release(number int, program string) lull.Release {
	return release(number, program, size(s.play.concurrency, s.play.most), func(m *lull.Manifest) {
		m.Scale.Min, m.Queue = s.play.least, s.play.queue
		m.Timeout.Start, m.Timeout.Queue = lull.Duration(5*time.Second), lull.Duration(20*time.Second)
	})
}

// count looks at the fleet from outside.
func (s *stage) count() {
	number := map[int]int{}
	for _, e := range s.Environments() {
		if !e.State.Final() {
			number[e.Release]++
		}
		if number[e.Release] > s.play.most {
			s.fault("%d environments of release %d", number[e.Release], e.Release)
		}
		if e.Exchanges < 0 || e.Streams < 0 || e.Exchanges > s.play.concurrency {
			s.fault("%d exchanges and %d streams on %s", e.Exchanges, e.Streams, e.ID)
		}
		if e.State == lull.Paused && e.Exchanges > 0 {
			s.fault("%s sleeps with %d exchanges", e.ID, e.Exchanges)
		}
	}
}

func (s *stage) change(number int, a act) {
	ctx, cancel := context.WithTimeout(s.t.Context(), 3*time.Second+a.patient)
	defer cancel()
	err := s.Switch(ctx, s.release(number, a.program))
	if good := a.program == "app" || a.program == "literal"; err == nil && !good {
		s.fault("a %s release was taken", a.program)
	}
}

// connection is a client, from asking to having been served or sent away.
func (s *stage) connection(a act) {
	ctx, cancel := context.WithTimeout(s.t.Context(), a.patient)
	defer cancel()
	asked := time.Now()
	p, err := s.Acquire(ctx, fleet.Want{Why: "GET /", Stream: a.what == "stream"})
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.ended++
	}()
	if time.Since(asked) > 20*time.Second {
		s.fault("waited %v", time.Since(asked))
	}
	if err != nil {
		return
	}
	s.use(p.Environment(), 1)
	s.exchange(p)
	bubble.Pass(a.lasts)
	s.exchange(p)
	if a.what == "stream" {
		s.use(p.Environment(), -1)
		s.stream(p, a)
		return
	}
	s.use(p.Environment(), -1)
	p.Free()
	p.Free()
}

func (s *stage) use(id string, change int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.using[id] += change
	if s.using[id] > s.play.concurrency {
		s.faults = append(s.faults, fmt.Sprintf("%d exchanges on %s", s.using[id], id))
	}
}

// exchange makes a request, which must be answered unless the environment ends.
func (s *stage) exchange(p fleet.Place) {
	if s.asleep(p.Environment()) {
		s.fault("a place on %s, which is not running", p.Environment())
	}
	s.request(p)
}

func (s *stage) asleep(id string) bool {
	box := s.fake.Sandbox(id)
	return box != nil && box.Paused()
}

func (s *stage) request(p fleet.Place) {
	conn, err := p.Dial(s.t.Context())
	if err == nil {
		defer conn.Close()
		if _, err = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: chat\r\nConnection: close\r\n\r\n"); err == nil {
			_, err = io.ReadAll(conn)
		}
	}
	if err == nil {
		return
	}
	select {
	case <-p.Done():
	case <-time.After(time.Second):
		s.fault("no answer: %v", err)
	}
}

// stream lets a stream fall quiet, wakes it with a frame, and closes it.
func (s *stage) stream(p fleet.Place, a act) {
	st := p.Stream()
	if a.pick > 0 {
		p.Free()
	}
	defer p.Free()
	defer st.Close()
	for range a.pick {
		select {
		case <-time.After(a.lasts * 8):
		case <-st.Closing():
			return
		}
		release, err := st.Hold(s.t.Context(), "frame")
		if err != nil {
			if lull.KindOf(err) != lull.KindCrashed && lull.KindOf(err) != lull.KindDraining {
				s.fault("hold: %v", err)
			}
			return
		}
		s.exchange(p)
		bubble.Pass(a.lasts)
		s.exchange(p)
		release()
		st.Moved()
	}
}

// calm lets everything fall asleep, and end.
func (s *stage) calm() {
	sleep(time.Minute)
	asleep, up := 0, 0
	for _, e := range s.Environments() {
		switch {
		case e.Exchanges+e.Streams > 0:
			s.fault("%s has %d exchanges and %d streams", e.ID, e.Exchanges, e.Streams)
		case e.State == lull.Paused:
			asleep++
		case e.State == lull.Running:
			up++
		}
	}
	if up > s.play.least {
		s.fault("%d are awake, want %d", up, s.play.least)
	}
	sleep(169 * time.Hour)
	if left := len(s.fake.Sandboxes()); left > s.play.least {
		s.fault("%d environments are left in the end, want %d", left, s.play.least)
	}
}
