package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"
	"time"
)

const (
	// maxFile is when the current file becomes the older one and replaces the one before it: an app keeps between one and
	// two of these, some 40,000 to 80,000 lines.
	maxFile = 4 << 20
	// maxPending bounds what waits for the disk: a second of four environments at their limit (meter.go).
	maxPending = 4 << 20
	// Lines of an app that are in memory: what a person looks at first, and what an error message quotes.
	recentLines = 200
	recentBytes = 64 << 10
	// loadBytes is how far back a new process looks for them.
	loadBytes = 256 << 10
)

// book is the journal of one app: a current and an older file of JSON lines, and the newest lines in memory.
type book struct {
	path string // of the current file; "": nothing is kept
	wake func() // says that there is something to flush

	// files is held while the files are written, moved or opened, and is taken before mu. Nobody who brings output takes it.
	files  sync.Mutex
	loaded bool // recent begins with what the files held when this process began
	torn   bool // the current file does not end with a whole line

	mu      sync.Mutex
	pending []byte         // lines that are not in the file yet
	crowded map[string]int // lines that did not fit in pending, by environment
	lost    int            // lines that could not be written
	recent  *last
	readers map[*reader]struct{}
	meters  map[string]*meter // by environment, while it has a writer
	closed  bool
}

func newBook(path string, wake func()) *book {
	return &book{
		path: path, wake: wake, crowded: map[string]int{},
		recent: &last{lines: recentLines, bytes: recentBytes}, readers: map[*reader]struct{}{}, meters: map[string]*meter{},
	}
}

// note is an entry of the node's own.
func note(env, text string) Entry {
	return Entry{Time: time.Now(), Environment: env, Stream: StreamLull, Text: clean(text)}
}

// add takes an entry. It does not wait: if more comes than is written the entry is dropped and counted.
func (b *book) add(entry Entry) {
	line := encode(entry)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	if len(b.pending)+len(line) > maxPending {
		b.crowded[entry.Environment]++
		return
	}
	b.append(entry, line)
	b.wake()
}

// append is called with mu held.
func (b *book) append(entry Entry, line []byte) {
	b.pending = append(b.pending, line...)
	b.recent.add(entry)
	for r := range b.readers {
		r.push(entry)
	}
}

// encode returns an entry as a line of a file.
func encode(entry Entry) []byte {
	var line bytes.Buffer
	encoder := json.NewEncoder(&line)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(entry) // strings and a time of this century cannot fail
	return line.Bytes()
}

// flush writes what is pending.
func (b *book) flush() error {
	b.noteDropped(time.Now())
	b.files.Lock()
	defer b.files.Unlock()
	b.load()
	lines, lost := b.take()
	if len(lines) == 0 {
		return nil
	}
	err := b.write(lines)
	if err != nil {
		b.torn = true
		b.mu.Lock()
		b.lost += lost + bytes.Count(lines, []byte{'\n'})
		b.mu.Unlock()
	}
	return err
}

// take returns what is pending, with notes at its end if there was more than could be kept.
func (b *book) take() (lines []byte, lost int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var missing []Entry
	for _, env := range slices.Sorted(maps.Keys(b.crowded)) {
		missing = append(missing, note(env, droppedText(b.crowded[env])))
		lost += b.crowded[env]
	}
	if b.lost > 0 {
		missing = append(missing, note("", fmt.Sprintf("… %d lines dropped: the disk is full or cannot be written", b.lost)))
		lost += b.lost
	}
	for _, entry := range missing {
		b.append(entry, encode(entry))
	}
	clear(b.crowded)
	lines, b.pending, b.lost = b.pending, nil, 0
	return lines, lost
}

// write appends to the current file, with a new one if it would grow too large. The file is opened each time: hundreds of
// apps would otherwise keep as many files open. It is called with files held.
func (b *book) write(lines []byte) error {
	if info, err := os.Stat(b.path); err == nil && info.Size()+int64(len(lines)) > maxFile {
		if err := os.Rename(b.path, older(b.path)); err != nil {
			return fmt.Errorf("rotate journal: %w", err)
		}
		b.torn = false
	}
	file, err := os.OpenFile(b.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	if b.torn {
		lines = append([]byte{'\n'}, lines...)
	}
	_, err = file.Write(lines)
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	b.torn = false
	return nil
}

// older is where the file before the current one lies. No app has a name with a dot.
func older(path string) string { return path + ".1" }

// load puts the newest lines of an earlier process before those of this one, once. It comes before the first write of this
// process, so no line is taken twice. It is called with files held.
func (b *book) load() {
	if b.loaded || b.path == "" {
		return
	}
	b.loaded = true
	before := &last{lines: recentLines, bytes: recentBytes}
	view := b.openFiles(loadBytes)
	for entry := range view.entries(nil) {
		before.add(entry)
	}
	before.dropped = before.dropped || view.partial
	b.torn = endsTorn(b.path)
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, entry := range b.recent.list() {
		before.add(entry)
	}
	before.dropped = before.dropped || b.recent.dropped
	b.recent = before
}

// endsTorn reports whether a file does not end with a whole line.
func endsTorn(path string) bool {
	file, err := os.Open(path)
	if err != nil {
		return false
	}
	defer file.Close()
	size, err := file.Seek(0, io.SeekEnd)
	if err != nil || size == 0 {
		return false
	}
	end := make([]byte, 1)
	_, err = file.ReadAt(end, size-1)
	return err == nil && end[0] != '\n'
}

// close ends all readers and takes no more entries.
func (b *book) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for r := range b.readers {
		r.end()
	}
	clear(b.readers)
}

// remove deletes everything that is kept.
func (b *book) remove() error {
	b.close()
	b.files.Lock()
	defer b.files.Unlock()
	b.mu.Lock()
	b.pending, b.recent, b.loaded = nil, &last{}, true
	b.mu.Unlock()
	if b.path == "" {
		return nil
	}
	var errs []error
	for _, path := range []string{b.path, older(b.path)} {
		if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
