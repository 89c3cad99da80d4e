package scale

import (
	"cmp"
	"slices"

	"github.com/lull-dev/lull"
)

// Waiting is a queue as a decision knows it.
type Waiting struct {
	Exchanges int // connections in the queue
	Streams   int // those among them that want to become a stream
}

// Step is what it takes to serve a queue.
type Step struct {
	Up    []int // indexes of environments to resume or wake
	Start int   // environments to start cold
}

// Plan says what to bring up for a queue, and to have Limits.Min environments up. It counts what is on its way already,
// resumes before it wakes and wakes before it starts, and never plans for more than Limits.Max environments:
//
//	250 waiting at concurrency 100, nothing there          start 3
//	250 waiting at concurrency 100, one starting, one paused   resume 1, start 1
//	250 waiting at concurrency 100, max 1                    start 1; the queue is served in turn
//
// Environments that sleep with streams held count as what they are: asleep, and empty. Held streams cause nothing.
func Plan(l Limits, envs []Environment, w Waiting) Step {
	var step Step
	present, up := 0, 0
	for _, e := range envs {
		if !e.State.Final() {
			present++
		}
		if !e.Leaving && !e.State.Final() && !e.asleep() {
			up++
			w.take(l.room(e))
		}
	}
	for _, i := range sleepers(envs) {
		if !w.take(l.room(envs[i])) && up >= l.Min {
			continue
		}
		step.Up = append(step.Up, i)
		up++
	}
	for present < l.Max && (w.take(room{l.Concurrency, l.Streams}) || up < l.Min) {
		step.Start++
		present++
		up++
	}
	return step
}

// take puts as much of the queue as fits into r and reports whether anything did. Connections that want to become a
// stream go first: they have less choice.
func (w *Waiting) take(r room) bool {
	streams := min(w.Streams, r.streams, r.exchanges)
	plain := min(w.Exchanges-w.Streams, r.exchanges-streams)
	w.Streams -= streams
	w.Exchanges -= streams + plain
	return streams+plain > 0
}

// sleepers returns the environments that could be brought up, in the order to do so: paused before hibernated, and the
// one that was busy last first, because its memory is warm and the others get to the foot of the ladder.
func sleepers(envs []Environment) []int {
	var list []int
	for i, e := range envs {
		if !e.Leaving && e.asleep() {
			list = append(list, i)
		}
	}
	slices.SortStableFunc(list, func(a, b int) int {
		if envs[a].State != envs[b].State {
			return cmp.Compare(rank(envs[a].State), rank(envs[b].State))
		}
		return envs[b].Idle.Compare(envs[a].Idle)
	})
	return list
}

func rank(s lull.State) int {
	if s == lull.Paused {
		return 0
	}
	return 1
}
