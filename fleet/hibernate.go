package fleet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/sandbox"
	"github.com/lull-dev/lull/snapshot"
)

const (
	// writeTime bounds writing a snapshot, wakeTime making a sandbox of one, besides what its size takes at slowDisk.
	writeTime = 30 * time.Second
	wakeTime  = 10 * time.Second
	slowDisk  = 50 * lull.MB // a second
	// checkTime bounds the look at whether a restored app still listens.
	checkTime = 3 * time.Second
	// pinTime is how long an environment that could not be put on disk is left in memory.
	pinTime = 10 * time.Minute
	// settleDown is how long before its snapshot an environment is paused at least, so that what it said last has been
	// read: that may be a ping, whose answer is then waited for as well, as long as settled says.
	settleDown = 20 * time.Millisecond
)

// classWake is the class of a failure to bring an environment back from disk. It is no reason not to start another.
const classWake = "wake"

// errLeft says that the environment stays on disk when its fleet ends.
var errLeft = errors.New("left on disk")

func (f *failure) cause() error {
	if f == nil {
		return nil
	}
	return f.err
}

func (f *Fleet) snapshots() bool {
	return f.config.Snapshots != nil && f.config.Driver.Capabilities().Snapshot
}

// Adopt takes over an environment that was found on disk. It is the caller's to remove if it does not belong to the
// current release, which Adopt reports.
func (f *Fleet) Adopt(s snapshot.Snapshot) (adopted bool) {
	f.change(func(b *ledger, now time.Time) {
		g := b.current
		if b.closed || g == nil || g.release.Number != s.Release || !g.rules.Snapshot {
			return
		}
		e := adoptEnvironment(f, g, s, now)
		if adopted = f.config.Snapshots.Adopt(e.id, f.evict(e)); adopted {
			g.environments = append(g.environments, e)
			f.launch(e)
		}
	})
	return adopted
}

// evict returns what is to be done when the snapshot of e has to go, which an environment that is to wake does not allow.
func (f *Fleet) evict(e *environment) func() bool {
	return func() (may bool) {
		f.change(func(*ledger, time.Time) {
			if may = e.goal != lull.Running; may {
				e.leaving = closeRestart
				e.leave("its snapshot had to make room for others", 0)
			}
		})
		return may
	}
}

// within returns a context for something that takes base, and longer for a large environment.
func (k *keeper) within(base time.Duration, size lull.Size) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), base+time.Duration(float64(size)/float64(slowDisk)*float64(time.Second)))
}

// hibernate puts the paused environment on disk. It goes on being paused, and can be resumed, until the snapshot is
// whole: if it is wanted again by then the snapshot is thrown away.
func (k *keeper) hibernate() *failure {
	config, e := k.fleet.config, k.environment
	done, ok := k.turn()
	if !ok {
		return nil
	}
	defer done()
	began := time.Now()
	if !k.settleDown() {
		return nil
	}
	made := false
	defer func() {
		if !made {
			k.change(func(_ *ledger, e *environment, _ time.Time) { e.writing = false })
		}
	}()
	usage, err := k.box.Usage()
	if err != nil && k.dead(err) {
		return k.watch()
	}
	ctx, cancel := k.within(writeTime, usage.Memory*lull.Size(config.Writes.Most())) // the others write to the same disk
	defer cancel()
	draft, err := config.Snapshots.Begin(e.id, usage.Memory)
	if err != nil {
		k.pin(err)
		return nil
	}
	defer draft.Discard()
	if err = k.box.Snapshot(ctx, draft.Dir()); err == nil {
		made = true
		err = draft.Finish(snapshot.Snapshot{App: config.App, Release: k.release().Number, Memory: usage.Memory, Port: k.port(), Idle: k.idleSince()})
	}
	switch {
	case err != nil && k.dead(err):
		return k.watch()
	case err != nil:
		k.pin(err)
		return nil
	}
	var kept bool
	k.change(func(_ *ledger, e *environment, now time.Time) {
		if kept = e.goal == lull.Hibernated && e.state == lull.Paused; kept {
			e.box = nil
			e.become(lull.Hibernated, e.cause, now)
		}
	})
	if !kept {
		config.Metrics.did(config.App, "hibernate", errCalledOff)
		return nil
	}
	return k.goDown(draft, began)
}

// turn waits for a turn to write, as long as the environment is to go to disk.
func (k *keeper) turn() (done func(), ok bool) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	k.change(func(_ *ledger, e *environment, _ time.Time) {
		if e.callOff = cancel; e.goal != lull.Hibernated {
			cancel()
		}
	})
	done, err := k.fleet.config.Writes.Take(ctx)
	k.change(func(_ *ledger, e *environment, _ time.Time) { e.callOff = nil })
	return done, err == nil
}

// goDown ends the sandbox, which from here on is only on disk.
func (k *keeper) goDown(draft *snapshot.Draft, began time.Time) *failure {
	config := k.fleet.config
	sealed, err := draft.Seal(k.fleet.evict(k.environment))
	config.Metrics.did(config.App, "hibernate", err)
	box := k.box
	k.box = nil
	if err == nil {
		err = box.Vacate()
	}
	if err != nil {
		err = errors.Join(err, box.Close())
		k.closeOutput()
		return k.notWoken("kept on disk", err)
	}
	k.closeOutput()
	k.charge.Shrink(0)
	k.change(func(_ *ledger, e *environment, _ time.Time) {
		e.disk = sealed.Size
		e.yielded()
	})
	config.Metrics.took(config.App, "hibernate", time.Since(began))
	config.Log.Info("environment hibernated", "environment", k.environment.id, "size", sealed.Size, "after", time.Since(began))
	return nil
}

// errCalledOff counts a snapshot that was thrown away because its environment was wanted again.
var errCalledOff = errors.New("called off")

// settleDown waits until the environment has been paused for a moment and its streams are settled, and keeps everything
// out from then on; false if it is wanted elsewhere.
func (k *keeper) settleDown() bool {
	for {
		var left time.Duration
		var still bool
		k.change(func(_ *ledger, e *environment, now time.Time) {
			left = max(e.moves[len(e.moves)-1].At.Add(settleDown).Sub(now), 0)
			if settled := e.settled(now); !settled.IsZero() {
				left = max(left, settled.Sub(now))
			}
			still = e.goal == lull.Hibernated
			e.writing = still && left == 0 && e.beats == 0
			if still && e.beats > 0 {
				left = max(left, digestTime)
			}
		})
		if left == 0 || !still {
			return still
		}
		timer := time.NewTimer(left)
		select {
		case <-timer.C:
		case <-k.environment.nudge: // keep would do no more than look again, as is done here
			timer.Stop()
		}
	}
}

// pin leaves an environment that could not be put on disk in memory.
func (k *keeper) pin(err error) {
	config := k.fleet.config
	config.Metrics.did(config.App, "hibernate", err)
	k.log(slog.LevelWarn, "environment not put on disk", err)
	config.Journal.Note(config.App, k.environment.id, "could not be put on disk and stays in memory: "+err.Error())
	k.change(func(_ *ledger, e *environment, now time.Time) {
		e.pinned = now.Add(pinTime)
		if e.goal == lull.Hibernated {
			e.aim(lull.Paused, "could not be put on disk")
		}
		e.yielded()
	})
}

func (k *keeper) port() (port int) {
	k.change(func(_ *ledger, e *environment, _ time.Time) { port = e.port })
	return port
}

func (k *keeper) idleSince() (since time.Time) {
	k.change(func(_ *ledger, e *environment, _ time.Time) { since = e.idle() })
	return since
}

// wake brings the environment back from disk. If that fails it is over, and whoever waits gets another one.
func (k *keeper) wake() *failure {
	if ok, fail := k.growFor(); !ok {
		return fail
	}
	config, e := k.fleet.config, k.environment
	ctx, cancel := k.cancellable()
	defer cancel()
	done, err := config.Wakes.Take(ctx)
	if err != nil {
		return nil // it is to be stopped
	}
	defer done()
	began := time.Now()
	box, err := k.restore()
	config.Metrics.did(config.App, "wake", err)
	if err != nil {
		return k.notWoken("woken", err)
	}
	k.have(box)
	config.Metrics.took(config.App, "wake", time.Since(began))
	k.change(func(_ *ledger, e *environment, now time.Time) {
		if e.goal != lull.Stopped {
			e.arrival = Woken
			e.generation.lost = 0
			e.become(lull.Running, e.cause, now)
			config.Metrics.woke(config.App, lull.Hibernated, e.cause)
		}
	})
	config.Log.Info("environment woken", "environment", e.id, "after", time.Since(began))
	if err := config.Snapshots.Remove(e.id); err != nil {
		k.log(slog.LevelError, "snapshot not removed", err)
	}
	return nil
}

// restore makes a sandbox of the snapshot and looks whether the app in it still listens.
func (k *keeper) restore() (_ sandbox.Sandbox, err error) {
	config, e := k.fleet.config, k.environment
	var memory lull.Size
	k.change(func(_ *ledger, e *environment, _ time.Time) { memory = e.memory })
	ctx, cancel := k.within(wakeTime, memory)
	defer cancel()
	dir, taken, err := config.Snapshots.Take(e.id)
	if err != nil {
		return nil, err
	}
	spent := make(chan error, 1)
	go func() { spent <- config.Snapshots.Spend(e.id) }() // a few milliseconds, beside the restore
	spec, fail := k.specify(ctx)
	if fail != nil {
		return nil, errors.New(fail.what)
	}
	box, err := config.Driver.Restore(ctx, spec, dir)
	if err != nil {
		return nil, err
	}
	if err := <-spent; err != nil {
		k.log(slog.LevelWarn, "snapshot may serve again if the machine loses power now", err)
	}
	if err := listens(ctx, box, taken.Port); err != nil {
		return nil, errors.Join(err, box.Close())
	}
	return box, nil
}

func listens(ctx context.Context, box sandbox.Sandbox, port int) error {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	open, err := box.Listeners(ctx)
	if err != nil {
		return fmt.Errorf("see what it listens on: %w", err)
	}
	for _, l := range open {
		if int(l.Addr.Port()) == port {
			return nil
		}
	}
	return fmt.Errorf("it no longer listens on port %d", port)
}

// lostMost is how many environments of a release may be lost on disk, one after the other, until it is left in memory.
const lostMost = 3

// notWoken is the end of an environment that is lost on its way to disk or back.
func (k *keeper) notWoken(verb string, err error) *failure {
	k.log(slog.LevelWarn, "environment lost: it could not be "+verb, err)
	return &failure{class: classWake, what: fmt.Sprintf("could not be %s: %s", verb, err), err: err}
}

// discard removes what an environment that is over has on disk, and gives its address up.
func (k *keeper) discard() {
	if !k.fleet.snapshots() {
		return
	}
	if err := k.fleet.config.Snapshots.Remove(k.environment.id); err != nil {
		k.log(slog.LevelError, "snapshot not removed", err)
	}
	k.fleet.config.Driver.Release(k.environment.id)
}

// wanted reports whether the environment is still to run.
func (k *keeper) wanted() (wanted bool) {
	k.change(func(_ *ledger, e *environment, _ time.Time) { wanted = e.goal != lull.Stopped })
	return wanted
}

// cancellable returns a context that ends when the environment is to be stopped.
func (k *keeper) cancellable() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	k.change(func(_ *ledger, e *environment, _ time.Time) {
		e.cancel = cancel
		if e.goal == lull.Stopped {
			cancel()
		}
	})
	return ctx, cancel
}
