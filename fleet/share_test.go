package fleet_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/capacity"
	"github.com/lull-dev/lull/fleet"
	"github.com/lull-dev/lull/sandbox"
)

func (w *world) belonging(environment string) fleet.Place {
	w.t.Helper()
	p, err := w.Acquire(w.t.Context(), fleet.Want{Why: "GET /poll", Environment: environment})
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

// A connection that belongs to an environment gets its place there, whatever state that is in, and another one only if
// that is no more.
func TestAffinity(t *testing.T) {
	_, disk := onDisk(t, 0)
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app", deep, size(2, 3)))
		var places []fleet.Place
		var ids []string
		for range 3 {
			a, b := w.acquire("GET /"), w.acquire("GET /")
			places, ids = append(places, a, b), append(ids, a.Environment())
		}
		w.is("running running running")
		places[4].Free() // there is room in the third alone

		waiting := make(chan fleet.Place)
		go func() { waiting <- w.belonging(ids[0]) }()
		sleep(time.Second)
		if p := w.belonging(ids[2]); p.Environment() != ids[2] {
			t.Errorf("got %s, want %s", p.Environment(), ids[2])
		} else {
			p.Free()
		}
		select {
		case p := <-waiting:
			t.Errorf("got %s while %s was full", p.Environment(), ids[0])
		default:
		}
		places[0].Free()
		first := <-waiting
		if first.Environment() != ids[0] || first.How() != fleet.Queued {
			t.Errorf("got %s by %s", first.Environment(), first.How())
		}
		for _, p := range append(places, first) {
			p.Free()
		}
		sleep(10 * time.Second)
		w.is("hibernated hibernated hibernated")
		for _, id := range ids {
			p := w.belonging(id)
			if p.Environment() != id || p.How() != fleet.Woken {
				t.Errorf("got %s by %s, want %s", p.Environment(), p.How(), id)
			}
			p.Free()
		}
		go func() { waiting <- w.belonging(ids[1]) }()
		p := <-waiting
		p.Free()
		w.fake.Sandbox(ids[1]).Die(sandbox.Exit{Code: 1})
		synctest.Wait()
		if p := w.belonging(ids[1]); p.Environment() == ids[1] {
			t.Error("got a place in a dead one")
		} else {
			p.Free()
		}
		if p := w.belonging("nobody"); p.How() != fleet.Warm {
			t.Errorf("belongs nowhere: by %s", p.How())
		} else {
			p.Free()
		}
	}, disk)
}

// Two apps on a node with room for one and a half.
func TestMemoryPressure(t *testing.T) {
	_, disk := onDisk(t, 0)
	memory := capacity.NewMemory(400 * lull.MB)
	inBubble(t, func(t *testing.T, w *world) {
		lazy := func(m *lull.Manifest) {
			m.Idle.Pause, m.Timeout.Queue = lull.Duration(time.Hour), lull.Duration(30*time.Second)
		}
		w.Use(release(1, "app", lazy))
		other := fleet.New(fleet.Config{App: "shop", Driver: w.fake, Prepare: prepare, Memory: memory})
		defer other.Close(0)
		other.Use(release(1, "app", lazy))
		id := w.warm()
		sleep(time.Minute)
		w.is("running")

		p, err := other.Acquire(t.Context(), fleet.Want{Why: "GET /"})
		if err != nil || p.Waited() > startTime+100*time.Millisecond {
			t.Fatalf("the other app: %v after %v", err, p.Waited())
		}
		w.is("paused")
		if row := w.Environments()[0]; !strings.Contains(row.Reason, "the node needs the memory") {
			t.Errorf("it is paused because %s", row.Reason)
		}

		// The other one is in use, so there is no room to come back.
		_, err = w.Acquire(t.Context(), fleet.Want{Why: "GET /"})
		if lull.KindOf(err) != lull.KindStarting || !strings.Contains(err.Error(), "no memory") {
			t.Errorf("no room: %v", err)
		}
		got := make(chan fleet.Place)
		go func() { got <- w.acquire("GET /") }()
		sleep(time.Second)
		p.Free()
		q := <-got
		if q.Environment() != id || q.How() != fleet.Resumed {
			t.Errorf("got %s by %s", q.Environment(), q.How())
		}
		q.Free()
		if used, total := memory.Used(); used > total {
			t.Errorf("%s of %s are in use", used, total)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := other.Switch(ctx, release(2, "app", func(m *lull.Manifest) { m.Resources.Memory = lull.GB })); err == nil ||
			!strings.Contains(err.Error(), "--memory") {
			t.Errorf("more than there is: %v", err)
		}
	}, disk, func(c *fleet.Config) { c.Memory = memory })
	if used, _ := memory.Used(); used != 0 {
		t.Errorf("%s are in use in the end", used)
	}
}

// quick is a manifest of an app of that size whose connections do not wait for long.
func quick(memory lull.Size) func(*lull.Manifest) {
	return func(m *lull.Manifest) {
		m.Resources.Memory, m.Timeout.Queue = memory, lull.Duration(10*time.Second)
	}
}

// beside returns another app's fleet on the same node, which the caller closes.
func (w *world) beside(memory *capacity.Memory, app string, changes ...func(*lull.Manifest)) *fleet.Fleet {
	f := fleet.New(fleet.Config{App: app, Driver: w.fake, Prepare: prepare, Memory: memory})
	f.Use(release(1, "app", changes...))
	return f
}

// An app that does not fit keeps nobody else from what they need: not those in memory, and, once nobody waits for it any
// more, not those that start.
func TestWhatDoesNotFitBlocksNobody(t *testing.T) {
	_, disk := onDisk(t, 0)
	memory := capacity.NewMemory(400 * lull.MB)
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app", memoryOnly, quick(200*lull.MB), func(m *lull.Manifest) { m.Stream.Tick = 0 }))
		s, _ := w.stream()
		defer s.Close()
		sleep(10 * time.Second)
		w.is("paused") // and it stays in memory, for its stream

		huge := w.beside(memory, "huge", quick(390*lull.MB))
		defer huge.Close(0)
		refused := make(chan error)
		go func() {
			_, err := huge.Acquire(t.Context(), fleet.Want{Why: "GET /"})
			refused <- err
		}()
		sleep(time.Second)
		began := time.Now()
		done, err := s.Hold(t.Context(), "websocket data")
		if err != nil || time.Since(began) > time.Second {
			t.Fatalf("a stream's data after %v: %v", time.Since(began), err)
		}
		done()
		if err := <-refused; lull.KindOf(err) != lull.KindStarting || !strings.Contains(err.Error(), "no memory") {
			t.Errorf("what does not fit: %v", err)
		}
		sleep(time.Second)
		small := w.beside(memory, "small", quick(64*lull.MB))
		defer small.Close(0)
		p, err := small.Acquire(t.Context(), fleet.Want{Why: "GET /"})
		if err != nil {
			t.Fatalf("nobody waits for the other any more: %v", err)
		}
		p.Free()
	}, disk, func(c *fleet.Config) { c.Memory = memory })
}

// A tick for which there is no memory is left out, and nobody waits behind it.
func TestATickDoesNotWaitForMemory(t *testing.T) {
	memory := capacity.NewMemory(400 * lull.MB)
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app", memoryOnly, quick(200*lull.MB)))
		s, _ := w.stream()
		defer s.Close()
		sleep(10 * time.Second)
		w.is("paused")
		busy := w.beside(memory, "busy", quick(250*lull.MB))
		defer busy.Close(0)
		p, err := busy.Acquire(t.Context(), fleet.Want{Why: "GET /"})
		if err != nil {
			t.Fatal(err)
		}
		sleep(time.Minute)
		w.is("paused")
		for _, move := range w.moves() {
			if move.Why == "tick" {
				t.Errorf("it has ticked without memory: %v", w.moves())
			}
		}
		small := w.beside(memory, "small", quick(64*lull.MB))
		q, err := small.Acquire(t.Context(), fleet.Want{Why: "GET /"})
		if err != nil {
			t.Fatal(err)
		}
		q.Free()
		small.Close(0)
		p.Free()
		busy.Close(0)
		sleep(20 * time.Second)
		if moves := w.moves(); moves[len(moves)-2].Why != "tick" {
			t.Errorf("there is memory, and it does not tick: %v", moves)
		}
	}, func(c *fleet.Config) { c.Memory = memory })
}
