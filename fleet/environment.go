package fleet

import (
	"container/list"
	"context"
	"crypto/rand"
	"encoding/base32"
	"fmt"
	"strings"
	"time"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/sandbox"
	"github.com/lull-dev/lull/scale"
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
	nudge      chan struct{} // capacity 1; sent to whenever goal changes, received by the keeper, never closed
	over       chan struct{} // closed by ledger.ended
	gone       chan struct{} // closed by ledger.gone, when nothing is left of it

	// Guarded by Fleet.mu.
	state   lull.State // written by become only
	goal    lull.State // Running, Paused or Stopped
	cause   string     // why that is its goal
	grace   time.Duration
	cancel  context.CancelFunc // ends a start that is no longer wanted
	moves   []Move
	up      chan struct{} // closed while running, open otherwise; made anew by become
	cameUp  time.Time     // when it was ready; zero before
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
}

func newEnvironment(f *Fleet, g *generation, why string, now time.Time) *environment {
	e := &environment{
		id: newID(f.config.App), generation: g, fleet: f, began: now, goal: lull.Running, cause: why, ended: now,
		nudge: make(chan struct{}, 1), over: make(chan struct{}), gone: make(chan struct{}), up: make(chan struct{}),
	}
	e.become(lull.Starting, why, now)
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
	if !from.CanBecome(next) && (from != 0 || next != lull.Starting) {
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
	e.moves = append(e.moves, Move{At: now, State: next, Why: why})
	if len(e.moves) > keptMoves {
		e.moves = append(e.moves[:0:0], e.moves[len(e.moves)-keptMoves:]...)
	}
	switch {
	case next == lull.Running:
		e.ended = now
		close(e.up)
	case from == lull.Running:
		e.up = make(chan struct{})
	}
	books.after(func() {
		config.Log.Debug("environment moved", "environment", e.id, "from", from, "to", next, "why", why)
	})
	return true
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

// idle returns from when nothing keeps the environment up; zero while something does.
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
	select {
	case e.nudge <- struct{}{}:
	default:
	}
}

// rise asks for the environment to be running, which calls off what takes it down.
func (e *environment) rise(why string) { e.aim(lull.Running, why) }

// sink asks for a step down the ladder.
func (e *environment) sink(to lull.State, why string) { e.aim(to, why) }

// leave asks for the environment to be stopped. It gets nothing new from here on.
func (e *environment) leave(why string, grace time.Duration) {
	e.grace = grace
	e.aim(lull.Stopped, why)
	if e.cancel != nil && e.state == lull.Starting {
		e.cancel()
	}
	e.tellAll()
}

// claim returns the step the keeper is to take, 0 if there is none. A pause is begun here: from now on the environment
// counts as paused, and a connection that arrives has it resumed.
func (e *environment) claim(now time.Time) lull.State {
	switch {
	case e.goal == lull.Stopped:
		return lull.Stopped
	case e.state == e.goal:
		return 0
	case e.goal == lull.Running:
		return lull.Running
	case e.exchanges+e.holds > 0: // cannot be: whoever comes in sets the goal to Running
		e.aim(lull.Running, "in use")
		return 0
	}
	e.become(e.goal, e.cause, now)
	return e.goal
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
	e.rise(w.want.Why)
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
		s.tell()
	}
}

// tellAll tells every stream to close.
func (e *environment) tellAll() {
	for oldest := e.lively.Front(); oldest != nil; oldest = e.lively.Front() {
		oldest.Value.(*stream).tell()
	}
}
