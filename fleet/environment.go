package fleet

import (
	"container/list"
	"context"
	"crypto/rand"
	"encoding/base32"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/sandbox"
	"github.com/lull-dev/lull/scale"
	"github.com/lull-dev/lull/snapshot"
)

// keptMoves is how many transitions of an environment are remembered.
const keptMoves = 16

// environment is one sandbox that runs one release, as the ledger knows it. The ledger says where it is wanted (goal);
// its keeper, the goroutine that does what is slow, brings it there (state). A place is given only in state Running, and
// it becomes Paused only while no place and no hold is out; both happen under the lock, so they cannot cross.
type environment struct {
	id         string        // set once
	generation *generation   // set once
	fleet      *Fleet        // set once
	began      time.Time     // set once
	adopted    bool          // set once: its snapshot was found when the node started
	nudge      chan struct{} // capacity 1; sent to whenever goal changes, received by the keeper, never closed
	over       chan struct{} // closed by ledger.ended
	gone       chan struct{} // closed by ledger.gone, when nothing is left of it
	sleep      atomic.Uint32 // which of its sleeps it is in, from 1; 0 while it runs and before it has; written by become only
	direct     atomic.Bool   // it is a function that takes requests itself

	// Guarded by Fleet.mu.
	state   lull.State // written by become only
	goal    lull.State // Running, Paused, Hibernated or Stopped
	cause   string     // why that is its goal
	grace   time.Duration
	cancel  context.CancelFunc // ends a start that is no longer wanted
	callOff context.CancelFunc // ends the waiting for a turn to write, when it is wanted elsewhere; nil while it does not wait
	moves   []Move
	up      chan struct{} // closed while running, open otherwise; made anew by become
	cameUp  time.Time     // when it was ready; zero before
	upSince time.Time     // when it came to run the last time
	arrival How           // what has just brought it up, for those who waited for that; cleared by serve
	box     sandbox.Sandbox
	port    int
	err     error // why it is over

	exchanges int       // places that are out
	holds     int       // moments in which bytes are written to streams, or are about to
	promised  int       // places that are going to become a stream
	open      int       // streams
	lively    list.List // of *stream: those that have not been told to close, the one that moved last at the end
	ended     time.Time // when it was last busy

	beats     int       // moments in which heartbeats are written to streams
	beat      time.Time // when the last of them was over
	unsettled int       // streams that are in the middle of something
	unread    time.Time // when the app was last seen to have input that it has not read; zero: it had none
	sinking   time.Time // when the step down began that its goal asks for
	writing   bool      // its snapshot is being written, or was: nothing may come in before it runs
	tick      tick
	sleeps    uint32        // how many there have been
	whenUp    []func()      // to be done as soon as it runs
	pinned    time.Time     // until then it is not put on disk, because that went wrong
	disk      lull.Size     // of its last snapshot
	memory    lull.Size     // what it held when it was last paused
	short     lull.Size     // the memory it waits for; 0: it does not
	yielding  chan struct{} // closed when it has made room, or could not; nil if it was not asked to
	leaving   uint16        // the close code for streams when it ends
}

// Close codes of WebSockets (RFC 6455, section 7.4.1, and the IANA registry).
const (
	closeGoingAway = 1001 // stopped or replaced, or quiet for too long
	closeInternal  = 1011 // the app has crashed
	closeRestart   = 1012 // the environment could not come back: connect again, and another one will serve
)

func newEnvironment(f *Fleet, g *generation, why string, now time.Time) *environment {
	e := &environment{
		id: newID(f.config.App), generation: g, fleet: f, began: now, goal: lull.Running, cause: why, ended: now,
		nudge: make(chan struct{}, 1), over: make(chan struct{}), gone: make(chan struct{}), up: make(chan struct{}),
		leaving: closeGoingAway,
	}
	e.become(lull.Starting, why, now)
	return e
}

// adoptEnvironment returns an environment that is on disk.
func adoptEnvironment(f *Fleet, g *generation, s snapshot.Snapshot, now time.Time) *environment {
	e := &environment{
		id: s.Environment, generation: g, fleet: f, began: now, adopted: true, goal: lull.Hibernated, ended: s.Idle,
		cameUp: s.Made, port: s.Port, disk: s.Size, memory: s.Memory,
		nudge: make(chan struct{}, 1), over: make(chan struct{}), gone: make(chan struct{}), up: make(chan struct{}),
		leaving: closeGoingAway,
	}
	if e.ended.IsZero() {
		e.ended = now
	}
	e.become(lull.Hibernated, "the node was restarted", now)
	return e
}

// newID returns the app's name and 40 random bits, in the letters of a host name.
func newID(app string) string {
	var random [5]byte
	rand.Read(random[:]) // never fails
	return app + "-" + strings.ToLower(base32.StdEncoding.EncodeToString(random[:]))
}

// become is the only writer of state. A move that is not on the ladder is our mistake: it is logged, not made, and costs
// the environment.
func (e *environment) become(next lull.State, why string, now time.Time) bool {
	config, books := e.fleet.config, &e.fleet.books
	from := e.state
	if !from.CanBecome(next) && (from != 0 || next != lull.Starting && next != lull.Hibernated) {
		books.after(func() {
			config.Log.Error("illegal move of an environment", "environment", e.id, "from", from, "to", next, "why", why)
		})
		e.leave(fmt.Sprintf("illegal move from %s to %s", from, next), 0)
		return false
	}
	if n := len(e.moves); n > 0 {
		config.Metrics.moved(config.App, from, next, now.Sub(e.moves[n-1].At))
	}
	e.state = next
	e.note(Move{At: now, State: next, Why: why})
	switch {
	case next == lull.Running:
		e.sleep.Store(0)
		e.upSince, e.writing = now, false
		if !e.tick.on {
			e.ended = now
		}
		close(e.up)
		e.catchUp()
	case from == lull.Running:
		e.up = make(chan struct{})
		e.tick = tick{last: now}
		e.sleeps++
		e.sleep.Store(e.sleeps)
	}
	books.after(func() {
		config.Log.Debug("environment moved", "environment", e.id, "from", from, "to", next, "why", why)
	})
	return true
}

// note adds a move to those that are remembered. A tick and the pause after it take the place of the tick and the pause
// before them: an environment that ticks for a day would remember nothing else.
func (e *environment) note(m Move) {
	if n := len(e.moves); n >= 3 && e.tick.on && m.State == lull.Running && e.moves[n-2].tick {
		e.moves = e.moves[:n-2]
	}
	m.tick = e.tick.on && m.State == lull.Running
	e.moves = append(e.moves, m)
	if len(e.moves) > keptMoves {
		e.moves = append(e.moves[:0:0], e.moves[len(e.moves)-keptMoves:]...)
	}
}

// catchUp does what has waited for the environment to run: each in a goroutine of its own, because a connection that takes
// nothing must not keep the others waiting, and held up meanwhile.
func (e *environment) catchUp() {
	for _, do := range e.whenUp {
		e.beats++
		e.fleet.books.after(func() {
			go func() { // ends with do, which has a deadline
				do()
				e.fleet.change(func(_ *ledger, now time.Time) { e.beaten(now) })
			}()
		})
	}
	e.whenUp = nil
}

func (e *environment) asleep() bool { return e.state == lull.Paused || e.state == lull.Hibernated }

// used reports whether somebody still has something to do with it.
func (e *environment) used() bool { return e.exchanges > 0 || e.holds > 0 || e.open > 0 }

// lived is how long it has been ready; 0 if it never was.
func (e *environment) lived(now time.Time) time.Duration {
	if e.cameUp.IsZero() {
		return 0
	}
	return now.Sub(e.cameUp)
}

// idle returns from when nothing keeps the environment up; zero while something does. Heartbeats do not: of ten thousand
// clients one is always sending one.
func (e *environment) idle() time.Time {
	a := scale.Activity{Busy: e.exchanges + e.holds, Ended: e.ended, Streams: e.open}
	if newest := e.lively.Back(); newest != nil {
		a.Moved = newest.Value.(*stream).moved
	}
	return a.Idle(e.generation.quiet, e.generation.held)
}

// aim sets the goal and tells the keeper. There is no way back from Stopped.
func (e *environment) aim(goal lull.State, why string) {
	if e.goal == goal || e.goal == lull.Stopped {
		return
	}
	e.goal, e.cause = goal, why
	if e.callOff != nil {
		e.callOff()
	}
	if goal != lull.Running {
		e.tick.on = false
		e.sinking, e.unread = time.Now(), time.Time{}
	}
	e.yielded()
	e.wake()
}

// wake makes the keeper look at what is wanted.
func (e *environment) wake() {
	select {
	case e.nudge <- struct{}{}:
	default:
	}
}

// rise asks for the environment to be running, which calls off what takes it down.
func (e *environment) rise(why string, now time.Time) {
	e.engage(why, now)
	e.aim(lull.Running, why)
}

// sinks reports whether it is to go down the ladder.
func (e *environment) sinks() bool { return e.goal == lull.Paused || e.goal == lull.Hibernated }

// sink asks for a step down the ladder.
func (e *environment) sink(to lull.State, why string) { e.aim(to, why) }

// leave asks for the environment to be stopped. It gets nothing new from here on.
func (e *environment) leave(why string, grace time.Duration) {
	e.grace = grace
	e.aim(lull.Stopped, why)
	if e.cancel != nil && e.state != lull.Running {
		e.cancel()
	}
	e.tellAll()
}

// claim returns the step the keeper is to take, 0 if there is none. A pause is begun here: from now on the environment
// counts as paused, and a connection that arrives has it resumed. Being put on disk counts once it has been done.
func (e *environment) claim(now time.Time) lull.State {
	switch {
	case e.goal == lull.Stopped:
		return lull.Stopped
	case e.state == e.goal:
		return 0
	case e.goal == lull.Running || e.state == lull.Hibernated:
		return lull.Running
	case e.exchanges+e.holds > 0: // cannot be: whoever comes in sets the goal to Running
		e.aim(lull.Running, "in use")
		return 0
	case e.state == lull.Running && e.generation.end == nil && (e.idle().IsZero() || e.idle().After(now)):
		e.aim(lull.Running, "data from the app")
		return 0
	case e.state == lull.Running && (e.beats > 0 || !e.settled(now).IsZero()):
		return 0 // the ledger has it looked at again
	case e.state == lull.Running:
		e.become(lull.Paused, e.cause, now)
		return lull.Paused
	}
	return lull.Hibernated
}

// admit gives w a place. The environment is running and has room.
func (e *environment) admit(w *waiter, now time.Time) *place {
	how := e.arrival
	switch {
	case how != "":
	case w == e.fleet.books.newcomer:
		how = Warm
	default:
		how = Queued
	}
	e.rise(w.want.Why, now)
	e.exchanges++
	if w.want.Stream {
		e.promised++
	}
	return &place{environment: e, how: how, waited: now.Sub(w.asked), busy: true, promised: w.want.Stream}
}

// tell tells the streams without data for that long to close, and returns when the next one will be told; zero if there
// is none.
func (e *environment) tell(now time.Time, patience time.Duration) time.Time {
	for {
		oldest := e.lively.Front()
		if oldest == nil {
			return time.Time{}
		}
		s := oldest.Value.(*stream)
		if at := s.moved.Add(patience); at.After(now) {
			return at
		}
		s.tell(closeGoingAway)
	}
}

// tellAll tells every stream to close.
func (e *environment) tellAll() {
	for oldest := e.lively.Front(); oldest != nil; oldest = e.lively.Front() {
		oldest.Value.(*stream).tell(e.leaving)
	}
}
