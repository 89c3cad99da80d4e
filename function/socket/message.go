package socket

import (
	"bytes"
	"context"
	"io"
	"time"

	"github.com/coder/websocket"

	"github.com/lull-dev/lull"
)

// MaxMessage is the most that a client may send in one message.
const MaxMessage = lull.MB

const (
	perMessage   = 512     // bytes that are counted for a message besides its own
	smallMessage = 4 << 10 // bytes; less is read before there is room for it

	// Of one client there may wait so many messages besides the one that the function works at, which all together may be as
	// large as so many of the largest.
	clientMessages = 16
	clientLargest  = 2
)

// message is one that a client has sent.
type message struct {
	kind websocket.MessageType
	data []byte
	room int64 // what it takes of its client's and of the app's, until it is done with
}

// next reads the client's next message, once there is room for it. For a large one that is the room for the largest, so that
// whatever has begun can be read to its end; one that does not come to its end is given up, as others wait for the room.
func (c *connection) next() (message, error) {
	ctx, cancel := context.WithCancel(c.hub.ctx)
	defer cancel()
	kind, r, err := c.conn.Reader(ctx)
	if err != nil {
		return message{}, err
	}
	begin, err := io.ReadAll(io.LimitReader(r, smallMessage))
	if err != nil {
		return message{}, err
	}
	m := message{kind: kind, data: begin, room: perMessage + int64(len(begin))}
	large := len(begin) == smallMessage
	if large {
		m.room = perMessage + c.limit
	}
	if err := c.reserve(ctx, m.room); err != nil || !large {
		return m, err
	}
	patience := time.AfterFunc(c.hub.config.Ping, cancel)
	defer patience.Stop()
	if m.data, err = io.ReadAll(io.MultiReader(bytes.NewReader(begin), r)); err != nil {
		c.done(m)
		return message{}, err
	}
	spare := c.limit - int64(len(m.data))
	c.release(spare)
	m.room -= spare
	return m, nil
}

// done gives a message's room to others.
func (c *connection) done(m message) { c.release(m.room) }

// reserve waits for room. Nobody reads meanwhile.
func (c *connection) reserve(ctx context.Context, bytes int64) error {
	c.deaf.Add(1)
	defer c.deaf.Add(1)
	if err := c.own.Acquire(ctx, bytes); err != nil {
		return err
	}
	if err := c.share.room.Acquire(ctx, bytes); err != nil {
		c.own.Release(bytes)
		return err
	}
	return nil
}

func (c *connection) release(bytes int64) {
	c.own.Release(bytes)
	c.share.room.Release(bytes)
}
