package gvisor

import (
	"errors"
	"io"
	"os"
	"sync"
)

// output carries what the app prints to the spec's writers.
type output struct {
	null    *os.File
	writers []*os.File // the app's ends of the pipes, until the sandbox has them
	readers []*os.File // this process's, until begin
	copies  sync.WaitGroup
}

// newOutput makes the pipes. wait is to be called in the end, also if begin was not.
func newOutput() (*output, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	o := &output{null: null}
	for range 2 {
		read, write, err := os.Pipe()
		if err != nil {
			o.handedOver()
			o.wait()
			return nil, err
		}
		o.writers, o.readers = append(o.writers, write), append(o.readers, read)
	}
	return o, nil
}

// begin starts a goroutine for each pipe. They end when the last process of the sandbox has, and wait waits for them; if
// no sandbox is started, handedOver ends them.
func (o *output) begin(stdout, stderr io.Writer) {
	for i, w := range []io.Writer{stdout, stderr} {
		if w == nil {
			w = io.Discard
		}
		read := o.readers[i]
		o.copies.Go(func() { copyOutput(w, read) })
	}
	o.readers = nil
}

// copyOutput copies until the other end is closed. A writer that fails gets no more, but the app goes on.
func copyOutput(w io.Writer, read *os.File) {
	defer read.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := read.Read(buf)
		if n > 0 && w != io.Discard {
			if _, failed := w.Write(buf[:n]); failed != nil {
				w = io.Discard
			}
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
	}
}

// files are the app's standard streams by their number.
func (o *output) files() map[int]*os.File {
	return map[int]*os.File{0: o.null, 1: o.writers[0], 2: o.writers[1]}
}

// handedOver closes this process's copies of the app's ends.
func (o *output) handedOver() {
	_ = o.null.Close()
	for _, w := range o.writers {
		_ = w.Close()
	}
}

// wait returns when everything printed has been delivered.
func (o *output) wait() {
	for _, read := range o.readers {
		_ = read.Close()
	}
	o.readers = nil
	o.copies.Wait()
}
