package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
)

// The opcodes of RFC 6455.
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA
)

// maxControl is the longest payload of a control frame.
const maxControl = 125

// frame is what a client reads of a frame: the payload of a control frame, only the length of any other.
type frame struct {
	op      byte
	fin     bool
	length  uint64
	payload []byte // of a control frame; valid until the next read
}

// reader reads frames from a connection into a buffer that never grows.
type reader struct {
	from       io.Reader
	buf        [1024]byte
	start, end int // what has been read and not used
	control    [maxControl]byte
}

// head reads the head of an HTTP answer and returns its first line.
func (r *reader) head() (first string, err error) {
	for {
		if i := bytes.Index(r.buf[:r.end], []byte("\r\n\r\n")); i >= 0 {
			r.start = i + 4
			line, _, _ := bytes.Cut(r.buf[:i], []byte("\r\n"))
			return string(line), nil
		}
		if r.end == len(r.buf) {
			return "", fmt.Errorf("a head longer than %d bytes", len(r.buf))
		}
		n, err := r.from.Read(r.buf[r.end:])
		r.end += n
		if err != nil {
			return "", unexpected(err)
		}
	}
}

var errMasked = errors.New("the server masks its frames")

// next reads a frame to its end.
func (r *reader) next() (frame, error) {
	head, err := r.take(2)
	if err != nil {
		return frame{}, err
	}
	f := frame{op: head[0] & 0x0f, fin: head[0]&0x80 != 0, length: uint64(head[1] & 0x7f)}
	if head[1]&0x80 != 0 {
		return f, errMasked
	}
	switch f.length {
	case 126:
		extended, err := r.take(2)
		if err != nil {
			return f, unexpected(err)
		}
		f.length = uint64(binary.BigEndian.Uint16(extended))
	case 127:
		extended, err := r.take(8)
		if err != nil {
			return f, unexpected(err)
		}
		f.length = binary.BigEndian.Uint64(extended)
	}
	if f.op >= opClose {
		return r.readControl(f)
	}
	return f, unexpected(r.skip(f.length))
}

func (r *reader) readControl(f frame) (frame, error) {
	if f.length > maxControl || !f.fin {
		return f, fmt.Errorf("a control frame of %d bytes, final: %t", f.length, f.fin)
	}
	payload, err := r.take(int(f.length))
	f.payload = r.control[:copy(r.control[:], payload)]
	return f, unexpected(err)
}

// take returns the next n bytes, at most as many as the buffer holds; they are valid until the next call.
func (r *reader) take(n int) ([]byte, error) {
	if r.end-r.start < n {
		r.end = copy(r.buf[:], r.buf[r.start:r.end])
		r.start = 0
		for r.end < n {
			read, err := r.from.Read(r.buf[r.end:])
			r.end += read
			if err != nil && r.end < n {
				return nil, err
			}
		}
	}
	taken := r.buf[r.start : r.start+n]
	r.start += n
	return taken, nil
}

// skip reads n bytes and forgets them.
func (r *reader) skip(n uint64) error {
	for n > 0 {
		part := min(n, uint64(max(r.end-r.start, 1)), uint64(len(r.buf)))
		if _, err := r.take(int(part)); err != nil {
			return err
		}
		n -= part
	}
	return nil
}

// unexpected turns the end of a connection in the middle of a frame into what it is.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// appendFrame appends a whole frame as a client sends it: masked.
func appendFrame(to []byte, op byte, payload []byte) []byte {
	to = append(to, 0x80|op)
	switch n := len(payload); {
	case n <= maxControl:
		to = append(to, 0x80|byte(n))
	case n <= 0xffff:
		to = binary.BigEndian.AppendUint16(append(to, 0x80|126), uint16(n))
	default:
		to = binary.BigEndian.AppendUint64(append(to, 0x80|127), uint64(n))
	}
	mask := rand.Uint32()
	to = binary.BigEndian.AppendUint32(to, mask)
	for i, b := range payload {
		to = append(to, b^byte(mask>>(24-8*(i%4))))
	}
	return to
}
