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
	held    time.Duration     // age to which they wait while none is delivered; 0: some are
	removed bool              // the app is gone, and the store has dropped its events: nothing is to be stored of them
}

// entry is an event that is not done.
type entry struct {
	store.Event
	line       *line
	delivering bool
	pause      time.Duration // the last one for want of a place
	look       time.Time     // when there is something to do about it, while it waits
	place      int           // in line.waiting
}

func newLine() *line { return &line{entries: map[string]*entry{}} }

// add takes up an event that waits.
func (l *line) add(e *entry) {
	e.line = l
	l.entries[e.ID] = e
	l.wait(e)
}

func (l *line) wait(e *entry) {
	e.look = l.next(e)
	heap.Push(&l.waiting, e)
}

// next returns when there is something to do about an event: when it is due, or while none is delivered, when it is too old.
func (l *line) next(e *entry) time.Time {
	if l.held > 0 {
		return e.Accepted.Add(l.held)
	}
	return e.Due
}

// hold has all events wait until they are of that age; 0: until they are due.
func (l *line) hold(age time.Duration) {
	if l.held == age {
		return
	}
	l.held = age
	for _, e := range l.waiting {
		e.look = l.next(e)
	}
	heap.Init(&l.waiting)
}

// drop forgets an event, which must not be being delivered.
func (l *line) drop(e *entry) {
	delete(l.entries, e.ID)
	heap.Remove(&l.waiting, e.place)
}

// take begins a delivery of the event at the top.
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
		l.wait(e)
	}
}

// byAcceptance is the order in which a store returns events as well.
func byAcceptance(a, b *store.Event) int {
	return cmp.Or(a.Accepted.Compare(b.Accepted), cmp.Compare(a.ID, b.ID))
}

// waiting is a heap: the event to be looked at first, and of those of one time the one that was accepted first, is its top.
type waiting []*entry

func (w waiting) Len() int { return len(w) }

func (w waiting) Less(i, j int) bool {
	return cmp.Or(w[i].look.Compare(w[j].look), byAcceptance(&w[i].Event, &w[j].Event)) < 0
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
