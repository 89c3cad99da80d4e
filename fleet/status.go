package fleet

import (
	"slices"
	"time"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/sandbox"
)

const (
	keptFailures = 3                // environments that failed are remembered, so that one can see why
	failureAge   = 10 * time.Minute // for so long
)

// Status is an environment as an operator sees it.
type Status struct {
	ID        string
	Release   int
	State     lull.State
	Exchanges int           // in flight
	Streams   int           // open
	Held      int           // open while it is asleep
	Memory    lull.Size     // held at the moment; 0 if not known
	Disk      lull.Size     // of its snapshot; 0 if it is not hibernated
	CPU       time.Duration // used since its start
	Since     time.Time     // when it came into this state
	Reason    string        // why
	Moves     []Move        // the last ones, oldest first
}

// Move is one step of an environment on the ladder.
type Move struct {
	At    time.Time
	State lull.State
	Why   string

	tick bool // it ran for a tick, nothing else
}

// Environments returns the fleet's environments, oldest first, and the last few that failed in the last ten minutes.
func (f *Fleet) Environments() []Status {
	rows, boxes := f.snapshot()
	for i, box := range boxes {
		if box == nil {
			continue
		}
		if usage, err := box.Usage(); err == nil {
			rows[i].Memory, rows[i].CPU = usage.Memory, usage.CPU
		}
	}
	slices.SortStableFunc(rows, func(a, b Status) int { return a.Moves[0].At.Compare(b.Moves[0].At) })
	return rows
}

// snapshot returns the rows without what only the sandboxes know, and the sandboxes: as many, or fewer.
func (f *Fleet) snapshot() (rows []Status, boxes []sandbox.Sandbox) {
	f.mu.Lock()
	defer f.mu.Unlock()
	generations := f.books.others
	if f.books.current != nil {
		generations = append(slices.Clone(generations), f.books.current)
	}
	for _, g := range generations {
		for _, e := range g.environments {
			if !e.state.Final() {
				rows, boxes = append(rows, e.status()), append(boxes, e.box)
			}
		}
	}
	now := time.Now()
	for _, row := range f.books.recent {
		if now.Sub(row.Since) < failureAge {
			rows = append(rows, row)
		}
	}
	return rows, boxes
}

// status is called under mu.
func (e *environment) status() Status {
	last := e.moves[len(e.moves)-1]
	s := Status{ID: e.id, Release: e.generation.release.Number, State: e.state, Exchanges: e.exchanges, Streams: e.open,
		Since: last.At, Reason: last.Why, Moves: slices.Clone(e.moves)}
	if e.asleep() {
		s.Held = e.open
	}
	if e.state == lull.Hibernated {
		s.Disk = e.disk
	}
	return s
}

// keep remembers an environment that has failed.
func (b *ledger) keep(e *environment) {
	row := e.status()
	row.Exchanges, row.Streams = 0, 0 // they are being told
	b.recent = append(b.recent, row)
	if len(b.recent) > keptFailures {
		b.recent = slices.Delete(b.recent, 0, 1)
	}
}
