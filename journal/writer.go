package journal

import (
	"bytes"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// maxLine bounds the text of one entry; what a line has more is cut off.
const maxLine = 16 << 10

// writer makes entries of the bytes of one stream of an environment.
type writer struct {
	book   *book
	meter  *meter
	env    string
	stream string
	line   []byte // the line that has not ended yet, its first maxLine bytes
	cut    int    // how many bytes it has more
	closed bool
}

// Write takes everything and never fails: an app must not notice what becomes of its output.
func (w *writer) Write(p []byte) (int, error) {
	rest := p
	for {
		line, after, found := bytes.Cut(rest, []byte{'\n'})
		w.hold(line)
		if !found {
			return len(p), nil
		}
		w.end()
		rest = after
	}
}

// Close makes an entry of what came after the last line end.
func (w *writer) Close() error {
	if w.closed {
		return nil
	}
	w.closed = true
	if len(w.line) > 0 {
		w.end()
	}
	w.book.closeMeter(w.env)
	return nil
}

func (w *writer) hold(part []byte) {
	if room := maxLine - len(w.line); len(part) > room {
		w.cut += len(part) - room
		part = part[:room]
	}
	w.line = append(w.line, part...)
}

func (w *writer) end() {
	size := len(w.line)
	text := lineText(w.line, w.cut)
	w.line, w.cut = w.line[:0], 0
	now := time.Now()
	ok, dropped := w.book.allow(w.meter, now, size)
	if dropped > 0 {
		w.book.add(note(w.env, droppedText(dropped)))
	}
	if ok {
		w.book.add(Entry{Time: now, Environment: w.env, Stream: w.stream, Text: text})
	}
}

// lineText is the text of a line of which so many bytes were cut off.
func lineText(line []byte, cut int) string {
	if cut == 0 {
		return clean(string(bytes.TrimSuffix(line, []byte{'\r'})))
	}
	for len(line) > 0 && !utf8.FullRune(line[lastRune(line):]) { // a character was cut in two
		cut++
		line = line[:len(line)-1]
	}
	return fmt.Sprintf("%s … (%d bytes more)", clean(string(line)), cut)
}

// lastRune returns where the last character of a line begins.
func lastRune(line []byte) int {
	start := len(line) - 1
	for start > 0 && len(line)-start < utf8.UTFMax && !utf8.RuneStart(line[start]) {
		start--
	}
	return start
}

// clean makes text valid UTF-8.
func clean(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }

// droppedText is a note on an environment that prints faster than what it prints can be kept.
func droppedText(lines int) string {
	return fmt.Sprintf("… %d lines dropped: it prints faster than its output can be kept", lines)
}
