// Package scale decides: which environment gets the next exchange, how many environments a queue needs, which of them
// go down the ladder and when, and how long an app that dies is left alone. It has no goroutine, no clock, no lock and
// does no I/O; time is an argument, so that its tests tell timelines.
package scale

import (
	"time"

	"github.com/lull-dev/lull"
)

// Limits bound the environments of one release.
type Limits struct {
	Concurrency int // exchanges in parallel per environment
	Streams     int // open streams per environment
	Min, Max    int // environments
}

// Environment is what a decision knows of an environment.
type Environment struct {
	State     lull.State
	Rising    bool // asleep, and already on its way up
	Leaving   bool // on its way to being stopped: it gets nothing, but takes up one of Limits.Max until it is gone
	Exchanges int
	Streams   int       // open, and promised to exchanges that are about to become one
	Pinned    bool      // it cannot be put on disk for the time being
	Idle      time.Time // from when nothing keeps it up; may lie in the future; zero: busy
}

// room is what fits into an environment besides what it has. Only an exchange that wants to become a stream needs room
// for a stream.
type room struct{ exchanges, streams int }

func (l Limits) room(e Environment) room {
	if e.Leaving || e.State.Final() {
		return room{}
	}
	return room{max(0, l.Concurrency-e.Exchanges), max(0, l.Streams-e.Streams)}
}

// asleep reports whether nobody has begun to bring the environment up.
func (e Environment) asleep() bool {
	return !e.Rising && (e.State == lull.Paused || e.State == lull.Hibernated)
}

// coming reports whether the environment will be running soon.
func (e Environment) coming() bool { return !e.Leaving && (e.Rising || e.State == lull.Starting) }

// Pick returns the index of the running environment that gets the next exchange, -1 if none has room: the fullest one
// with room, so that the others fall asleep; of equally full ones the first.
func Pick(l Limits, envs []Environment, stream bool) int {
	best := -1
	for i, e := range envs {
		if !Fits(l, e, stream) {
			continue
		}
		if best < 0 || e.Exchanges > envs[best].Exchanges {
			best = i
		}
	}
	return best
}

// Fits reports whether a running environment has room for one more exchange, which may want to become a stream.
func Fits(l Limits, e Environment, stream bool) bool {
	r := l.room(e)
	return e.State == lull.Running && r.exchanges > 0 && (!stream || r.streams > 0)
}

// Coming returns how many exchanges fit into the environments that are on their way up.
func Coming(l Limits, envs []Environment) int {
	total := 0
	for _, e := range envs {
		if e.coming() {
			total += l.room(e).exchanges
		}
	}
	return total
}
