package fleet

import (
	"context"
	"fmt"
	"time"

	"github.com/lull-dev/lull"
)

// Switch replaces the current release by rel without a gap: it starts one environment of rel, waits until that is ready,
// gives it everything that is new, and drains the others, which goes on after Switch has returned. It may be the same
// release as before, or an earlier one. If the environment does not become ready, or ctx ends first, it is removed, the
// old release goes on serving, and the *lull.Error (KindNotReady) says why. Concurrent calls take turns.
func (f *Fleet) Switch(ctx context.Context, rel lull.Release) error {
	select {
	case f.turn <- struct{}{}:
		defer func() { <-f.turn }()
	case <-ctx.Done():
		return errCancelled(rel, context.Cause(ctx))
	}
	candidate, err := f.propose(rel)
	if err != nil {
		return err
	}
	select {
	case <-candidate.up:
	case <-candidate.over:
	case <-ctx.Done():
		f.change(func(*ledger, time.Time) { candidate.leave("the deploy was called off", 0) })
		<-candidate.gone
		return errCancelled(rel, context.Cause(ctx))
	}
	if err := f.install(candidate); err != nil {
		<-candidate.gone
		return err
	}
	f.config.Log.Info("release switched", "release", rel.Number, "environment", candidate.id)
	return nil
}

// propose starts an environment of rel that gets nothing yet.
func (f *Fleet) propose(rel lull.Release) (candidate *environment, err error) {
	f.change(func(b *ledger, now time.Time) {
		if b.closed {
			err = errDraining(f.config.App)
			return
		}
		g := newGeneration(rel, f.snapshots())
		b.others = append(b.others, g)
		candidate = b.begin(g, fmt.Sprintf("release %d was deployed", rel.Number), now)
	})
	return candidate, err
}

// install makes the candidate's release the current one, if the candidate is still up.
func (f *Fleet) install(candidate *environment) (err error) {
	f.change(func(b *ledger, now time.Time) {
		switch {
		case b.closed:
			err = errDraining(f.config.App)
		case candidate.err != nil:
			err = candidate.err
		default:
			b.promote(candidate.generation, now)
		}
	})
	return err
}
