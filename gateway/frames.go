package gateway

// frames follows the frames of one direction of a WebSocket by their heads (RFC 6455, section 5.2), to know where a frame
// may be put in between.
type frames struct {
	left   uint64   // payload still to come
	head   [14]byte // of the frame that has begun, as far as it has come
	have   uint8    // bytes of head; 0 between two frames
	closed bool     // a close frame has begun: nothing may follow it
}

const opClose = 0x8

// pass takes the next bytes of the direction, wherever they were cut.
func (f *frames) pass(p []byte) {
	for len(p) > 0 {
		if f.left > 0 {
			n := min(f.left, uint64(len(p)))
			f.left -= n
			p = p[n:]
			continue
		}
		f.head[f.have] = p[0]
		f.have++
		p = p[1:]
		if f.have >= 2 && f.have == f.headSize() {
			f.begin()
		}
	}
}

func (f *frames) headSize() uint8 {
	size := uint8(2)
	switch f.head[1] & 0x7f {
	case 126:
		size += 2
	case 127:
		size += 8
	}
	if f.head[1]&0x80 != 0 {
		size += 4
	}
	return size
}

func (f *frames) begin() {
	f.closed = f.closed || f.head[0]&0x0f == opClose
	length := uint64(f.head[1] & 0x7f)
	extended := f.head[2:2]
	switch length {
	case 126:
		extended, length = f.head[2:4], 0
	case 127:
		extended, length = f.head[2:10], 0
	}
	for _, b := range extended {
		length = length<<8 | uint64(b)
	}
	f.left, f.have = length, 0
}

// between reports whether a frame may be put in here.
func (f *frames) between() bool { return f.left == 0 && f.have == 0 && !f.closed }

// closeFrame returns a close frame as a server sends it.
func closeFrame(code uint16) []byte {
	return []byte{0x80 | opClose, 2, byte(code >> 8), byte(code)}
}
