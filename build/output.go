package build

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
)

const (
	maxLine   = 4 << 10  // a line is cut after this many bytes
	maxOutput = 16 << 20 // of one build; what follows is dropped
	tailLines = 20       // are repeated in the error of a step that fails
)

// output passes on what a build says, in whole lines, and remembers the last ones. It may be used concurrently.
type output struct {
	mu      sync.Mutex
	w       io.Writer // guarded by mu, as is all below
	written int
	tail    []string
}

func newOutput(w io.Writer) *output { return &output{w: w} }

// note prints a line of our own.
func (o *output) note(format string, args ...any) { o.line(fmt.Sprintf(format, args...)) }

func (o *output) line(text string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.tail = append(o.tail, text); len(o.tail) > tailLines {
		o.tail = slices.Delete(o.tail, 0, 1)
	}
	before := o.written
	if o.written += len(text) + 1; o.written > maxOutput {
		if before > maxOutput {
			return
		}
		text = "(the build prints too much: the rest is left out)"
	}
	// If nobody can read it any more, the build's context ends; there is nothing to do here.
	_, _ = io.WriteString(o.w, text+"\n")
}

// begin forgets the last lines: a step begins.
func (o *output) begin() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tail = nil
}

// last returns the last lines since begin, indented, or "" if there are none.
func (o *output) last() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.tail) == 0 {
		return ""
	}
	return "\n  " + strings.Join(o.tail, "\n  ")
}

// lineWriter splits what a process prints into lines. It is used by one goroutine; flush once it has ended.
type lineWriter struct {
	out  *output
	rest []byte
}

func (w *lineWriter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		line, rest, whole := bytes.Cut(p, []byte("\n"))
		w.rest = append(w.rest, line[:min(len(line), maxLine-min(len(w.rest), maxLine))]...)
		if whole {
			w.emit()
		}
		p = rest
	}
	return n, nil
}

// emit prints the line so far. A progress bar redraws its line after a carriage return: only its last state is of use.
func (w *lineWriter) emit() {
	line := strings.TrimRight(string(w.rest), "\r")
	w.out.line(strings.ToValidUTF8(line[strings.LastIndexByte(line, '\r')+1:], "\ufffd"))
	w.rest = w.rest[:0]
}

func (w *lineWriter) flush() {
	if len(w.rest) > 0 {
		w.emit()
	}
}
