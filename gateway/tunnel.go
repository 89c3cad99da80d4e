package gateway

import (
	"io"
	"sync/atomic"
	"time"

	"github.com/lull-dev/lull/fleet"
	"github.com/lull-dev/lull/gateway/http1"
	"github.com/lull-dev/lull/gateway/wire"
)

// tunnel is an upgraded connection: bytes both ways, as they come, one buffer at a time, so that the slower side sets the
// pace. Bytes reach the environment only while the stream holds it running.
//
// When one side closes its half the other half stays open, for LingerTimeout without a byte. When a side breaks, both are
// closed. The way whose end comes last closes everything.
type tunnel struct {
	g         *Gateway
	c         *conn
	link      *link
	stream    fleet.Stream
	patience  time.Duration // for the app to take what is written
	webSocket bool
	up        way // from the client
	down      way // from the app
	waysLeft  atomic.Int32

	halfShut atomic.Bool   // one half is closed
	ending   atomic.Uint32 // the close code, once the tunnel was asked to end
	bidden   atomic.Bool   // the client was told so

	// Of the way from the app.
	frames  frames
	patient bool // it has waited for the rest of a frame
}

// The two ways of a tunnel.
type (
	fromClient tunnel
	fromApp    tunnel
)

func newTunnel(c *conn, l *link, protocol []byte, patience time.Duration) *tunnel {
	t := &tunnel{g: c.g, c: c, link: l, webSocket: http1.EqualFold(protocol, "websocket"), patience: patience}
	t.up = way{poller: &c.g.poller, conn: c.conn, carrier: (*fromClient)(t)}
	t.down = way{poller: &c.g.poller, conn: l.conn, carrier: (*fromApp)(t)}
	t.waysLeft.Store(2)
	return t
}

// first sends the head of the answer, with what the app has said already after it.
func (t *tunnel) first() error {
	said := t.link.in.Buffered()
	if t.webSocket {
		t.frames.pass(said)
	}
	t.c.out.Put(append(t.c.out.Tail(), said...))
	t.link.in.Close()
	t.link.out.Close()
	t.link.head.Fields, t.link.head.Reason, t.link.head.Upgrade = nil, nil, nil
	return t.c.out.Flush()
}

// enter makes the place a stream.
func (t *tunnel) enter(place fleet.Place) {
	t.stream = place.Stream()
	t.link.way.Store(&t.down)
	t.g.metrics.streams[t.kind()].Inc()
	t.g.closings.join(t, t.stream.Closing())
	if t.g.closing.Load() { // the node may have told the streams already
		t.end(closeRestart)
	}
}

func (t *tunnel) kind() streamKind {
	if t.webSocket {
		return streamWebSocket
	}
	return streamUpgrade
}

// why is what the wake log says of a client's bytes.
func (t *tunnel) why() string {
	if t.webSocket {
		return "websocket data"
	}
	return "upgraded data"
}

// begin implements lasting.
func (t *tunnel) begin() {
	go t.down.run()
	t.up.run()
}

// kill implements lasting.
func (t *tunnel) kill() {
	t.link.cut(errCutOff)
	t.up.rouse()
}

// end implements ender: the way from the app does it, between two frames.
func (t *tunnel) end(code uint16) {
	if t.ending.CompareAndSwap(0, uint32(code)) {
		t.link.conn.Interrupt()
		t.down.rouse()
	}
}

func (t *tunnel) wayOver() {
	if t.waysLeft.Add(-1) > 0 {
		return
	}
	t.g.closings.leave(t)
	t.link.release(false)
	t.stream.Close()
	t.g.metrics.streams[t.kind()].Dec()
	t.c.finish()
}

func (u *fromClient) over() { (*tunnel)(u).wayOver() }

func (u *fromClient) carry(loan *wire.Loan) verdict {
	t := (*tunnel)(u)
	if early := t.c.in.Buffered(); len(early) > 0 {
		err := t.toApp(early)
		t.c.in.Close()
		if err != nil {
			return t.breakOff()
		}
	}
	t.c.in.Release()
	switch {
	case t.bidden.Load(): // the time that is left has been set
	case t.halfShut.Load():
		t.c.conn.ReadWithin(t.g.LingerTimeout)
	default:
		t.c.conn.ReadWithin(t.up.patience())
	}
	n, err := t.c.conn.ReadTo(loan)
	if n > 0 {
		err = t.toApp(loan.Bytes(n))
	}
	switch {
	case err == nil:
		sizeUp(loan, n)
		return moved
	case err == io.EOF:
		return t.clientShut()
	case isTimeout(err) && n == 0 && !t.bidden.Load() && !t.halfShut.Load():
		return quiet
	}
	return t.breakOff()
}

// toApp writes to the environment, which is woken for it if it sleeps. Once the tunnel is ending, the client's bytes go
// nowhere.
func (t *tunnel) toApp(p []byte) error {
	if t.ending.Load() != 0 {
		return nil
	}
	release, err := t.stream.Hold(t.c.ctx, t.why())
	if err != nil {
		return err
	}
	defer release()
	t.g.metrics.bytesIn.Add(float64(len(p)))
	t.link.conn.WriteWithin(t.patience)
	_, err = t.link.conn.Write(p)
	return err
}

// clientShut passes the end of the client's half on.
func (t *tunnel) clientShut() verdict {
	if t.ending.Load() != 0 {
		return ended
	}
	release, err := t.stream.Hold(t.c.ctx, "client left")
	if err != nil {
		return t.breakOff()
	}
	defer release()
	t.halfShut.Store(true)
	t.link.conn.CloseWrite()
	t.down.rouse()
	return ended
}

// breakOff cuts the app's side, which ends the other way as well.
func (t *tunnel) breakOff() verdict {
	if t.ending.Load() == 0 {
		if release, err := t.stream.Hold(t.c.ctx, "client left"); err == nil {
			defer release()
		}
	}
	t.link.cut(errClientGone)
	return ended
}

func (d *fromApp) over() { (*tunnel)(d).wayOver() }

func (d *fromApp) carry(loan *wire.Loan) verdict {
	t := (*tunnel)(d)
	t.allowApp()
	n, err := t.link.conn.ReadTo(loan)
	if n > 0 {
		t.stream.Moved()
		err = t.toClient(loan.Bytes(n))
	}
	switch {
	case t.ending.Load() != 0:
		if t.wantsRest(err) {
			return moved
		}
		t.bid()
	case err == nil:
		sizeUp(loan, n)
		return moved
	case isTimeout(err) && n == 0 && !t.halfShut.Load():
		return quiet
	case err == io.EOF:
		t.halfShut.Store(true)
		t.c.conn.CloseWrite()
		t.up.rouse()
	default:
		t.link.cut(err)
		t.c.conn.Reset()
		t.up.rouse()
	}
	return ended
}

// allowApp gives the app's half its time, unless the tunnel was asked to end: then its time is over already, or set.
func (t *tunnel) allowApp() {
	if t.ending.Load() != 0 {
		return
	}
	if t.halfShut.Load() {
		t.link.conn.ReadWithin(t.g.LingerTimeout)
	} else {
		t.link.conn.ReadWithin(t.down.patience())
	}
	if t.ending.Load() != 0 {
		t.link.conn.Interrupt()
	}
}

func (t *tunnel) toClient(p []byte) error {
	t.c.conn.WriteWithin(t.g.WriteTimeout)
	_, err := t.c.conn.Write(p)
	if t.webSocket {
		t.frames.pass(p)
	}
	t.g.metrics.bytesOut.Add(float64(len(p)))
	return err
}

const (
	restOfFrame = time.Second     // for the rest of a frame that has begun when the tunnel has to end
	partingWait = 2 * time.Second // for the client to close its half after that
)

// wantsRest reports whether a tunnel that has to end is in the middle of a frame whose rest may still come.
func (t *tunnel) wantsRest(err error) bool {
	if !t.webSocket || t.frames.between() || t.frames.closed || err != nil && (!isTimeout(err) || t.patient) {
		return false
	}
	if !t.patient {
		t.patient = true
		t.link.conn.ReadWithin(restOfFrame)
	}
	return true
}

// bid says goodbye to the client of a tunnel that has to end. The other way drops what the client still says until it has
// closed its half too.
func (t *tunnel) bid() {
	t.c.conn.WriteWithin(partingWait)
	if t.webSocket && t.frames.between() {
		t.c.conn.Write(closeFrame(uint16(t.ending.Load())))
	}
	t.c.conn.CloseWrite()
	t.bidden.Store(true)
	t.c.conn.ReadWithin(partingWait)
	t.link.cut(errStreamOver)
	t.up.rouse()
}
