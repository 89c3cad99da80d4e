package fleet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/capacity"
	"github.com/lull-dev/lull/sandbox"
)

const (
	// prepareTime bounds putting a release's files in place and starting its process.
	prepareTime = 2 * time.Minute
	// verbTime bounds a pause or a resume, which take milliseconds.
	verbTime = 10 * time.Second
	// waitLonger is how much longer than a connection an environment waits for memory: the connection is to be told what it
	// has waited for.
	waitLonger = 5 * time.Second
	// noteEvery is how often at most it is noted that an environment is at one of its limits.
	noteEvery = time.Minute
)

// keeper does everything slow to one environment, one thing after the other: it starts it, takes it where the ledger
// wants it, notices its death, and clears it away. Ledger.begin starts its goroutine through Fleet.launch, which ends
// when nothing is left of the environment; Fleet.Close waits for it.
type keeper struct {
	fleet       *Fleet
	environment *environment
	box         sandbox.Sandbox // nil before its process runs
	stdout      io.WriteCloser
	stderr      io.WriteCloser
	charge      *capacity.Charge
}

func (k *keeper) run() {
	k.charge = k.fleet.config.Memory.Charge()
	defer k.charge.Shrink(0)
	var fail *failure
	if !k.environment.adopted {
		if fail = k.start(); fail == nil {
			k.fleet.config.Metrics.did(k.fleet.config.App, "start", nil)
			k.fleet.config.Metrics.took(k.fleet.config.App, "start", time.Since(k.environment.began))
		}
	}
	if fail == nil {
		fail = k.keep()
	}
	if errors.Is(fail.cause(), errLeft) {
		return
	}
	k.clear(fail)
}

// change reports to the ledger, or asks it.
func (k *keeper) change(act func(b *ledger, e *environment, now time.Time)) {
	k.fleet.change(func(b *ledger, now time.Time) { act(b, k.environment, now) })
}

func (k *keeper) release() lull.Release { return k.environment.generation.release }

// start brings the environment from nothing to ready.
func (k *keeper) start() *failure {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	k.change(func(_ *ledger, e *environment, _ time.Time) {
		e.cancel = cancel
		if e.goal == lull.Stopped {
			cancel()
		}
	})
	spec, fail := k.boot(ctx)
	if fail != nil {
		return fail
	}
	began := time.Now()
	port, fail := k.ready(ctx, spec)
	if fail != nil {
		return fail
	}
	why := fmt.Sprintf("ready after %s", round(time.Since(k.environment.began)))
	k.change(func(_ *ledger, e *environment, now time.Time) {
		if e.goal == lull.Stopped {
			return
		}
		e.port, e.generation.port, e.cameUp, e.arrival = port, port, now, Started
		e.become(lull.Running, why, now)
	})
	k.fleet.config.Log.Info("environment ready", "environment", k.environment.id, "release", k.release().Number,
		"port", port, "after", time.Since(k.environment.began), "app", time.Since(began))
	return nil
}

// boot starts the sandbox.
func (k *keeper) boot(ctx context.Context) (sandbox.Spec, *failure) {
	if err := k.grow(ctx); err != nil {
		k.change(func(_ *ledger, e *environment, _ time.Time) { // nobody waits for it any more, or others have to be asked
			if errors.Is(err, context.DeadlineExceeded) {
				e.leave("there was no memory for it", 0)
			}
		})
		return sandbox.Spec{}, broken("given memory", err)
	}
	ctx, cancel := context.WithTimeout(ctx, prepareTime)
	defer cancel()
	spec, fail := k.specify(ctx)
	if fail != nil {
		return spec, fail
	}
	box, err := k.fleet.config.Driver.Start(ctx, spec)
	if err != nil {
		return spec, broken("started", err)
	}
	k.have(box)
	return spec, nil
}

func (k *keeper) have(box sandbox.Sandbox) {
	k.box = box
	k.change(func(_ *ledger, e *environment, _ time.Time) { e.box = box })
}

// most is the memory that the environment may use.
func (k *keeper) most() lull.Size {
	return k.release().Manifest.Resources.Memory + k.fleet.config.Overhead
}

// grow waits until the node has the memory that the environment may use, as long as a connection waits for it: what nobody
// wants any more must not keep others from theirs.
func (k *keeper) grow(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, k.release().Manifest.Timeout.Queue.Std()+waitLonger)
	defer cancel()
	most := k.most()
	k.change(func(_ *ledger, e *environment, _ time.Time) { e.short = most })
	err := k.charge.Grow(ctx, most)
	k.change(func(_ *ledger, e *environment, _ time.Time) { e.short = 0 })
	return err
}

// growFor waits until there is memory for the environment to come up; ok is false if it does not come up now: it is to be
// stopped, or nobody has waited for it that long. A tick does not wait.
func (k *keeper) growFor() (ok bool, fail *failure) {
	ctx, cancel := k.cancellable()
	defer cancel()
	if k.skipsTick() {
		return false, nil
	}
	for {
		err := k.grow(ctx)
		switch {
		case err == nil:
			return k.wanted(), nil
		case ctx.Err() != nil:
			return false, nil
		case !errors.Is(err, context.DeadlineExceeded):
			return false, broken("given memory", err)
		}
		var held bool
		k.change(func(_ *ledger, e *environment, _ time.Time) {
			if held = e.holds > 0; !held {
				e.aim(e.state, "there was no memory for it")
			}
		})
		if !held {
			return false, nil
		}
	}
}

// skipsTick leaves a tick out for which there is no memory at the moment.
func (k *keeper) skipsTick() (skipped bool) {
	var ticks bool
	k.change(func(_ *ledger, e *environment, _ time.Time) { ticks = e.tick.on })
	if !ticks || k.charge.TryGrow(k.most()) {
		return false
	}
	k.change(func(_ *ledger, e *environment, now time.Time) {
		if skipped = e.tick.on; skipped { // else it has become more than a tick
			e.skipTick(now)
		}
	})
	return skipped
}

// specify says what the sandbox is made of. Its output goes to the journal.
func (k *keeper) specify(ctx context.Context) (sandbox.Spec, *failure) {
	config, e := k.fleet.config, k.environment
	spec, err := config.Prepare(ctx, k.release())
	if err != nil {
		return spec, broken("prepared", err)
	}
	k.stdout, k.stderr = config.Journal.Writer(config.App, e.id, "stdout"), config.Journal.Writer(config.App, e.id, "stderr")
	spec.ID, spec.Stdout, spec.Stderr = e.id, k.stdout, k.stderr
	noted := map[sandbox.Limit]time.Time{}
	spec.Limited = func(limit sandbox.Limit) {
		if time.Since(noted[limit]) < noteEvery {
			return
		}
		noted[limit] = time.Now()
		config.Journal.Note(config.App, e.id, "environment has reached "+limit.Describe(spec.Limits)+" and was refused more")
		config.Log.Warn("environment at its limit", "environment", e.id, "limit", limit)
	}
	if !config.Driver.Capabilities().Ports {
		if spec.Env, err = ownPort(spec.Env); err != nil {
			return spec, broken("given a port", err)
		}
	}
	return spec, nil
}

func (k *keeper) closeOutput() {
	for _, output := range []io.WriteCloser{k.stdout, k.stderr} {
		if output != nil {
			output.Close()
		}
	}
	k.stdout, k.stderr = nil, nil
}

// keep takes the environment where it is wanted until it is to be stopped (nil) or dies.
func (k *keeper) keep() *failure {
	for {
		k.digested()
		var step lull.State
		var left bool
		k.change(func(b *ledger, e *environment, now time.Time) {
			if step = e.claim(now); step == 0 && e.state == lull.Hibernated && e.generation.keeps() {
				left = true
				b.left(e)
			}
		})
		var fail *failure
		switch {
		case left:
			return &failure{err: errLeft}
		case step == lull.Stopped:
			return nil
		case step == lull.Paused:
			fail = k.pause()
		case step == lull.Hibernated:
			fail = k.hibernate()
		case step == lull.Running && k.box == nil:
			fail = k.wake()
		case step == lull.Running:
			fail = k.resume()
		default:
			fail = k.watch()
		}
		if fail != nil {
			return fail
		}
	}
}

// digested finds out whether the app has read what its streams have brought, if that matters: asleep with a message in
// its hands it would not answer before the next one came.
func (k *keeper) digested() {
	var matters bool
	k.change(func(_ *ledger, e *environment, now time.Time) {
		matters = e.open > 0 && e.state == lull.Running && e.sinks() && now.Before(e.sinking.Add(unreadTime))
	})
	if !matters {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), verbTime)
	defer cancel()
	unread, err := k.box.Unread(ctx)
	k.change(func(_ *ledger, e *environment, now time.Time) {
		e.unread = time.Time{}
		if err == nil && unread > 0 {
			e.unread = now
		}
	})
}

// watch waits until the environment is wanted elsewhere or dies.
func (k *keeper) watch() *failure {
	if k.box == nil { // on disk, where nothing happens
		<-k.environment.nudge
		return nil
	}
	select {
	case <-k.box.Done():
		return crash(k.box.Exit(), k.release().Manifest.Resources)
	default:
	}
	select {
	case <-k.environment.nudge:
		return nil
	case <-k.box.Done():
		return crash(k.box.Exit(), k.release().Manifest.Resources)
	}
}

func exited(box sandbox.Sandbox) bool {
	select {
	case <-box.Done():
		return true
	default:
		return false
	}
}

// pause stops the environment where it stands. One that cannot be paused goes on running.
func (k *keeper) pause() *failure {
	ctx, cancel := context.WithTimeout(context.Background(), verbTime)
	defer cancel()
	err := k.box.Pause(ctx)
	k.fleet.config.Metrics.did(k.fleet.config.App, "pause", err)
	switch {
	case err == nil:
		if usage, err := k.box.Usage(); err == nil {
			k.charge.Shrink(usage.Memory)
			k.change(func(_ *ledger, e *environment, _ time.Time) { e.memory = usage.Memory })
		}
		k.change(func(_ *ledger, e *environment, _ time.Time) { e.yielded() })
		return nil
	case k.dead(err):
		return k.watch()
	}
	k.log(slog.LevelWarn, "environment not paused", err)
	k.change(func(_ *ledger, e *environment, now time.Time) { e.rise("could not be paused", now) })
	return nil
}

func (k *keeper) resume() *failure {
	if ok, fail := k.growFor(); !ok {
		return fail
	}
	ctx, cancel := context.WithTimeout(context.Background(), verbTime)
	defer cancel()
	began := time.Now()
	err := k.box.Resume(ctx)
	k.fleet.config.Metrics.did(k.fleet.config.App, "resume", err)
	switch {
	case err != nil && k.dead(err):
		return k.watch()
	case err != nil:
		return broken("resumed", err)
	}
	k.fleet.config.Metrics.took(k.fleet.config.App, "resume", time.Since(began))
	k.change(func(_ *ledger, e *environment, now time.Time) {
		if e.goal != lull.Stopped {
			e.arrival = Resumed
			e.become(lull.Running, e.cause, now)
			k.fleet.config.Metrics.woke(k.fleet.config.App, lull.Paused, e.cause)
		}
	})
	return nil
}

// dead reports whether a verb went wrong because the process has ended. It waits for the sandbox to say how.
func (k *keeper) dead(err error) bool {
	if !errors.Is(err, sandbox.ErrExited) {
		return exited(k.box)
	}
	select {
	case <-k.box.Done():
		return true
	case <-time.After(verbTime):
		return false
	}
}

// clear ends what is left of the environment and reports how it went.
func (k *keeper) clear(fail *failure) {
	config, e := k.fleet.config, k.environment
	var grace time.Duration
	k.change(func(_ *ledger, e *environment, _ time.Time) { grace = e.grace })
	if fail != nil {
		grace = 0
	}
	if k.box != nil && !exited(k.box) { // what a dead process left behind is ended by Close
		k.box.Stop(grace)
	}
	k.closeOutput()
	if fail != nil {
		fail.lines = config.Journal.Tail(config.App, e.id, tailLines)
	}
	var state lull.State
	var ready bool
	k.change(func(b *ledger, e *environment, now time.Time) {
		fail.befall(e)
		b.ended(e, fail, now)
		state, ready = e.state, !e.cameUp.IsZero()
	})
	if state == lull.Failed {
		k.lament(fail, ready)
	}
	if k.box != nil {
		if err := k.box.Close(); err != nil {
			k.log(slog.LevelError, "environment not cleared away", err)
		}
	}
	k.discard()
	k.change(func(b *ledger, e *environment, _ time.Time) { b.gone(e) })
}

// lament tells the operator and the app's owner about an environment that nobody asked to end.
func (k *keeper) lament(fail *failure, ready bool) {
	config, e := k.fleet.config, k.environment
	if !ready {
		config.Metrics.did(config.App, "start", errors.New(fail.what))
	}
	config.Metrics.failed(config.App, fail.class)
	config.Log.Warn("environment failed", "environment", e.id, "release", k.release().Number, "why", fail.what)
	config.Journal.Note(config.App, e.id, "environment "+fail.what)
}

func (k *keeper) log(level slog.Level, message string, err error) {
	k.fleet.config.Log.Log(context.Background(), level, message, "environment", k.environment.id, "error", err)
}
