package journal

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"os"
	"slices"
)

const (
	// A reader that lags behind more than this misses entries.
	readerLines = 4000
	readerBytes = 1 << 20
	// longestLine of a file: maxLine of control characters takes six bytes for each, and there are the other fields.
	longestLine = 6*maxLine + 4096
)

// Read on the journal's behalf; see Journal.Read.
func (b *book) read(ctx context.Context, q Query, fn func(Entry) error) error {
	entries, live := b.history(q)
	defer b.leave(live)
	for entry := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := fn(entry); err != nil {
			return err
		}
	}
	if live == nil {
		return nil
	}
	return live.follow(ctx, b, fn)
}

// history returns what is kept and asked for, and, if q.Follow, a reader that gets everything from then on: no entry is in
// both, none is in neither. The entries must be ranged over once, and outside of all locks.
func (b *book) history(q Query) (entries iter.Seq[Entry], live *reader) {
	b.files.Lock()
	defer b.files.Unlock()
	b.load()
	b.mu.Lock()
	if q.Follow {
		live = newReader(q.Environment)
		if b.closed {
			live.end()
		} else {
			b.readers[live] = struct{}{}
		}
	}
	recent, enough := b.fromRecent(q)
	pending := slices.Clone(b.pending)
	b.mu.Unlock()
	if enough {
		return slices.Values(recent), live
	}
	view := b.openFiles(math.MaxInt64)
	if q.Last == 0 {
		return filter(view.entries(pending), q.Environment), live
	}
	return newest(filter(view.entries(pending), q.Environment), q.Last), live
}

// fromRecent answers a query from memory, if that is enough. It is called with mu held.
func (b *book) fromRecent(q Query) (entries []Entry, enough bool) {
	if q.Last < 0 || b.path == "" {
		return nil, true
	}
	entries = slices.Collect(filter(slices.Values(b.recent.list()), q.Environment))
	if q.Last > 0 && len(entries) >= q.Last {
		return entries[len(entries)-q.Last:], true
	}
	return entries, !b.recent.dropped
}

func filter(entries iter.Seq[Entry], env string) iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		for entry := range entries {
			if (env == "" || entry.Environment == env) && !yield(entry) {
				return
			}
		}
	}
}

// newest returns the last n entries.
func newest(entries iter.Seq[Entry], n int) iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		kept := &last{lines: n}
		for entry := range entries {
			kept.add(entry)
		}
		slices.Values(kept.list())(yield)
	}
}

// leave ends a reader's subscription.
func (b *book) leave(r *reader) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.readers, r)
}

// view is the two files as they are at one moment: what is written or moved later is not seen.
type view struct {
	parts   []*os.File // each at the place where its part begins
	sizes   []int64    // of the parts
	partial bool       // the view leaves something out
}

// openFiles opens the last so many bytes of what is kept. It is called with files held; entries closes
// what it opens. A file that cannot be opened is as one that is not there.
func (b *book) openFiles(tail int64) *view {
	v := &view{}
	for _, path := range []string{b.path, older(b.path)} {
		if v.partial {
			break
		}
		if file, err := os.Open(path); err == nil {
			tail = v.add(file, tail)
		}
	}
	slices.Reverse(v.parts)
	slices.Reverse(v.sizes)
	return v
}

// add adds the last so many bytes of a file and returns how many are left for the one before it.
func (v *view) add(file *os.File, tail int64) (left int64) {
	size, err := file.Seek(0, io.SeekEnd)
	start := int64(0)
	if size > tail {
		start, v.partial = size-tail, true
	}
	if _, seekErr := file.Seek(start, io.SeekStart); err != nil || seekErr != nil {
		file.Close()
		return tail
	}
	v.parts, v.sizes = append(v.parts, file), append(v.sizes, size-start)
	return tail - (size - start)
}

// entries returns those in the files and then those in pending. Lines that are not entries are left out: the last one of a
// process that was killed may be cut, and so is the first one of a part.
func (v *view) entries(pending []byte) iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		more := true
		for i, file := range v.parts {
			if more {
				more = lines(io.LimitReader(file, v.sizes[i]), yield)
			}
			file.Close()
		}
		if more {
			lines(bytes.NewReader(pending), yield)
		}
	}
}

// lines gives the entries of one file and reports whether more are wanted.
func lines(r io.Reader, yield func(Entry) bool) bool {
	in := bufio.NewReaderSize(r, longestLine)
	for {
		line, err := in.ReadSlice('\n')
		tooLong := errors.Is(err, bufio.ErrBufferFull)
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = in.ReadSlice('\n')
		}
		if err != nil { // the end, or a disk that cannot be read
			return true
		}
		if entry, ok := decode(line); ok && !tooLong && !yield(entry) {
			return false
		}
	}
}

// decode reads a line of a file.
func decode(line []byte) (Entry, bool) {
	var entry Entry
	if err := json.Unmarshal(line, &entry); err != nil || entry.Time.IsZero() {
		return Entry{}, false
	}
	entry.Text = clean(entry.Text)
	return entry, true
}

// reader gets the entries of a book as they come. Everything but ready is guarded by the book's mu.
type reader struct {
	env    string
	ready  chan struct{} // holds one value when there is something to take
	queue  []Entry
	size   int
	missed int // entries that came while the queue was full
	ended  bool
}

func newReader(env string) *reader { return &reader{env: env, ready: make(chan struct{}, 1)} }

func (r *reader) push(entry Entry) {
	switch {
	case r.env != "" && entry.Environment != r.env:
		return
	case len(r.queue) >= readerLines || r.size >= readerBytes:
		r.missed++
	default:
		r.queue = append(r.queue, entry)
		r.size += len(entry.Text)
	}
	r.signal()
}

func (r *reader) end() {
	r.ended = true
	r.signal()
}

func (r *reader) signal() {
	select {
	case r.ready <- struct{}{}:
	default:
	}
}

// follow calls fn for everything the reader gets, until it has ended or ctx is done.
func (r *reader) follow(ctx context.Context, b *book, fn func(Entry) error) error {
	for {
		select {
		case <-r.ready:
		case <-ctx.Done():
			return ctx.Err()
		}
		b.mu.Lock()
		entries, missed, ended := r.queue, r.missed, r.ended
		r.queue, r.size, r.missed = nil, 0, 0
		b.mu.Unlock()
		if missed > 0 {
			entries = append(entries, note("", fmt.Sprintf("… %d lines skipped: they came faster than they were read", missed)))
		}
		for _, entry := range entries {
			if err := fn(entry); err != nil {
				return err
			}
		}
		if ended {
			return nil
		}
	}
}
