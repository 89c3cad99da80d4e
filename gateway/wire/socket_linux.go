package wire

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// AwaitHangup waits until the far side has closed its half of the connection or the connection is broken. It reads
// nothing, and bytes that wait to be read do not hide the end. It ends with an error if it was interrupted or the
// connection closed from this side.
func (c *Conn) AwaitHangup() error {
	if c.socket == nil {
		return ErrNoSocket
	}
	// The runtime's poller wakes the callback at every event on the socket, a hang-up among them.
	return c.socket.Read(func(fd uintptr) bool {
		poll := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(poll[:], 0)
		return err == nil && n > 0 && poll[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
	})
}

// Untouched reports whether nothing has come from the far side, neither a byte nor an end. It is true where that cannot
// be known.
func (c *Conn) Untouched() bool {
	if c.direct == nil {
		return true
	}
	if c.peek == nil {
		c.peek = c.peekStep
	}
	c.untouched = false
	err := c.direct.Control(c.peek)
	return err == nil && c.untouched
}

func (c *Conn) peekStep(fd uintptr) {
	// It does not block, so the scheduler need not be told.
	_, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&c.peeked)), 1,
		unix.MSG_PEEK|unix.MSG_DONTWAIT, 0, 0)
	c.untouched = errno == unix.EAGAIN
}
