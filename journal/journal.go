package journal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lull-dev/lull"
)

// flushEvery is how long a line may be in memory only. A killed node loses that much of its apps' output.
const flushEvery = 250 * time.Millisecond

// Journal keeps the output of the environments of all apps of a node. Its methods may be called concurrently, and none of
// them that takes output waits for the disk.
type Journal struct {
	dir   string
	dirty chan struct{} // holds one value when there is something to write; closed by nobody
	stop  chan struct{} // closed by Close
	done  chan struct{} // closed by runFlush when it has ended

	mu     sync.Mutex
	books  map[string]*book // by app
	closed bool
}

// Open opens the journal in dir, which it makes if it is not there. The caller must Close it.
func Open(dir string) (*Journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	j := &Journal{
		dir: dir, dirty: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}), books: map[string]*book{},
	}
	go j.runFlush() // ended and waited for by Close
	return j, nil
}

// Close writes what is in memory, ends all readers and waits for both. Output that comes later is dropped.
func (j *Journal) Close() error {
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return nil
	}
	j.closed = true
	j.mu.Unlock()
	close(j.stop)
	<-j.done
	var errs []error
	for _, b := range j.all() {
		b.close()
		errs = append(errs, b.flush())
	}
	return errors.Join(errs...)
}

// Writer takes the output of one stream of an environment. It splits it into lines, never waits, and drops lines when
// there are too many. Close ends the last line. A Writer is used by one goroutine at a time.
func (j *Journal) Writer(app, env, stream string) io.WriteCloser {
	b := j.book(app)
	return &writer{book: b, meter: b.openMeter(env), env: env, stream: stream}
}

// Note adds something the node itself has to say about an environment.
func (j *Journal) Note(app, env, text string) {
	b := j.book(app)
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		b.add(note(env, line))
	}
}

// Tail returns the last n lines of an app, oldest first, or of one of its environments.
func (j *Journal) Tail(app, env string, n int) []Entry {
	if n <= 0 {
		return nil
	}
	entries, _ := j.book(app).history(Query{Last: n, Environment: env})
	return slices.Collect(entries)
}

// Query says which entries Read gives.
type Query struct {
	Last        int    // only the last so many of what is kept; 0 is everything, less than 0 nothing
	Environment string // only this environment's; "" is all
	Follow      bool   // and then those to come
}

// Read calls fn for each entry of an app that the query asks for, oldest first. It returns the first error of fn; without
// Follow nil after the last entry; with Follow ctx.Err() when ctx ends, and nil when the app is removed or the journal is
// closed. A reader that is slower than the output misses entries and is told how many.
func (j *Journal) Read(ctx context.Context, app string, q Query, fn func(Entry) error) error {
	return j.book(app).read(ctx, q, fn)
}

// Remove deletes what is kept of an app. Writers that are still open for it write into nothing.
func (j *Journal) Remove(app string) error {
	b := j.book(app)
	j.mu.Lock()
	delete(j.books, app)
	j.mu.Unlock()
	return b.remove()
}

// book returns the book of an app. One that cannot have one, because of its name or because the journal is closed, gets
// one that keeps nothing.
func (j *Journal) book(app string) *book {
	if !lull.ValidName(app) {
		b := newBook("", j.wake)
		b.close()
		return b
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if b, ok := j.books[app]; ok {
		return b
	}
	b := newBook(filepath.Join(j.dir, app+".log"), j.wake)
	if j.closed {
		b.close()
		return b
	}
	j.books[app] = b
	return b
}

func (j *Journal) all() []*book {
	j.mu.Lock()
	defer j.mu.Unlock()
	all := make([]*book, 0, len(j.books))
	for _, b := range j.books {
		all = append(all, b)
	}
	return all
}

// wake tells runFlush that there is something to write.
func (j *Journal) wake() {
	select {
	case j.dirty <- struct{}{}:
	default:
	}
}

// runFlush writes what has come in, a moment after it has. It does nothing while nothing comes in.
func (j *Journal) runFlush() {
	defer close(j.done)
	for {
		select {
		case <-j.dirty:
		case <-j.stop:
			return
		}
		select {
		case <-time.After(flushEvery):
		case <-j.stop:
			return
		}
		for _, b := range j.all() {
			// An error is kept in the book: its lines are lost, which is noted in it as soon as it can be written again.
			_ = b.flush()
		}
	}
}
