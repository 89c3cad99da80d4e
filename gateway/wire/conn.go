// Package wire is connections that need no memory while they wait: a buffer is borrowed when bytes are there and given
// back before the next wait, so that ten thousand quiet clients cost their sockets and little more.
package wire

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

// Lender gives memory to read into at the moment it is needed.
type Lender interface {
	// Lend returns where to put bytes; never empty. It may be called again before anything was put there.
	Lend() []byte
	// Reclaim says that the reader is about to wait: what Lend returned is not in use.
	Reclaim()
}

// Conn is a connection whose reads borrow their memory late and whose deadlines are cheap to push forward. One goroutine
// reads and one writes at a time; Interrupt, the deadlines and Close may be called by any.
type Conn struct {
	net.Conn
	direct syscall.RawConn // to read without a buffer in hand; nil if the bytes do not come straight from a socket
	socket syscall.RawConn // to watch; nil if there is no socket below

	step func(fd uintptr) bool // c.readStep, bound once
	to   Lender
	n    int
	err  error

	peek      func(fd uintptr) // c.peekStep, bound when first used
	peeked    [1]byte
	untouched bool

	polled bool // known to a Poller

	readBy  atomic.Int64 // deadlines in force, Unix nanoseconds; 0 is none
	writeBy atomic.Int64
}

// NewConn wraps a connection and owns it from then on.
func NewConn(inner net.Conn) *Conn {
	c := &Conn{Conn: inner}
	c.step = c.readStep
	switch inner := inner.(type) {
	// Only these two: a type that embeds one of them may do something with the bytes on their way.
	case *net.TCPConn:
		c.direct, _ = inner.SyscallConn()
	case *net.UnixConn:
		c.direct, _ = inner.SyscallConn()
	case interface{ NetConn() net.Conn }:
		if below, ok := inner.NetConn().(syscall.Conn); ok {
			c.socket, _ = below.SyscallConn()
		}
	}
	if c.direct != nil {
		c.socket = c.direct
	}
	return c
}

// Parkable reports whether a Poller can watch the connection.
func (c *Conn) Parkable() bool { return canPark && c.direct != nil }

// ReadTo reads at least one byte into what to lends. While it waits it holds none of to's memory, if the connection is a
// socket. The end of the stream is io.EOF.
func (c *Conn) ReadTo(to Lender) (int, error) {
	if c.direct == nil {
		n, err := c.Conn.Read(to.Lend())
		if n > 0 {
			err = nil
		}
		return n, err
	}
	c.to, c.n, c.err = to, 0, nil
	err := c.direct.Read(c.step)
	c.to = nil
	switch {
	case err != nil:
		return 0, err
	case c.err != nil:
		return 0, c.err
	case c.n == 0:
		return 0, io.EOF
	}
	return c.n, nil
}

func (c *Conn) readStep(fd uintptr) bool {
	p := c.to.Lend()
	for {
		n, err := syscall.Read(int(fd), p)
		switch err {
		case nil:
			c.n = n
			return true
		case syscall.EINTR:
		case syscall.EAGAIN:
			c.to.Reclaim()
			return false
		default:
			c.err = &net.OpError{Op: "read", Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
			return true
		}
	}
}

// WriteNow writes what the socket takes at once, which may be nothing: it never waits. Nobody else may write meanwhile.
// Where that cannot be done it is ErrNoSocket.
func (c *Conn) WriteNow(p []byte) (n int, err error) {
	if c.direct == nil {
		return 0, ErrNoSocket
	}
	gone := c.direct.Control(func(fd uintptr) {
		for {
			if n, err = syscall.Write(int(fd), p); err != syscall.EINTR {
				return
			}
		}
	})
	switch {
	case gone != nil:
		return 0, gone
	case err == syscall.EAGAIN:
		return 0, nil
	case err != nil:
		return 0, &net.OpError{Op: "write", Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
	}
	return n, nil
}

// A deadline is set an eighth later than asked for and moved only once it is nearer than asked for: on a busy connection
// most calls cost no timer.
func push(by *atomic.Int64, d time.Duration, set func(time.Time) error) error {
	now := time.Now()
	left := time.Duration(by.Load() - now.UnixNano())
	if late := d + d/8; left < d || left > late {
		deadline := now.Add(late)
		by.Store(deadline.UnixNano())
		return set(deadline)
	}
	return nil
}

// ReadWithin lets reads from now on take at least d, at most a little longer; 0 is for ever.
func (c *Conn) ReadWithin(d time.Duration) error {
	if d > 0 {
		return push(&c.readBy, d, c.SetReadDeadline)
	}
	if c.readBy.Swap(0) == 0 {
		return nil
	}
	return c.SetReadDeadline(time.Time{})
}

// WriteWithin lets writes from now on take at least d, at most a little longer; 0 is for ever.
func (c *Conn) WriteWithin(d time.Duration) error {
	if d > 0 {
		return push(&c.writeBy, d, c.SetWriteDeadline)
	}
	if c.writeBy.Swap(0) == 0 {
		return nil
	}
	return c.SetWriteDeadline(time.Time{})
}

// Interrupt makes the read under way, and all later ones until ReadWithin, fail as if their time was over.
func (c *Conn) Interrupt() {
	c.readBy.Store(-1) // no time asked for ever matches: the next ReadWithin takes effect
	c.SetReadDeadline(time.Unix(1, 0))
}

// CloseWrite tells the far side that nothing more comes; it may go on sending. Without a notion of that it closes.
func (c *Conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}

// Reset closes the connection so that the far side sees an error, not an end.
func (c *Conn) Reset() {
	if tcp, ok := c.Conn.(interface{ SetLinger(int) error }); ok {
		tcp.SetLinger(0)
	}
	c.Close()
}

// ErrNoSocket is returned where something can only be known of a socket.
var ErrNoSocket = errors.New("connection is not a socket")
