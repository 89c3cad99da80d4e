package fleet

import (
	"fmt"
	"time"

	"github.com/lull-dev/lull"
)

// tick is the moment a paused environment with held streams runs for now and then, so that its own timers, pings and
// deadlines go on as if it had been slow, not dead. What it sends is delivered; once there is data, or anything else to
// do, it is no tick any more.
type tick struct {
	on   bool      // it was brought up, or is being brought up, for that alone
	last time.Time // when it was last put to sleep; the next tick is counted from there
	now  bool      // a stream has become unsettled since: it is due at once
}

const (
	// tickTime is how long a tick takes at least: enough for timers that are due, and what they set off.
	tickTime = 20 * time.Millisecond
	// settleTime is how long streams that are in the middle of something put sleep off.
	settleTime = 30 * time.Second
)

const tickWhy = "tick"

// tickNext begins or ends a tick if that is due, and returns when the next step is; zero if there is none.
func (e *environment) tickNext(now time.Time) (next time.Time) {
	switch {
	case e.tick.on && e.state == lull.Running && e.goal == lull.Running:
		return e.endTick(now)
	case e.state == lull.Paused && e.open > 0 && e.generation.end == nil && (e.goal == lull.Paused || e.goal == lull.Hibernated && e.tick.now):
		return e.beginTick(now)
	}
	return time.Time{}
}

func (e *environment) beginTick(now time.Time) (next time.Time) {
	if !e.tick.now {
		if e.generation.ticks <= 0 || !e.generation.held {
			return time.Time{}
		}
		if due := e.tick.last.Add(e.generation.ticks); due.After(now) {
			return due
		}
	}
	e.tick.on, e.tick.now = true, false
	e.aim(lull.Running, tickWhy)
	return time.Time{}
}

func (e *environment) endTick(now time.Time) (next time.Time) {
	over := e.upSince.Add(tickTime)
	if settled := e.settled(); settled.After(over) {
		over = settled
	}
	switch {
	case over.After(now):
		return over
	case e.exchanges+e.holds+e.beats > 0: // it is looked at again when they end
		return time.Time{}
	}
	why := "tick over"
	if idle := e.idle(); !idle.IsZero() {
		why = fmt.Sprintf("idle %s", round(now.Sub(idle)))
	}
	e.sink(lull.Paused, why)
	return time.Time{}
}

// engage makes real work of a tick.
func (e *environment) engage(why string, now time.Time) {
	if !e.tick.on {
		return
	}
	e.tick.on = false
	e.cause = why
	if last := &e.moves[len(e.moves)-1]; last.tick {
		last.tick, last.Why = false, why
	}
	e.ended = now
}

// settled returns when streams that are in the middle of something no longer matter; zero if there are none.
func (e *environment) settled() time.Time {
	if e.unsettled == 0 {
		return time.Time{}
	}
	return e.unsettle.Add(settleTime)
}
