package runtime

import (
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
)

// tailSize is how much of the log a caller gets who asks for it.
const tailSize = 4096

// Log is what the function and the runtime write. All of it goes on as it comes; the last 4 KB are kept as well, for callers
// who ask for the tail. It may be used concurrently.
type log struct {
	total  atomic.Int64 // bytes ever written; changed under the lock only
	mu     sync.Mutex   // guards all below; held while the log is written, which may take its time
	tail   [tailSize]byte
	stderr io.Writer
}

// write passes text on to out and keeps it. The lock is held.
func (l *log) write(out io.Writer, text []byte) {
	out.Write(text) // there is nobody to tell if the log cannot be written
	at := int(l.total.Load() % tailSize)
	l.total.Add(int64(len(text)))
	if skip := len(text) - tailSize; skip > 0 {
		text, at = text[skip:], (at+skip)%tailSize
	}
	n := copy(l.tail[at:], text)
	copy(l.tail[:], text[n:])
}

// position is where the log stands, for since.
func (l *log) position() int64 { return l.total.Load() }

// since returns what has been written after position, of which no more than the end is kept.
func (l *log) since(position int64) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	total := l.total.Load()
	size := min(total-position, tailSize)
	text := make([]byte, 0, size)
	for at := total - size; at < total; at++ {
		text = append(text, l.tail[at%tailSize])
	}
	return text
}

// say writes a line of the runtime's own.
func (l *log) say(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.write(l.stderr, fmt.Appendf(nil, format+"\n", args...))
}

// broken says that we did what must not happen. It costs an invocation at most.
func (l *log) broken(err error) { l.say("lull: %v", err) }

// A pump moves what the function's process writes to a pipe into the log.
type pump struct {
	log    *log
	out    io.Writer
	reader *os.File
	conn   syscall.RawConn
	writer *os.File // the process's end
	buffer [16 << 10]byte
	done   chan struct{} // closed when run has returned
}

// newPump makes a pipe. The caller closes it.
func newPump(log *log, out io.Writer) (*pump, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make a pipe for the log: %w", err)
	}
	conn, err := r.SyscallConn()
	if err != nil { // it was open a line ago
		return nil, fmt.Errorf("make a pipe for the log: %w", err)
	}
	p := &pump{log: log, out: out, reader: r, writer: w, conn: conn, done: make(chan struct{})}
	go p.run() // ends when the reader is closed; close waits for it
	return p, nil
}

func (p *pump) run() {
	defer close(p.done)
	p.conn.Read(func(fd uintptr) bool { return p.drain(fd) })
}

// settle moves what has been written up to now. So a caller gets what its invocation logged before it answered.
func (p *pump) settle() {
	p.conn.Control(func(fd uintptr) { p.drain(fd) })
}

// drain reads the pipe until it is empty, and reports whether it has ended.
func (p *pump) drain(fd uintptr) (ended bool) {
	p.log.mu.Lock()
	defer p.log.mu.Unlock()
	for {
		n, err := syscall.Read(int(fd), p.buffer[:])
		switch {
		case n > 0:
			p.log.write(p.out, p.buffer[:n])
		case err == syscall.EINTR:
		default:
			return err != syscall.EAGAIN
		}
	}
}

// close moves what is left and ends the pump.
func (p *pump) close() {
	p.writer.Close()
	p.settle()
	p.reader.Close()
	<-p.done
}
