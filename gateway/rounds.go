package gateway

import (
	"runtime/debug"
	"sync"
	"time"

	"github.com/lull-dev/lull/fleet"
	"github.com/prometheus/client_golang/prometheus"
)

// WebSocket close codes that Lull sends itself.
const (
	closeGoingAway uint16 = 1001 // the environment is being stopped or replaced
	closeRestart   uint16 = 1012 // the node is, or the environment could not come back
)

// attended is a stream that is looked after. Both methods are called in passing and must not wait.
type attended interface {
	// end asks the stream to end.
	end(code uint16)
	// attend is called when the environment has woken up, when it has fallen asleep, be it anew after a moment awake, and at
	// the time that was returned last, while it sleeps. A zero time is never.
	attend(now time.Time, asleep bool) (next time.Time)
}

// rounds looks after all streams: it asks them to end when their environment wants it, and gives those of a sleeping one
// the opportunity to keep their clients company. One goroutine goes round all of them every roundTick: a goroutine or a
// timer for each would cost ten thousand quiet streams 20 MB, a round of all of them takes about a millisecond. The
// goroutine runs while there are streams; it is started by join, ended by the last leave, and wait waits for it.
type rounds struct {
	held prometheus.Gauge // streams of sleeping environments

	mu      sync.Mutex // guards what follows
	members map[attended]*standing
	running bool
	slept   int       // streams that have fallen asleep since memory was last given back
	last    time.Time // when the last of them did
	watch   sync.WaitGroup
}

// standing is how it stands with a member.
type standing struct {
	stream  fleet.Stream
	closing <-chan struct{}
	asked   bool   // to end
	sleep   uint32 // which sleep of its environment it was last attended in; 0: it runs
	due     time.Time
}

const roundTick = 200 * time.Millisecond

func (r *rounds) join(e attended, stream fleet.Stream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.members == nil {
		r.members = map[attended]*standing{}
	}
	r.members[e] = &standing{stream: stream, closing: stream.Closing()}
	if !r.running {
		r.running = true
		r.watch.Go(r.run)
	}
}

func (r *rounds) leave(e attended) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.members[e]; s != nil && s.sleep > 0 {
		r.held.Dec()
	}
	delete(r.members, e)
}

func (r *rounds) run() {
	ticker := time.NewTicker(roundTick)
	defer ticker.Stop()
	var called []call
	for range ticker.C {
		now := time.Now()
		var left bool
		if called, left = r.look(called[:0], now); !left {
			return
		}
		for i := range called {
			c := &called[i]
			if c.code != 0 {
				c.e.end(c.code)
			} else {
				c.next = c.e.attend(now, c.asleep)
			}
		}
		r.note(called)
		clear(called)
		if r.lull(now) {
			debug.FreeOSMemory()
		}
	}
}

// What many streams have needed while they moved is garbage when they sleep, and there may be nothing to make the
// collector run for a long time.
const (
	manyAsleep = 500
	calmTime   = 2 * time.Second
)

// lull reports whether many streams have fallen asleep, and no more do: then memory is given back, once.
func (r *rounds) lull(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.slept < manyAsleep || now.Sub(r.last) < calmTime {
		return false
	}
	r.slept = 0
	return true
}

// call is a member whose turn it is.
type call struct {
	e      attended
	s      *standing
	code   uint16 // to end with; 0 is to be attended
	asleep bool
	next   time.Time
}

// look finds out whose turn it is.
func (r *rounds) look(called []call, now time.Time) ([]call, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for e, s := range r.members {
		if s.asked {
			continue
		}
		select {
		case <-s.closing:
			s.asked = true
			called = append(called, call{e: e, s: s, code: s.stream.CloseCode()})
			continue
		default:
		}
		sleep := s.stream.Sleep()
		if sleep == s.sleep && (s.due.IsZero() || now.Before(s.due)) {
			continue
		}
		asleep := sleep > 0
		if asleep != (s.sleep > 0) {
			r.count(asleep)
			if asleep {
				r.slept++
				r.last = now
			}
		}
		s.sleep = sleep
		called = append(called, call{e: e, s: s, asleep: asleep})
	}
	r.running = len(r.members) > 0
	return called, r.running
}

func (r *rounds) count(asleep bool) {
	if asleep {
		r.held.Inc()
	} else {
		r.held.Dec()
	}
}

func (r *rounds) note(called []call) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range called {
		called[i].s.due = called[i].next
	}
}

func (r *rounds) endAll(code uint16) {
	r.mu.Lock()
	all := make([]attended, 0, len(r.members))
	for e := range r.members {
		all = append(all, e)
	}
	r.mu.Unlock()
	for _, e := range all {
		e.end(code)
	}
}

func (r *rounds) wait() { r.watch.Wait() }
