package http1

import (
	"bytes"
	"errors"
	"io"

	"github.com/lull-dev/lull/gateway/wire"
)

// Body reads one body off a connection and stops exactly at its end. It takes as much as is there and never waits with
// bytes in hand, so that what it returns can be passed on at once.
type Body struct {
	src   *wire.Reader
	state bodyState

	untilClose bool

	left    int64 // bytes left of a fixed body, or of the chunk
	to      wire.Lender
	trailer []Field
	kept    []byte // what trailer refers to
}

type bodyState uint8

const (
	atEnd bodyState = iota
	inFixed
	inUntilClose
	atChunkHead
	inChunk
	atChunkEnd
	atTrailer
)

const (
	maxChunkLine = 256     // with extensions, which are dropped
	maxTrailer   = 8 << 10 // all of them
)

// Start begins a body of that length, which may be Chunked or UntilClose, at the next byte of src.
func (b *Body) Start(src *wire.Reader, length int64) {
	*b = Body{src: src, left: length, state: inFixed, kept: b.kept[:0], trailer: b.trailer[:0]}
	switch length {
	case Chunked:
		b.state, b.left = atChunkHead, 0
	case UntilClose:
		b.state, b.left, b.untilClose = inUntilClose, 0, true
	case 0:
		b.state = atEnd
	}
}

// Framed reports whether the body had an end of its own: the connection can go on behind it.
func (b *Body) Framed() bool { return !b.untilClose }

// Ended reports whether the whole body has been read.
func (b *Body) Ended() bool { return b.state == atEnd }

// Trailer returns the trailers that may be forwarded. It is valid once ReadTo has returned io.EOF, until Start.
func (b *Body) Trailer() []Field { return b.trailer }

// ReadTo reads at least one byte into what to lends. io.EOF is the clean end and may come with the last bytes; an end
// before its time is io.ErrUnexpectedEOF, a malformed chunk an *Error.
func (b *Body) ReadTo(to wire.Lender) (int, error) { return b.read(to, true) }

// ReadBuffered is ReadTo for what has arrived already: it may return 0 and never waits.
func (b *Body) ReadBuffered(to wire.Lender) (int, error) { return b.read(to, false) }

func (b *Body) read(to wire.Lender, wait bool) (n int, err error) {
	switch b.state {
	case atEnd:
		return 0, io.EOF
	case inFixed, inUntilClose:
		n, err = b.readData(to, wait)
		if b.state == inFixed && b.left == 0 {
			b.state, err = atEnd, io.EOF
		}
		return n, err
	}
	return b.readChunks(to, wait)
}

// readData reads body bytes, at most what is left of them.
func (b *Body) readData(to wire.Lender, wait bool) (n int, err error) {
	if buffered := b.src.Buffered(); len(buffered) > 0 {
		n = copy(b.limit(to.Lend()), buffered)
		b.src.Discard(n)
	} else if wait {
		b.src.Release()
		b.to = to
		n, err = b.src.Conn.ReadTo(b)
		b.to = nil
	}
	if b.state == inUntilClose {
		if errors.Is(err, io.EOF) {
			b.state = atEnd
		}
		return n, err
	}
	b.left -= int64(n)
	return n, cutShort(err)
}

func cutShort(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (b *Body) limit(p []byte) []byte {
	if b.state != inUntilClose && int64(len(p)) > b.left {
		return p[:b.left]
	}
	return p
}

// Lend implements wire.Lender: it passes on what its reader lends, cut to what is left.
func (b *Body) Lend() []byte { return b.limit(b.to.Lend()) }

// Reclaim implements wire.Lender.
func (b *Body) Reclaim() { b.to.Reclaim() }

// readChunks gathers the data of as many chunks as are there.
func (b *Body) readChunks(to wire.Lender, wait bool) (n int, err error) {
	var space []byte
	for b.state != atEnd {
		buffered := b.src.Buffered()
		switch {
		case b.state == inChunk && len(buffered) > 0:
			if space == nil {
				space = to.Lend()
			}
			if n == len(space) {
				return n, nil
			}
			m := copy(b.limit(space[n:]), buffered)
			b.src.Discard(m)
			b.took(m)
			n += m
			continue
		case b.state == inChunk && n == 0 && wait:
			n, err = b.readData(to, true)
			b.took(0)
			return n, err
		case b.state != inChunk:
			done, err := b.frame(buffered)
			if err != nil {
				return n, err
			}
			if done {
				continue
			}
		}
		if n > 0 || !wait {
			return n, nil
		}
		if err := b.src.Fill(); err != nil {
			return 0, cutShort(err)
		}
	}
	return n, io.EOF
}

func (b *Body) took(n int) {
	if b.left -= int64(n); b.left == 0 {
		b.state = atChunkEnd
	}
}

// frame reads the next piece between the data: a chunk's head, its end, or the trailers. It reports whether all of the
// piece was there.
func (b *Body) frame(buffered []byte) (done bool, err error) {
	switch b.state {
	case atChunkEnd:
		if len(buffered) > 0 && buffered[0] != '\r' || len(buffered) > 1 && buffered[1] != '\n' {
			return false, ErrChunk
		}
		if len(buffered) < 2 {
			return false, nil
		}
		b.src.Discard(2)
		b.state = atChunkHead
		return true, nil
	case atChunkHead:
		return b.frameHead(buffered)
	}
	return b.frameTrailer(buffered)
}

func (b *Body) frameHead(buffered []byte) (done bool, err error) {
	end := bytes.IndexByte(buffered, '\n')
	if end < 0 && len(buffered) < maxChunkLine {
		return false, nil
	}
	if end < 2 || end > maxChunkLine || buffered[end-1] != '\r' {
		return false, ErrChunk
	}
	if b.left, err = parseChunkLine(buffered[:end-1]); err != nil {
		return false, err
	}
	b.state = inChunk
	if b.left == 0 {
		b.state = atTrailer
	}
	b.src.Discard(end + 1)
	return true, nil
}

// parseChunkLine reads a size and drops extensions. Spaces around the size are refused: servers disagree about them.
func parseChunkLine(line []byte) (size int64, err error) {
	digits := 0
	for ; digits < len(line); digits++ {
		value, ok := hexValue(line[digits])
		if !ok {
			break
		}
		size = size<<4 | value
	}
	if digits == 0 || digits > 15 {
		return 0, ErrChunk
	}
	if extension := line[digits:]; len(extension) > 0 && (extension[0] != ';' || !all(extension, valueChar)) {
		return 0, ErrChunk
	}
	return size, nil
}

func (b *Body) frameTrailer(buffered []byte) (done bool, err error) {
	end, _, err := HeadEnd(buffered, 0)
	if err != nil {
		return false, err
	}
	if end > maxTrailer || end == 0 && len(buffered) > maxTrailer {
		return false, ErrTrailer
	}
	if end == 0 {
		return false, nil
	}
	if end > 2 {
		b.kept = append(b.kept[:0], buffered[:end]...)
		if b.trailer, err = parseFields(b.trailer[:0], b.kept); err != nil {
			return false, err
		}
		b.dropUnfit()
	}
	b.src.Discard(end)
	b.state = atEnd
	return true, nil
}

// dropUnfit removes trailers that would mean something in a head: framing, routing, who the client is.
func (b *Body) dropUnfit() {
	fit := b.trailer[:0]
	for _, field := range b.trailer {
		if field.Name == Other {
			fit = append(fit, field)
		}
	}
	b.trailer = fit
}
