package fleet

import (
	"time"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/scale"
)

// generation is one release's time as the current one, and its environments. It begins as the candidate of a Switch or
// with Use, is the current one for a while, and is then retired: its environments get nothing new, finish what they
// have, and are stopped. Deploying the same release again makes another generation. Guarded by Fleet.mu, except for what
// is set once at the beginning.
type generation struct {
	release lull.Release  // set once
	limits  scale.Limits  // set once
	quiet   time.Duration // set once
	held    bool          // set once: quiet streams do not keep an environment up
	onDisk  bool          // set once: they are held on disk as well
	ticks   time.Duration // set once: how often a paused environment with held streams runs for a moment; 0 is never

	rules        scale.Rules
	lost         int // environments that did not come back from disk, one after the other
	environments []*environment
	view         []scale.Environment // of environments, for decisions; made anew by look
	backoff      scale.Backoff
	failure      *failure // of the last environment that failed
	port         int      // where the last environment that became ready listens; 0 before

	end *end // once retired
}

// end is how a retired generation comes to its end.
type end struct {
	why    string
	by     time.Time     // what is left then is stopped
	moment time.Duration // how long before that the streams that are left are told to close
	grace  time.Duration // for each environment, between SIGTERM and SIGKILL
	keep   bool          // environments are put on disk rather than stopped, where they can be
}

// newGeneration returns the generation of a release. snapshots says whether its environments can be put on disk.
func newGeneration(rel lull.Release, snapshots bool) *generation {
	m := rel.Manifest
	return &generation{
		release: rel,
		limits:  scale.Limits{Concurrency: m.Concurrency, Streams: m.Streams, Min: m.Scale.Min, Max: m.Scale.Max},
		rules: scale.Rules{Pause: m.Idle.Pause.Std(), Hibernate: m.Idle.Hibernate.Std(), Stop: m.Idle.Stop.Std(), Min: m.Scale.Min,
			Snapshot: snapshots},
		quiet:  m.Stream.Quiet.Std(),
		held:   m.Stream.Hold != "off",
		onDisk: m.Stream.Hold == "disk",
		ticks:  m.Stream.Tick.Std(),
	}
}

// look returns the generation's environments as decisions see them, in the same order. It is valid until the next call.
func (g *generation) look(now time.Time) []scale.Environment {
	g.view = g.view[:0]
	for _, e := range g.environments {
		g.view = append(g.view, e.look(now))
	}
	return g.view
}

func (e *environment) look(now time.Time) scale.Environment {
	return scale.Environment{
		State: e.state, Rising: e.asleep() && e.goal == lull.Running || e.tick.on, Leaving: e.goal == lull.Stopped,
		Exchanges: e.exchanges, Streams: e.open + e.promised, Idle: e.idle(), Pinned: !e.canBeOnDisk(now),
	}
}

// canBeOnDisk reports whether the environment may be hibernated.
func (e *environment) canBeOnDisk(now time.Time) bool {
	return e.generation.rules.Snapshot && !now.Before(e.pinned) && (e.open == 0 || e.generation.onDisk)
}

// find returns the environment with this id that can still serve, nil if there is none.
func (g *generation) find(id string) *environment {
	for _, e := range g.environments {
		if e.id == id && e.goal != lull.Stopped && !e.state.Final() {
			return e
		}
	}
	return nil
}

// alive reports whether there is an environment that can serve, now or soon.
func (g *generation) alive() bool {
	for _, e := range g.environments {
		if e.goal != lull.Stopped && !e.state.Final() {
			return true
		}
	}
	return false
}

// short returns the memory that an environment waits for; 0 if none does.
func (g *generation) short() (size lull.Size) {
	for _, e := range g.environments {
		size = max(size, e.short)
	}
	return size
}

// onlyStarting reports whether the generation has environments, and none of them has ever come up.
func (g *generation) onlyStarting() bool {
	for _, e := range g.environments {
		if e.state != lull.Starting {
			return false
		}
	}
	return len(g.environments) > 0
}

func (g *generation) retired() bool { return g.end != nil }

// keeps reports whether what is on disk stays there.
func (g *generation) keeps() bool { return g.end != nil && g.end.keep }

// retire begins the generation's end, or brings it forward.
func (g *generation) retire(end end) {
	if g.end != nil && g.end.by.Before(end.by) {
		end.by = g.end.by
	}
	g.end = &end
}

// drain stops the environments that have nothing left to do, or no more time, and returns when to look again. Streams
// that are quiet are told to close at once, the others when they fall quiet or time runs out.
func (g *generation) drain(now time.Time) (next time.Time) {
	last := g.end.by.Add(-g.end.moment)
	for _, e := range g.environments {
		if e.goal == lull.Stopped || e.state.Final() {
			continue
		}
		if !now.Before(last) {
			e.tellAll()
		}
		next = scale.Earliest(next, e.tell(now, g.quiet))
		if g.end.keep && e.state != lull.Starting && e.exchanges+e.holds == 0 && g.rules.Snapshot && !now.Before(e.pinned) {
			e.sink(lull.Hibernated, g.end.why)
			next = scale.Earliest(next, e.sinkNext(now))
			continue
		}
		if e.state == lull.Starting || !e.used() || !now.Before(g.end.by) {
			e.leave(g.end.why, g.end.grace)
			continue
		}
		next = scale.Earliest(next, g.end.by)
		if now.Before(last) {
			next = scale.Earliest(next, last)
		}
	}
	return next
}
