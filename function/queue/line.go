package queue

import (
	"cmp"
	"container/heap"
	"time"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/store"
)

// line is the events of one app. Queue.mu guards it and its entries.
type line struct {
	entries map[string]*entry // that are not done, by id
	size    lull.Size         // of their payloads
	storing load              // events that are on their way into the store
	waiting waiting           // those of them that are not being delivered
	busy    int               // those that are
	buried  []store.Event     // by the time they were given up
	held    time.Duration     // age to which they wait while none is delivered; 0: some are
	removed bool              // the app is gone, and the store has dropped its events: nothing is to be stored of them
}

// load is a number of events.
type load struct {
	events int
	size   lull.Size // of their payloads
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

// admit makes room for an event on its way into the store, for which admitted is called when it has arrived or failed to. It
// reports false if there is none.
func (l *line) admit(size lull.Size) bool {
	if len(l.entries)+l.storing.events >= mostEvents || l.size+l.storing.size+size > mostSize {
		return false
	}
	l.storing.events++
	l.storing.size += size
	return true
}

func (l *line) admitted(size lull.Size) {
	l.storing.events--
	l.storing.size -= size
}

// add takes up an event that waits.
func (l *line) add(e *entry) {
	e.line = l
	l.entries[e.ID] = e
	l.size += e.Size
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
	heap.Remove(&l.waiting, e.place)
	l.forget(e)
}

func (l *line) forget(e *entry) {
	delete(l.entries, e.ID)
	l.size -= e.Size
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
		l.forget(e)
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
