package gateway

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"github.com/lull-dev/lull/fleet"
	"github.com/lull-dev/lull/gateway/wire"
)

// feed is an answer to an HTTP/1 client that stays open, such as server-sent events: bytes from the app to the client, and
// an eye on the client. At its end the connection serves the next request.
type feed struct {
	g        *Gateway
	c        *conn
	link     *link
	stream   fleet.Stream
	events   bool // it is a text/event-stream, which has no end of its own
	last     bool // the connection was said to end with it
	down     way
	watch    way
	waysLeft atomic.Int32
	watching bool        // of watch: it was parked
	whole    bool        // of down: the answer has come to its end
	done     atomic.Bool // down is over
}

// The two ways of a feed.
type (
	feedDown  feed
	feedWatch feed
)

// newFeed takes over the exchange's link and stream.
func newFeed(c *conn, x *exchange, l *link, stream fleet.Stream) *feed {
	f := &feed{g: c.g, c: c, link: l, stream: stream, events: x.events, last: x.last}
	f.down = way{poller: &c.g.poller, conn: l.conn, carrier: (*feedDown)(f)}
	f.watch = way{poller: &c.g.poller, conn: c.conn, carrier: (*feedWatch)(f), hangup: true}
	f.waysLeft.Store(2)
	l.out.Close()
	l.way.Store(&f.down)
	c.g.metrics.streams[streamAnswer].Inc()
	c.g.rounds.join(f, stream)
	if c.g.closing.Load() { // the node may have told the streams already
		f.end(closeRestart)
	}
	return f
}

// begin implements lasting.
func (f *feed) begin() {
	f.c.in.Release()
	go f.watch.run()
	f.down.run()
}

// kill implements lasting.
func (f *feed) kill() {
	f.link.cut(errCutOff)
	f.watch.rouse()
}

// end implements attended. At a restart of the node an answer that is not just events may still come to its end.
func (f *feed) end(code uint16) {
	if f.events || code != closeRestart {
		f.link.cut(errStreamOver)
	}
}

// attend implements attended: of a client that only listens nothing can be asked.
func (f *feed) attend(time.Time, bool) time.Time { return time.Time{} }

func (f *feed) wayOver() {
	if f.waysLeft.Add(-1) > 0 {
		return
	}
	f.g.rounds.leave(f)
	f.link.way.Store(nil)
	f.link.release(f.whole && !f.link.head.Close && f.link.body.Framed())
	f.stream.Close()
	f.g.metrics.streams[streamAnswer].Dec()
	if f.whole && !f.last && f.c.again() {
		go f.c.serve() // not in here: a client may begin a stream after a stream
		return
	}
	f.c.finish()
}

func (d *feedDown) over() {
	f := (*feed)(d)
	f.done.Store(true)
	f.watch.rouse()
	f.wayOver()
}

func (d *feedDown) carry(*wire.Loan) verdict {
	f := (*feed)(d)
	f.link.conn.ReadWithin(f.down.patience())
	n, err := f.link.body.ReadTo(f.c)
	if n > 0 {
		f.c.Commit(n)
		f.g.metrics.bytesOut.Add(float64(n))
	}
	if err == io.EOF {
		f.c.End(f.link.body.Trailer())
	}
	if f.c.Flush() != nil {
		f.clientGone() // the environment may have fallen asleep over it
		return ended
	}
	if n > 0 {
		f.stream.Moved()
	}
	switch {
	case err == nil:
		return moved
	case err == io.EOF:
		f.whole = true
	case isTimeout(err):
		return quiet
	default:
		f.c.cutOff(f.link.why(err))
	}
	return ended
}

func (w *feedWatch) over() { (*feed)(w).wayOver() }

// carry parks at first; after that the client has gone, or the feed is over.
func (w *feedWatch) carry(*wire.Loan) verdict {
	f := (*feed)(w)
	switch {
	case f.done.Load():
		return ended
	case !f.watching:
		f.watching = true
		return quiet
	}
	f.clientGone()
	return ended
}

// clientGone cuts the app's side. An environment that sleeps is woken to hear of it.
func (f *feed) clientGone() {
	ctx, cancel := context.WithTimeout(context.Background(), partingTime)
	defer cancel()
	if release, err := f.stream.Hold(ctx, "client left"); err == nil {
		defer release()
	}
	f.link.cut(errClientGone)
}

var errHandedOn = errors.New("the exchange has become a stream")
