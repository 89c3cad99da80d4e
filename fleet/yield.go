package fleet

import (
	"fmt"
	"time"

	"github.com/lull-dev/lull"
)

// A fleet gives memory back when the node has too little of it: the environment that has been idle for the longest goes
// one step down before its time.

// Idlest is part of capacity.Yielder.
func (f *Fleet) Idlest() (since time.Time, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e := f.books.idlest(time.Now()); e != nil {
		return e.idle(), true
	}
	return time.Time{}, false
}

// Yield is part of capacity.Yielder.
func (f *Fleet) Yield() <-chan struct{} {
	var done chan struct{}
	f.change(func(b *ledger, now time.Time) {
		if e := b.idlest(now); e != nil {
			done = e.makeRoom(now)
		}
	})
	if done == nil {
		done = make(chan struct{})
		close(done)
	}
	return done
}

// idlest returns the environment that would make room first, nil if there is none.
func (b *ledger) idlest(now time.Time) (idlest *environment) {
	g := b.current
	if g == nil {
		return nil
	}
	running := 0
	for _, e := range g.environments {
		if e.state == lull.Running && e.goal == lull.Running {
			running++
		}
	}
	for _, e := range g.environments {
		idle := e.idle()
		switch {
		case e.state != e.goal || e.tick.on || e.yielding != nil || idle.IsZero() || idle.After(now):
		case e.state == lull.Running && running <= g.rules.Min:
		case e.state != lull.Running && e.state != lull.Paused:
		case e.state == lull.Paused && !e.canBeOnDisk(now) && e.open > 0: // its clients would notice
		case idlest == nil || idle.Before(idlest.idle()):
			idlest = e
		}
	}
	return idlest
}

// makeRoom sends the environment a step down, and returns a channel that is closed when it is there or is wanted
// elsewhere.
func (e *environment) makeRoom(now time.Time) chan struct{} {
	why := fmt.Sprintf("idle %s, and the node needs the memory", round(now.Sub(e.idle())))
	switch {
	case e.state == lull.Running:
		e.sink(lull.Paused, why)
	case e.canBeOnDisk(now):
		e.sink(lull.Hibernated, why)
	default:
		e.leave(why, stopGrace)
	}
	e.yielding = make(chan struct{})
	return e.yielding
}

// yielded ends the waiting for e to make room.
func (e *environment) yielded() {
	if e.yielding != nil {
		close(e.yielding)
		e.yielding = nil
	}
}
