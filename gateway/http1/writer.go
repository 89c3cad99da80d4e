package http1

import (
	"time"

	"github.com/lull-dev/lull/gateway/wire"
)

// Writer builds a message in one buffer, so that a head, its body and its end leave in one write when they are there
// together, and has no buffer while there is nothing to write. Only Flush writes. It implements wire.Lender: body bytes
// are read straight into the place from which they are written.
type Writer struct {
	Conn     *wire.Conn
	Patience time.Duration // a write that takes much longer fails; 0 is never
	Chunked  bool          // the body is written in chunks

	buf        []byte
	start, end int // what is to be written
	lent       int // where the space lent begins
	room       int // how long it is
	size       int // of the next buffer
}

const (
	chunkFront = 8 // up to six digits and CR LF
	chunkBack  = 7 // CR LF, and a last chunk
	leastRoom  = 512
)

// Tail returns what has been built so far, to append to; Put takes the result.
func (w *Writer) Tail() []byte {
	if w.buf == nil {
		w.buf = wire.Borrow(w.size)
	}
	return w.buf[:w.end]
}

// Put stores what was appended to Tail.
func (w *Writer) Put(grown []byte) {
	w.end = len(grown)
	if &grown[:1][0] != &w.buf[0] {
		wire.Return(w.buf)
		w.buf = grown[:cap(grown)]
	}
}

// Pending reports whether there is something to flush.
func (w *Writer) Pending() bool { return w.end > w.start }

// Expect sizes the next buffer for n bytes of body.
func (w *Writer) Expect(n int64) { w.size = int(min(n, wire.Large)) }

// Lend returns space for body bytes; Commit says how many were put there.
func (w *Writer) Lend() []byte {
	front, back := 0, 0
	if w.Chunked {
		front, back = chunkFront, chunkBack
	}
	if w.buf == nil {
		w.buf = wire.Borrow(w.size)
	}
	if len(w.buf)-w.end < front+back+leastRoom {
		grown := wire.Borrow(w.end + wire.Small)
		copy(grown[w.start:], w.buf[w.start:w.end])
		wire.Return(w.buf)
		w.buf = grown
	}
	w.lent = w.end + front
	space := w.buf[w.lent : len(w.buf)-back]
	w.room = len(space)
	return space
}

// Reclaim gives the buffer back if there is nothing in it to write.
func (w *Writer) Reclaim() {
	if !w.Pending() && w.buf != nil {
		wire.Return(w.buf)
		w.buf, w.start, w.end = nil, 0, 0
	}
}

// Commit makes the first n bytes of the space lent part of the message.
func (w *Writer) Commit(n int) {
	switch {
	case n == 0:
		return
	case w.Chunked:
		w.frame(n)
	default:
		w.end += n
	}
	if n == w.room && len(w.buf) < wire.Large {
		w.size = min(4*len(w.buf), wire.Large) // there is more: read more at a time
	}
}

func (w *Writer) frame(n int) {
	digits := 1
	for rest := n >> 4; rest > 0; rest >>= 4 {
		digits++
	}
	head := w.lent - digits - 2
	if w.Pending() {
		head = w.end // close the gap to what is there
		copy(w.buf[head+digits+2:], w.buf[w.lent:w.lent+n])
	} else {
		w.start = head
	}
	for i, rest := digits-1, n; i >= 0; i, rest = i-1, rest>>4 {
		w.buf[head+i] = "0123456789abcdef"[rest&15]
	}
	data := head + digits + 2
	copy(w.buf[data-2:], "\r\n")
	copy(w.buf[data+n:], "\r\n")
	w.end = data + n + 2
}

// End ends the body.
func (w *Writer) End(trailer []Field) {
	if !w.Chunked {
		return
	}
	tail := append(w.Tail(), "0\r\n"...)
	for i := range trailer {
		tail = AppendField(tail, trailer[i].Key, trailer[i].Value)
	}
	w.Put(append(tail, "\r\n"...))
}

// Flush writes what there is.
func (w *Writer) Flush() error {
	if !w.Pending() {
		return nil
	}
	w.Conn.WriteWithin(w.Patience)
	_, err := w.Conn.Write(w.buf[w.start:w.end])
	w.start, w.end = 0, 0
	w.Reclaim()
	return err
}

// Close drops what was not written and gives the buffer back. It does not close the connection.
func (w *Writer) Close() {
	w.start, w.end, w.size = 0, 0, 0
	w.Reclaim()
	w.Chunked = false
}

// AppendField appends a header line.
func AppendField(dst, key, value []byte) []byte {
	dst = append(dst, key...)
	dst = append(dst, ": "...)
	dst = append(dst, value...)
	return append(dst, "\r\n"...)
}
