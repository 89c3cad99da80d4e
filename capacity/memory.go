// Package capacity is what a node has to give to its environments, and who gets it first: memory, and turns at what is
// hard on the machine. Both are given in the order of asking.
package capacity

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/lull-dev/lull"
)

// ErrTooLarge is returned for more than there is in all.
var ErrTooLarge = errors.New("more than all environments of this node may use together (--memory)")

// Memory is a budget. An environment that runs is charged what it may use at most, so that what is promised is there;
// one that is paused what it has; one on disk nothing. Whoever does not fit waits, and meanwhile those that have been
// idle for the longest are asked to make room. Who has a charge already and fits goes before those who have none: it is in
// memory, and its clients are waiting.
//
// Its methods may be called concurrently. None calls a Yielder while it holds the lock.
type Memory struct {
	total lull.Size

	mu      sync.Mutex // guards what follows
	used    lull.Size
	waiting list.List // of *request, in the order of coming
	yielder []Yielder
}

// Yielder has environments that may make room.
type Yielder interface {
	// Idlest returns since when the environment that would make room first has been idle; ok is false if there is none.
	Idlest() (since time.Time, ok bool)
	// Yield asks that environment to make room, and returns a channel that is closed when it has, or could not.
	Yield() <-chan struct{}
}

type request struct {
	charge *Charge
	size   lull.Size
	given  chan struct{} // closed when it fits
	first  chan struct{} // closed when nobody is before it: then it is the one that asks for room
}

// NewMemory returns a budget of total; 0 is without a limit.
func NewMemory(total lull.Size) *Memory { return &Memory{total: total} }

// Join makes y one of those that are asked for room, until leave is called.
func (m *Memory) Join(y Yielder) (leave func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.yielder = append(m.yielder, y)
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		for i, other := range m.yielder {
			if other == y {
				m.yielder = append(m.yielder[:i:i], m.yielder[i+1:]...)
				return
			}
		}
	}
}

// Used returns what is charged at the moment, and of how much; 0 is no limit.
func (m *Memory) Used() (used, total lull.Size) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.used, m.total
}

// Charge is one environment's part of the budget. It is used by one goroutine.
type Charge struct {
	memory *Memory
	size   lull.Size // guarded by memory.mu
}

// Charge returns an empty charge.
func (m *Memory) Charge() *Charge { return &Charge{memory: m} }

// Grow waits until the charge can be size in all. It fails with ErrTooLarge at once if that can never be, and with the
// cause of ctx; the charge is then as it was.
func (c *Charge) Grow(ctx context.Context, size lull.Size) error {
	m := c.memory
	m.mu.Lock()
	if m.total > 0 && size > m.total {
		m.mu.Unlock()
		return fmt.Errorf("%s is %w: %s", size, ErrTooLarge, m.total)
	}
	if m.give(c, size) {
		m.mu.Unlock()
		return nil
	}
	r := &request{charge: c, size: size, given: make(chan struct{}), first: make(chan struct{})}
	place := m.waiting.PushBack(r)
	m.callFirst()
	m.mu.Unlock()
	if m.await(ctx, r) {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-r.given: // at the last moment
		return nil
	default:
	}
	m.waiting.Remove(place)
	m.serve()
	return fmt.Errorf("wait for %s of memory, of which %s of %s are in use: %w", size, m.used, m.total, context.Cause(ctx))
}

// TryGrow is Grow for what is not worth waiting for: it reports false, and changes nothing, if it does not fit now.
func (c *Charge) TryGrow(size lull.Size) bool {
	c.memory.mu.Lock()
	defer c.memory.mu.Unlock()
	return c.memory.give(c, size)
}

// await waits for r to be given, and asks for room once it is the first; false if ctx ends before.
func (m *Memory) await(ctx context.Context, r *request) bool {
	select {
	case <-r.given:
		return true
	case <-ctx.Done():
		return false
	case <-r.first:
	}
	for {
		made := m.ask()
		timer := time.NewTimer(lookAgain) // everybody may be busy at the moment
		select {
		case <-r.given:
			timer.Stop()
			return true
		case <-ctx.Done():
			timer.Stop()
			return false
		case <-made:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// lookAgain is also how long one environment may take to make room before the next is asked as well.
const lookAgain = 250 * time.Millisecond

// ask asks the one that has been idle for the longest, and returns a channel that is closed when it has made room; nil if
// nobody can.
func (m *Memory) ask() <-chan struct{} {
	m.mu.Lock()
	yielders := slices.Clone(m.yielder)
	m.mu.Unlock()
	var idlest Yielder
	var longest time.Time
	for _, y := range yielders {
		if since, ok := y.Idlest(); ok && (idlest == nil || since.Before(longest)) {
			idlest, longest = y, since
		}
	}
	if idlest == nil {
		return nil
	}
	return idlest.Yield()
}

// Shrink lowers the charge to size; 0 gives all back. A larger size than the charge has is taken without asking: it is
// in use already.
func (c *Charge) Shrink(size lull.Size) {
	c.memory.mu.Lock()
	defer c.memory.mu.Unlock()
	c.memory.set(c, size)
}

// The rest is called under mu.

func (m *Memory) fits(more lull.Size) bool { return m.total <= 0 || m.used+more <= m.total }

func (m *Memory) set(c *Charge, size lull.Size) {
	m.used += size - c.size
	c.size = size
	m.serve()
}

// give makes the charge as large as that if it fits and nobody goes before it.
func (m *Memory) give(c *Charge, size lull.Size) bool {
	if size > c.size && (m.waiting.Len() > 0 && c.size == 0 || !m.fits(size-c.size)) {
		return false
	}
	m.set(c, size)
	return true
}

// serve gives to those who wait, in their order. One that does not fit is only passed by those that have a charge.
func (m *Memory) serve() {
	passing := false
	var next *list.Element
	for each := m.waiting.Front(); each != nil; each = next {
		next = each.Next()
		r := each.Value.(*request)
		if passing && r.charge.size == 0 || !m.fits(r.size-r.charge.size) {
			passing = true
			continue
		}
		m.waiting.Remove(each)
		m.used += r.size - r.charge.size
		r.charge.size = r.size
		close(r.given)
	}
	m.callFirst()
}

func (m *Memory) callFirst() {
	front := m.waiting.Front()
	if front == nil {
		return
	}
	first := front.Value.(*request).first
	select {
	case <-first:
	default:
		close(first)
	}
}
