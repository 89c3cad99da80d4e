// Package wsframe follows the frames of one direction of a WebSocket (RFC 6455, section 5.2) as its bytes go by, to know
// where a frame begins and ends, which frames are data, and what the smallest of them say. It keeps at most one small
// frame, and nothing between two frames.
package wsframe

// Kind is what a frame is.
type Kind uint8

// The kinds of frames. Partial and Invalid are no frames.
const (
	Partial Kind = iota // the first bytes of a frame of which nothing can be said yet; they are kept
	Continuation
	Text
	Binary
	Close
	Ping
	Pong
	Invalid // not, or no longer, a sequence of frames that can be followed
)

// Data reports whether frames of the kind carry the application's messages.
func (k Kind) Data() bool { return k == Continuation || k == Text || k == Binary }

const (
	// MaxSmall is the longest payload of a data frame that comes in one piece: longer than any heartbeat, and than what
	// protocols say of heartbeats when they open.
	MaxSmall = 256

	maxControl = 125 // RFC 6455, section 5.5
	maxHead    = 14
)

// Piece is a part of the direction that belongs to one frame.
type Piece struct {
	Kind   Kind
	Begins bool // with the first byte of its frame
	Ends   bool // with the last one
	Small  bool // it is a whole frame whose payload can be read: a control frame, or a short message in one plain frame

	Kept  []byte // what was kept of the frame before; it goes before Bytes, and is the caller's
	Bytes []byte // a part of what was given to Next
	head  int
}

// AppendPayload appends the payload of a small frame, without its mask.
func (p *Piece) AppendPayload(dst []byte) []byte {
	if !p.Small {
		return dst
	}
	var key [4]byte
	if p.at(1)&0x80 != 0 {
		for i := range key {
			key[i] = p.at(p.head - 4 + i)
		}
	}
	for i := p.head; i < len(p.Kept)+len(p.Bytes); i++ {
		dst = append(dst, p.at(i)^key[(i-p.head)&3])
	}
	return dst
}

func (p *Piece) at(i int) byte {
	if i < len(p.Kept) {
		return p.Kept[i]
	}
	return p.Bytes[i-len(p.Kept)]
}

// Follower follows one direction. The zero value stands before the first frame. It may be used by one goroutine at a time.
type Follower struct {
	left       uint64 // payload of a frame, not a small one, that is still to come
	kept       []byte // a frame that has begun, while it is not known what it is or while it is small
	kind       Kind   // of the frame that left belongs to
	fragmented bool   // a message has begun that goes on with the next data frame
	closed     bool
	invalid    bool
}

// Next takes a piece off p, which must not be empty, and returns how long it was. However the bytes of a direction are
// cut, small frames come whole and the pieces of all others add up to the same. After the first Invalid piece everything
// is one.
func (f *Follower) Next(p []byte) (Piece, int) {
	switch {
	case f.invalid:
		return Piece{Kind: Invalid, Bytes: p}, len(p)
	case f.left > 0:
		n := int(min(f.left, uint64(len(p))))
		f.left -= uint64(n)
		return Piece{Kind: f.kind, Ends: f.left == 0, Bytes: p[:n]}, n
	}
	return f.begin(p)
}

// begin takes the first bytes of a frame, those that are kept included.
func (f *Follower) begin(p []byte) (Piece, int) {
	var buf [maxHead]byte
	have := copy(buf[:], f.kept)
	have += copy(buf[have:], p)
	h, ok := parseHead(buf[:have])
	if !ok {
		return f.keep(p)
	}
	if !f.fits(h) {
		f.invalid = true
		return Piece{Kind: Invalid, Kept: f.take(), Bytes: p}, len(p)
	}
	small := f.small(h)
	missing := uint64(h.size-len(f.kept)) + h.length // may wrap for a short while: a small frame is kept beyond its head
	if small && uint64(len(p)) < missing {
		return f.keep(p)
	}
	n := int(min(missing, uint64(len(p))))
	f.left, f.kind = missing-uint64(n), h.kind
	if h.kind.Data() {
		f.fragmented = !h.final
	}
	f.closed = f.closed || h.kind == Close
	return Piece{Kind: h.kind, Begins: true, Ends: f.left == 0, Small: small, Kept: f.take(), Bytes: p[:n], head: h.size}, n
}

func (f *Follower) keep(p []byte) (Piece, int) {
	f.kept = append(f.kept, p...)
	return Piece{Kind: Partial}, len(p)
}

func (f *Follower) take() []byte {
	kept := f.kept
	f.kept = nil
	return kept
}

// fits reports whether the frame may come here.
func (f *Follower) fits(h head) bool {
	switch {
	case h.kind == Invalid || h.length > 1<<63-1:
		return false
	case h.kind == Continuation:
		return f.fragmented
	case h.kind.Data():
		return !f.fragmented
	}
	return h.final && h.reserved == 0 && h.length <= maxControl
}

func (f *Follower) small(h head) bool {
	if !h.kind.Data() {
		return true
	}
	return h.kind != Continuation && h.final && h.reserved == 0 && h.length <= MaxSmall
}

// Between reports whether a frame may be put in here: what was passed ended with a frame, and it was not the last one.
func (f *Follower) Between() bool { return !f.Midway() && !f.closed && !f.invalid }

// BetweenMessages is Between for a data frame: no message is under way.
func (f *Follower) BetweenMessages() bool { return f.Between() && !f.fragmented }

// Midway reports whether the rest of a frame is still to come.
func (f *Follower) Midway() bool { return f.left > 0 || len(f.kept) > 0 }

// Open reports whether the rest of a frame is still to come of which a piece has been returned.
func (f *Follower) Open() bool { return f.left > 0 }

// Closed reports whether a close frame has begun.
func (f *Follower) Closed() bool { return f.closed }

// Rest takes out what is kept, for when nothing more comes.
func (f *Follower) Rest() []byte { return f.take() }

// head is the head of a frame.
type head struct {
	kind     Kind
	final    bool
	reserved byte // the bits for extensions
	length   uint64
	size     int // of the head itself
}

// parseHead reports false if there is more of the head to come.
func parseHead(p []byte) (h head, ok bool) {
	if len(p) < 2 {
		return h, false
	}
	h = head{kind: kinds[p[0]&0x0f], final: p[0]&0x80 != 0, reserved: p[0] >> 4 & 7, length: uint64(p[1] & 0x7f), size: 2}
	switch h.length {
	case 126:
		h.size += 2
	case 127:
		h.size += 8
	}
	extended := h.size
	if p[1]&0x80 != 0 {
		h.size += 4
	}
	if len(p) < h.size {
		return h, false
	}
	if extended > 2 {
		h.length = 0
		for _, b := range p[2:extended] {
			h.length = h.length<<8 | uint64(b)
		}
	}
	return h, true
}

var kinds = [16]Kind{Continuation, Text, Binary, Invalid, Invalid, Invalid, Invalid, Invalid,
	Close, Ping, Pong, Invalid, Invalid, Invalid, Invalid, Invalid}

var opcodes = [...]byte{Continuation: 0, Text: 1, Binary: 2, Close: 8, Ping: 9, Pong: 10}
