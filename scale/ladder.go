package scale

import (
	"slices"
	"time"

	"github.com/lull-dev/lull"
)

// Rules say when an idle environment goes down the ladder. All of them are measured from the moment it became idle.
type Rules struct {
	Pause, Hibernate, Stop time.Duration
	Snapshot               bool // it can be put on disk; without, it stays paused until Stop
	Min                    int  // environments that are kept running
}

// Fall is one step down the ladder.
type Fall struct {
	Index int        // of the environment
	To    lull.State // Paused, Hibernated or Stopped
	Idle  time.Duration
}

// Down returns the steps that are due, and when the next one will be, zero if nothing is on its way down. Of more than
// Min running environments those that were idle longest go first.
func Down(now time.Time, r Rules, envs []Environment) (falls []Fall, next time.Time) {
	running := 0
	var idle []int
	for i, e := range envs {
		if e.Leaving {
			continue
		}
		if e.State == lull.Running {
			running++
		}
		if !e.Idle.IsZero() && !e.Rising {
			idle = append(idle, i)
		}
	}
	slices.SortStableFunc(idle, func(a, b int) int { return envs[a].Idle.Compare(envs[b].Idle) })
	for _, i := range idle {
		if envs[i].State == lull.Running && running <= r.Min {
			continue
		}
		to, at := r.fall(now, envs[i])
		switch {
		case at.IsZero():
		case at.After(now):
			next = Earliest(next, at)
		default:
			falls = append(falls, Fall{i, to, now.Sub(envs[i].Idle)})
			next = Earliest(next, r.after(to, envs[i]))
		}
		if envs[i].State == lull.Running {
			running--
		}
	}
	return falls, next
}

// fall returns the next step of an environment and when it is due; one that is overdue may skip a step.
func (r Rules) fall(now time.Time, e Environment) (to lull.State, at time.Time) {
	pause, hibernate, stop := r.times(e)
	switch {
	case e.State != lull.Running && e.State != lull.Paused && e.State != lull.Hibernated:
		return 0, time.Time{}
	case !stop.After(now):
		return lull.Stopped, stop
	case e.State == lull.Running:
		return lull.Paused, pause
	case e.State == lull.Paused && r.Snapshot && !e.Pinned && hibernate.Before(stop):
		return lull.Hibernated, hibernate
	}
	return lull.Stopped, stop
}

// after returns when the step that follows on to is due.
func (r Rules) after(to lull.State, e Environment) time.Time {
	if to == lull.Stopped {
		return time.Time{}
	}
	e.State = to
	_, at := r.fall(time.Time{}, e)
	return at
}

// times returns when each step of an environment is due: no step before the one above it, so that "stop: 0s" means as
// soon as it would be paused.
func (r Rules) times(e Environment) (pause, hibernate, stop time.Time) {
	down := max(r.Hibernate, r.Pause)
	return e.Idle.Add(r.Pause), e.Idle.Add(down), e.Idle.Add(max(r.Stop, r.Pause))
}

// Earliest returns the earlier of two times; zero stands for never.
func Earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// Activity is what keeps an environment up.
type Activity struct {
	Busy    int       // exchanges in flight, and moments in which bytes are written to a stream
	Ended   time.Time // when it was last busy, or came up
	Streams int       // open
	Moved   time.Time // when data last moved on one of the open streams; zero without streams
}

// Idle returns from when nothing keeps the environment up, zero while something does: no exchange is in flight and
// every stream is quiet. Where quiet streams are not held (stream.hold: off) an open stream keeps it up.
func (a Activity) Idle(quiet time.Duration, held bool) time.Time {
	switch {
	case a.Busy > 0, a.Streams > 0 && !held:
		return time.Time{}
	case a.Moved.IsZero():
		return a.Ended
	}
	if at := a.Moved.Add(quiet); at.After(a.Ended) {
		return at
	}
	return a.Ended
}
