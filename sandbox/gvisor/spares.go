package gvisor

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

const (
	spareAfter = time.Second            // how long after a restore a new one is made: the app that is awake comes first
	spareLasts = 10 * time.Minute       // how long one is kept when nothing is on disk any more
	spareWait  = 100 * time.Millisecond // for one that is being made: with more a sandbox of one's own is there first
)

// spares keeps at most one spare. One is made when a sandbox has gone to disk, and when one has come back: never while
// others are being started, as that costs them the time that it saves another.
type spares struct {
	make   func() (*box, error) // set once
	needed func() bool          // set once: something is on disk that may come back any time
	log    *slog.Logger         // set once

	mu      sync.Mutex // guards what follows
	ready   *box
	working chan struct{} // closed when the goroutine that makes or removes one is done; nil if there is none
	timer   *time.Timer   // until one is made, or removed; nil if neither
	making  bool          // it makes one
	awaited bool          // somebody waits for the one that is being made
	starts  int           // under way
	wanted  bool
	closed  bool
}

// want has a spare made, if there is none. One that there is stays for longer.
func (s *spares) want() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wish(0)
}

// busy says that a sandbox is being started, until what it returns is called.
func (s *spares) busy(restored bool) (done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.starts++
	if s.ready == nil {
		s.unplan()
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.starts--
		if restored {
			s.wish(spareAfter)
		} else {
			s.plan(spareAfter)
		}
	}
}

// wish is want, after a while. s.mu is held.
func (s *spares) wish(after time.Duration) {
	if s.ready != nil && s.timer != nil {
		s.timer.Reset(spareLasts)
		return
	}
	s.wanted = true
	s.plan(after)
}

// plan has a spare made after a while, if one is wanted and nothing is against it. s.mu is held.
func (s *spares) plan(after time.Duration) {
	if !s.wanted || s.closed || s.starts > 0 || s.ready != nil || s.working != nil {
		return
	}
	s.unplan()
	s.timer = time.AfterFunc(after, func() { s.work(s.begin) })
}

func (s *spares) unplan() {
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
}

// work calls step, unless another is at it. Others wait for it by way of s.working.
func (s *spares) work(step func()) {
	s.mu.Lock()
	if s.working != nil || s.closed || s.timer == nil {
		s.mu.Unlock()
		return
	}
	done := make(chan struct{})
	s.working, s.timer = done, nil
	s.mu.Unlock()
	step()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.working = nil
	close(done)
	s.plan(0)
}

// begin makes a spare. If it cannot, the next one is tried when a sandbox goes to disk or comes back again.
func (s *spares) begin() {
	s.mu.Lock()
	s.making = true
	s.mu.Unlock()
	b, err := s.make()
	if err != nil {
		s.log.Warn("no spare sandbox", "error", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.making, s.wanted = false, false
	if s.ready = b; b != nil {
		s.timer = time.AfterFunc(spareLasts, func() { s.work(s.expire) })
	}
}

// expire removes a spare that nobody has needed, unless it may be soon.
func (s *spares) expire() {
	if s.needed() && s.prolong() {
		return
	}
	if err := s.remove(); err != nil {
		s.log.Warn("removing a spare sandbox failed", "error", err)
	}
}

// prolong keeps the spare that is ready; it reports false if there is none.
func (s *spares) prolong() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ready == nil || s.closed {
		return false
	}
	s.timer = time.AfterFunc(spareLasts, func() { s.work(s.expire) })
	return true
}

// remove removes the spare that is ready.
func (s *spares) remove() error {
	s.mu.Lock()
	b := s.ready
	s.ready = nil
	s.mu.Unlock()
	if b == nil {
		return nil
	}
	return b.undo.run()
}

// take returns the spare, or nil. For one that is being made a single caller waits, not long.
func (s *spares) take(ctx context.Context) *box {
	ctx, cancel := context.WithTimeout(ctx, spareWait)
	defer cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.making && !s.awaited {
		s.awaited = true
		s.mu.Unlock()
		s.await(ctx)
		s.mu.Lock()
		s.awaited = false
	}
	b := s.ready
	s.ready = nil
	if b != nil {
		s.unplan()
	}
	return b
}

// await waits until nobody is making or removing a spare.
func (s *spares) await(ctx context.Context) {
	for {
		s.mu.Lock()
		working := s.working
		s.mu.Unlock()
		if working == nil {
			return
		}
		select {
		case <-working:
		case <-ctx.Done():
			return
		}
	}
}

// drop removes the spare, also one that is being made. No other is made before want or busy say so.
func (s *spares) drop() error {
	s.mu.Lock()
	s.wanted = false
	s.unplan()
	s.mu.Unlock()
	s.await(context.Background())
	s.mu.Lock()
	s.wanted = false
	s.unplan()
	s.mu.Unlock()
	return s.remove()
}

// close is drop for ever.
func (s *spares) close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	return s.drop()
}
