package fleet

import (
	"container/list"
	"time"
)

// queue holds the connections that wait for a place. It is first come first served, with one exception: a connection
// that wants to become a stream needs room among the streams too, and while there is none those behind it that do not
// may pass. A connection takes whichever place frees up first, not the one it triggered, unless it belongs to an
// environment: then it waits in that one's own line, as long as that can serve. It is in the queue exactly
// once, and leaves it in exactly one way: it is answered (with a place, or with an error because the app does not start
// or is going away), or it withdraws (its deadline has come, or its client has gone). Only the first of these counts;
// the loser of the race is told so. Guarded by Fleet.mu.
type queue struct {
	plain   list.List             // of *waiter
	streams list.List             // of *waiter
	own     map[string]*list.List // of *waiter, by environment
	owned   int                   // in own
	joined  uint64
}

// waiter is a connection in the queue.
type waiter struct {
	want   Want
	asked  time.Time
	number uint64        // in the order of coming
	entry  *list.Element // its place in the queue; nil once it has left
	answer chan answer   // capacity 1; sent to once by who takes it from the queue, never closed
}

// answer is how the waiting ended: with a place or an error.
type answer struct {
	place *place
	err   error
}

func newWaiter(want Want, now time.Time) *waiter {
	return &waiter{want: want, asked: now, answer: make(chan answer, 1)}
}

func (q *queue) line(w *waiter) *list.List {
	if id := w.want.Environment; id != "" {
		if q.own[id] == nil {
			if q.own == nil {
				q.own = map[string]*list.List{}
			}
			q.own[id] = list.New()
		}
		return q.own[id]
	}
	if w.want.Stream {
		return &q.streams
	}
	return &q.plain
}

// join puts w at the end.
func (q *queue) join(w *waiter) {
	q.joined++
	w.number = q.joined
	w.entry = q.line(w).PushBack(w)
	if w.want.Environment != "" {
		q.owned++
	}
}

// leave takes w out and reports whether it was still there; if not, w has been answered.
func (q *queue) leave(w *waiter) bool {
	if w.entry == nil {
		return false
	}
	q.line(w).Remove(w.entry)
	w.entry = nil
	if id := w.want.Environment; id != "" {
		q.owned--
		if q.own[id].Len() == 0 {
			delete(q.own, id)
		}
	}
	return true
}

// disown puts the connections that belonged to an environment, which cannot serve any more, among the others, behind
// those that are there.
func (q *queue) disown(id string) {
	line := q.own[id]
	for first := line.Front(); first != nil; first = line.Front() {
		w := first.Value.(*waiter)
		q.leave(w)
		w.want.Environment = ""
		q.join(w)
	}
}

// give answers w, which is in the queue.
func (q *queue) give(w *waiter, a answer) {
	if q.leave(w) {
		w.answer <- a
	}
}

// first returns the connection that is next, nil if nobody waits. Those that want to become a stream are passed over
// where streams is false.
func (q *queue) first(streams bool) *waiter {
	plain, stream := front(&q.plain), front(&q.streams)
	switch {
	case !streams || stream == nil:
		return plain
	case plain == nil || stream.number < plain.number:
		return stream
	}
	return plain
}

func front(l *list.List) *waiter {
	if e := l.Front(); e != nil {
		return e.Value.(*waiter)
	}
	return nil
}

// drain answers everybody with err.
func (q *queue) drain(err error) {
	for w := q.first(true); w != nil; w = q.first(true) {
		q.give(w, answer{err: err})
	}
	for _, line := range q.own {
		for w := front(line); w != nil; w = front(line) {
			q.give(w, answer{err: err})
		}
	}
}

// free returns how many wait for any place.
func (q *queue) free() int { return q.plain.Len() + q.streams.Len() }

func (q *queue) len() int { return q.free() + q.owned }
