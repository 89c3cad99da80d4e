package fleet

import (
	"fmt"
	"slices"
	"time"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/scale"
)

// ledger is what a fleet knows, and what follows from it. All of it, and the fields of generations, environments, places
// and streams that say so, is guarded by Fleet.mu. Nothing here waits, calls a driver or writes a log: environments'
// goroutines do what is slow, and functions in later run when the lock is free again.
type ledger struct {
	fleet   *Fleet
	current *generation   // gets all new connections; nil before the first release and once closed
	others  []*generation // candidates of a Switch, and those that were replaced and are not gone yet
	queue   queue
	closed  bool
	recent  []Status // environments that failed a short while ago, newest last
	later   []func()

	newcomer *waiter // the connection that is entering: if it gets a place now, it has not waited
}

// enter puts a connection into the queue, where it may be answered at once. deadline is how long it may wait. It is
// refused if more would wait than the manifest allows; a connection whose place is on its way does not count as waiting,
// so that with "queue: 0" an app that sleeps can still be woken.
func (b *ledger) enter(want Want, now time.Time) (w *waiter, deadline time.Duration, err error) {
	g := b.current
	switch {
	case b.closed:
		return nil, 0, errDraining(b.fleet.config.App)
	case g == nil:
		return nil, 0, errNoRelease(b.fleet.config.App)
	}
	w = newWaiter(want, now)
	b.queue.join(w)
	b.newcomer = w
	b.review(now)
	b.newcomer = nil
	if w.entry != nil && b.queue.len() > max(g.release.Manifest.Queue, scale.Coming(g.limits, g.look(now))) {
		b.queue.leave(w)
		return nil, 0, errQueueFull(b.fleet.config.App, b.queue.len())
	}
	return w, g.release.Manifest.Timeout.Queue.Std(), nil
}

// review draws the conclusions of whatever has changed, and returns when to look again even if nothing does.
func (b *ledger) review(now time.Time) (next time.Time) {
	if g := b.current; g != nil {
		b.serve(g, now)
		next = scale.Earliest(b.grow(g, now), b.shrink(g, now))
	}
	for _, g := range b.others {
		if g.retired() {
			next = scale.Earliest(next, g.drain(now))
		}
	}
	return next
}

// serve gives places to those who wait, as long as there are any, and sends them away if the app does not start.
func (b *ledger) serve(g *generation, now time.Time) {
	b.serveOwn(g, now)
	for b.queue.free() > 0 {
		view := g.look(now)
		any, roomy := scale.Pick(g.limits, view, false), scale.Pick(g.limits, view, true)
		w := b.queue.first(roomy >= 0)
		if any < 0 || w == nil {
			break
		}
		if w.want.Stream {
			any = roomy
		}
		b.queue.give(w, answer{place: g.environments[any].admit(w, now)})
	}
	for _, e := range g.environments {
		e.arrival = ""
	}
	if wait := g.backoff.Blocked(now); wait > 0 && b.queue.len() > 0 && !g.alive() {
		b.queue.drain(g.failure.starting(g.release, wait))
	}
}

// serveOwn gives places to those who belong to an environment, and has it brought up for them. If that cannot serve any
// more they wait among the others.
func (b *ledger) serveOwn(g *generation, now time.Time) {
	for id, line := range b.queue.own {
		e := g.find(id)
		if e == nil {
			b.queue.disown(id)
			continue
		}
		for w := front(line); w != nil && scale.Fits(g.limits, e.look(now), w.want.Stream); w = front(line) {
			b.queue.give(w, answer{place: e.admit(w, now)})
		}
		if w := front(line); w != nil && e.asleep() {
			e.rise(w.want.Why, now)
		}
	}
}

// grow brings up what the queue and scale.min need. During a back-off nothing is started; it returns when that ends.
func (b *ledger) grow(g *generation, now time.Time) time.Time {
	waiting := scale.Waiting{Exchanges: b.queue.free(), Streams: b.queue.streams.Len()}
	step := scale.Plan(g.limits, g.look(now), waiting)
	why := fmt.Sprintf("scale.min is %d", g.limits.Min)
	if w := b.queue.first(true); w != nil {
		why = w.want.Why
	}
	for _, i := range step.Up {
		g.environments[i].rise(why, now)
	}
	if step.Start > 0 && g.backoff.Blocked(now) > 0 {
		return g.backoff.Until()
	}
	for range step.Start {
		b.begin(g, why, now)
	}
	return time.Time{}
}

// begin starts an environment.
func (b *ledger) begin(g *generation, why string, now time.Time) *environment {
	e := newEnvironment(b.fleet, g, why, now)
	g.environments = append(g.environments, e)
	b.fleet.launch(e)
	return e
}

// shrink takes environments that are idle down the ladder, and closes streams that were quiet for too long.
func (b *ledger) shrink(g *generation, now time.Time) (next time.Time) {
	falls, next := scale.Down(now, g.rules, g.look(now))
	if !next.After(now) {
		next = time.Time{} // a step that is put off, or under way: when it is done everything is looked at again
	}
	for _, fall := range falls {
		e, why := g.environments[fall.Index], fmt.Sprintf("idle %s", round(fall.Idle))
		if fall.To == lull.Stopped {
			e.leave(why, stopGrace)
			continue
		}
		e.sink(fall.To, why)
	}
	for _, e := range g.environments {
		next = scale.Earliest(scale.Earliest(next, e.tickNext(now)), e.sinkNext(now))
		if e.pinned.After(now) {
			next = scale.Earliest(next, e.pinned)
		}
	}
	if patience := g.release.Manifest.Stream.Timeout.Std(); patience > 0 {
		for _, e := range g.environments {
			next = scale.Earliest(next, e.tell(now, g.quiet+patience))
		}
	}
	return next
}

// promote makes g the current generation and retires the one before.
func (b *ledger) promote(g *generation, now time.Time) {
	b.retire(fmt.Sprintf("release %d replaced it", g.release.Number), now)
	b.others = slices.DeleteFunc(b.others, func(other *generation) bool { return other == g || len(other.environments) == 0 })
	b.current = g
}

// retire retires the current generation, if there is one, and leaves none.
func (b *ledger) retire(why string, now time.Time) {
	old := b.current
	if old == nil {
		return
	}
	b.current, b.others = nil, append(b.others, old)
	drain := b.fleet.config.Drain
	old.retire(end{why: why, by: now.Add(drain), moment: min(closingMoment, drain/2), grace: stopGrace})
}

// close retires everything. With keep, environments of the current release are put on disk where they can be.
func (b *ledger) close(now time.Time, grace time.Duration, keep bool) {
	b.closed = true
	b.queue.drain(errDraining(b.fleet.config.App))
	why, current := "the app is being stopped", b.current
	if keep {
		why = "the node is being stopped"
	}
	if current != nil {
		b.others = append(b.others, current)
		b.current = nil
	}
	for _, g := range b.others {
		g.retire(end{why: why, by: now.Add(grace), moment: grace, grace: min(grace, stopGrace), keep: keep && g == current})
		for _, e := range g.environments {
			e.wake() // one that is on disk already has only to be left there
		}
	}
}

// ended notes how e came to its end. fail is nil if it was stopped and did as it was told. Its sandbox may still be
// there; it takes up one of scale.max until gone.
func (b *ledger) ended(e *environment, fail *failure, now time.Time) {
	g := e.generation
	lived := e.lived(now)
	switch {
	case e.goal == lull.Stopped:
		e.become(lull.Stopped, e.cause, now)
		g.backoff.Settled(lived)
		e.err = errStopped(e.id, e.cause)
		if fail != nil && !e.cameUp.IsZero() {
			e.err = fail.crashed(e.id)
		}
	case e.cameUp.IsZero():
		e.become(lull.Failed, fail.what, now)
		g.failure, e.err = fail, fail.notReady(g.release)
		g.backoff.Failed(now, e.began)
		b.keep(e)
	case fail.class == classWake:
		e.become(lull.Failed, fail.what, now)
		e.err, e.leaving = fail.crashed(e.id), closeRestart
		b.keep(e)
		if g.lost++; g.lost == lostMost {
			g.rules.Snapshot = false
			b.after(func() {
				b.fleet.config.Log.Error("environments of this release do not come back from disk: they are left in memory", "release", g.release.Number)
			})
		}
	default:
		e.leaving = closeInternal
		e.become(lull.Failed, "crashed: "+fail.what, now)
		g.failure, e.err = fail, fail.crashed(e.id)
		g.backoff.Died(now, e.began, lived)
		b.keep(e)
	}
	close(e.over)
	e.yielded()
	e.tellAll()
}

// left notes that e stays on disk when the fleet ends.
func (b *ledger) left(e *environment) {
	e.err = errDraining(b.fleet.config.App)
	e.leaving = closeRestart
	close(e.over)
	e.tellAll()
	b.gone(e)
}

// gone forgets e: nothing is left of it here.
func (b *ledger) gone(e *environment) {
	g := e.generation
	g.environments = slices.DeleteFunc(g.environments, func(other *environment) bool { return other == e })
	if len(g.environments) == 0 {
		b.others = slices.DeleteFunc(b.others, func(other *generation) bool { return other == g })
	}
	close(e.gone)
}

// after leaves something to be done when the lock is free.
func (b *ledger) after(do func()) { b.later = append(b.later, do) }
