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
}

const (
	// tickTime is how long a tick takes at least: enough for timers that are due, and what they set off.
	tickTime = 20 * time.Millisecond
	// settleTime is how long streams that are in the middle of something put a step down off: longer than the answer to a
	// ping takes, and not so long that many clients, one of which is always being pinged, would keep the app up.
	settleTime = time.Second
	// digestTime is how long an app has for a heartbeat that it got, and after how long it is asked again whether it has
	// read everything.
	digestTime = 10 * time.Millisecond
	// unreadTime is how long input that the app has not read puts a step down off.
	unreadTime = 5 * time.Second
)

const tickWhy = "tick"

// tickNext begins or ends a tick if that is due, and returns when the next step is; zero if there is none.
func (e *environment) tickNext(now time.Time) (next time.Time) {
	switch {
	case e.tick.on && e.state == lull.Running && e.goal == lull.Running:
		return e.endTick(now)
	case e.state == lull.Paused && e.open > 0 && e.generation.end == nil && e.goal == lull.Paused:
		return e.beginTick(now)
	}
	return time.Time{}
}

func (e *environment) beginTick(now time.Time) (next time.Time) {
	if e.generation.ticks <= 0 || !e.generation.held {
		return time.Time{}
	}
	if due := e.tick.last.Add(e.generation.ticks); due.After(now) {
		return due
	}
	e.tick.on = true
	e.aim(lull.Running, tickWhy)
	return time.Time{}
}

// skipTick leaves a tick out that was about to begin.
func (e *environment) skipTick(now time.Time) {
	e.aim(lull.Paused, "there was no memory for a tick")
	e.tick.last = now
}

func (e *environment) endTick(now time.Time) (next time.Time) {
	over := e.upSince.Add(tickTime)
	switch {
	case over.After(now):
		return over
	case e.exchanges+e.holds > 0: // it is looked at again when they end
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

// settled returns when to look again whether streams are in the middle of something; zero if they are not, or have been
// waited for.
func (e *environment) settled(now time.Time) time.Time {
	last := e.sinking.Add(settleTime)
	digested := e.beat.Add(digestTime)
	switch {
	case now.Before(e.unread.Add(digestTime)) && now.Before(e.sinking.Add(unreadTime)):
		return e.unread.Add(digestTime) // the keeper then asks again
	case !now.Before(last):
		return time.Time{}
	case e.unsettled > 0 || e.beats > 0:
		return last // or as soon as that changes
	case now.Before(digested):
		return digested
	}
	return time.Time{}
}

// beaten notes that a heartbeat has been written.
func (e *environment) beaten(now time.Time) {
	e.beats--
	e.beat = now
}

// sinkNext has the keeper look again at a step down that was put off, if it is time, and returns when it is.
func (e *environment) sinkNext(now time.Time) (next time.Time) {
	if e.state != lull.Running || !e.sinks() || e.beats > 0 {
		return time.Time{}
	}
	if next = e.settled(now); next.IsZero() {
		e.wake()
	}
	return next
}
