package wire

import "sync"

// Sizes of the buffers that are lent. A head and a small body fit the smallest; a bulk transfer uses the largest.
const (
	Small  = 4 << 10
	Medium = 16 << 10
	Large  = 64 << 10
)

var (
	small  = sync.Pool{New: func() any { return new([Small]byte) }}
	medium = sync.Pool{New: func() any { return new([Medium]byte) }}
	large  = sync.Pool{New: func() any { return new([Large]byte) }}
)

// Borrow returns a buffer of at least size bytes, whose length is its capacity. Up to Large it comes from a pool.
func Borrow(size int) []byte {
	switch {
	case size <= Small:
		return small.Get().(*[Small]byte)[:]
	case size <= Medium:
		return medium.Get().(*[Medium]byte)[:]
	case size <= Large:
		return large.Get().(*[Large]byte)[:]
	}
	return make([]byte, size)
}

// Return gives a borrowed buffer back. The caller must not use it afterwards. Nil is allowed.
func Return(buf []byte) {
	switch cap(buf) {
	case Small:
		small.Put((*[Small]byte)(buf[:Small]))
	case Medium:
		medium.Put((*[Medium]byte)(buf[:Medium]))
	case Large:
		large.Put((*[Large]byte)(buf[:Large]))
	}
}

// Loan is a Lender with one buffer, which it has only while there is something in it. The zero value lends Small.
type Loan struct {
	Size int
	buf  []byte
}

// Lend returns the whole buffer.
func (l *Loan) Lend() []byte {
	if l.buf == nil {
		l.buf = Borrow(max(l.Size, Small))
	}
	return l.buf
}

// Reclaim gives the buffer back to the pool.
func (l *Loan) Reclaim() {
	Return(l.buf)
	l.buf = nil
}

// Bytes returns the first n bytes of what was lent last.
func (l *Loan) Bytes(n int) []byte { return l.buf[:n] }
