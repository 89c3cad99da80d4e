package queue

import (
	"cmp"
	"container/heap"
	"time"

	"github.com/lull-dev/lull/store"
)

// line is the events of one app. Queue.mu guards it and its entries.
type line struct {
	entries map[string]*entry // that are not done, by id
	waiting waiting           // those of them that are not being delivered
	busy    int               // those that are
	buried  []store.Event     // by the time they were given up
	removed bool              // the app is gone, and the store has dropped its events: nothing is to be stored of them
}

// entry is an event that is not done.
type entry struct {
	store.Event
	line       *line
	delivering bool
	pause      time.Duration // the last one for want of a place
	place      int           // in line.waiting
}

func newLine() *line { return &line{entries: map[string]*entry{}} }

// add takes up an event that waits.
func (l *line) add(e *entry) {
	e.line = l
	l.entries[e.ID] = e
	heap.Push(&l.waiting, e)
}

// drop forgets an event, which must not be being delivered.
func (l *line) drop(e *entry) {
	delete(l.entries, e.ID)
	heap.Remove(&l.waiting, e.place)
}

// take begins a delivery of the event that is due first.
func (l *line) take() *entry {
	e := heap.Pop(&l.waiting).(*entry)
	e.delivering = true
	l.busy++
	return e
}

// settle ends a delivery; the event waits again unless it is over.
func (l *line) settle(e *entry, over bool) {
	e.delivering = false
	l.busy--
	if over {
		delete(l.entries, e.ID)
	} else {
		heap.Push(&l.waiting, e)
	}
}

// byAcceptance is the order in which a store returns events as well.
func byAcceptance(a, b *store.Event) int {
	return cmp.Or(a.Accepted.Compare(b.Accepted), cmp.Compare(a.ID, b.ID))
}

// waiting is a heap: the event that is due first, and of those due at a time the one that was accepted first, is its top.
type waiting []*entry

func (w waiting) Len() int { return len(w) }

func (w waiting) Less(i, j int) bool {
	return cmp.Or(w[i].Due.Compare(w[j].Due), byAcceptance(&w[i].Event, &w[j].Event)) < 0
}

func (w waiting) Swap(i, j int) {
	w[i], w[j] = w[j], w[i]
	w[i].place, w[j].place = i, j
}

// Push is for package heap.
func (w *waiting) Push(e any) {
	e.(*entry).place = len(*w)
	*w = append(*w, e.(*entry))
}

// Pop is for package heap.
func (w *waiting) Pop() any {
	last := len(*w) - 1
	e := (*w)[last]
	(*w)[last] = nil
	*w = (*w)[:last]
	return e
}
