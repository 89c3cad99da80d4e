package wire

import "io"

// Reader reads from a connection into one buffer, which it has only while there are bytes in it. What Buffered returns
// stays where it is until the next Fill or Discard.
type Reader struct {
	Conn  *Conn
	Limit int // the most that is buffered; 0 is Large
	buf   []byte
	r, w  int
}

// Buffered returns the bytes that have been read and not discarded.
func (r *Reader) Buffered() []byte { return r.buf[r.r:r.w] }

// Discard drops the first n buffered bytes.
func (r *Reader) Discard(n int) {
	r.r += n
	if r.r == r.w {
		r.r, r.w = 0, 0
	}
}

// Fill waits for more bytes and appends them to what is buffered. It fails with io.ErrShortBuffer at the limit.
func (r *Reader) Fill() error {
	if r.w-r.r >= r.limit() {
		return io.ErrShortBuffer
	}
	n, err := r.Conn.ReadTo(r)
	r.w += n
	return err
}

func (r *Reader) limit() int {
	if r.Limit > 0 {
		return r.Limit
	}
	return Large
}

// Lend implements Lender.
func (r *Reader) Lend() []byte {
	switch {
	case r.buf == nil:
		r.buf = Borrow(Small)
	case r.w == len(r.buf) && r.r > 0:
		r.w = copy(r.buf, r.buf[r.r:r.w])
		r.r = 0
	case r.w == len(r.buf):
		grown := Borrow(min(4*len(r.buf), max(r.limit(), len(r.buf)+1)))
		r.w = copy(grown, r.buf)
		Return(r.buf)
		r.buf = grown
	}
	return r.buf[r.w:]
}

// Reclaim implements Lender.
func (r *Reader) Reclaim() { r.Release() }

// Release gives the buffer back if there is nothing in it.
func (r *Reader) Release() {
	if r.r == r.w && r.buf != nil {
		Return(r.buf)
		r.buf, r.r, r.w = nil, 0, 0
	}
}

// Close drops what is buffered and gives the buffer back. It does not close the connection.
func (r *Reader) Close() {
	r.r, r.w = 0, 0
	r.Release()
}
