//go:build !linux

package wire

// AwaitHangup cannot tell here: a hang-up is noticed by the next read or write.
func (c *Conn) AwaitHangup() error { return ErrNoSocket }

// Untouched cannot tell here.
func (c *Conn) Untouched() bool { return true }
