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
// pace. Bytes reach the environment only while the stream holds it running. What is particular to a WebSocket is in
// webSocket.
//
// When one side closes its half the other half stays open, for LingerTimeout without a byte. When a side breaks, both are
// closed; the app's only while its environment is up, since a sleeping one would never hear of it. The way whose end comes
// last closes everything.
type tunnel struct {
	g        *Gateway
	c        *conn
	link     *link
	stream   fleet.Stream
	ws       *webSocket    // nil for any other protocol
	patience time.Duration // for the app to take what is written
	up       way           // from the client
	down     way           // from the app
	waysLeft atomic.Int32

	halfShut atomic.Bool   // one half is closed
	dead     atomic.Bool   // the client has not answered: the app is told when it is up
	left     atomic.Bool   // the client has broken its side
	deaf     atomic.Bool   // the app takes nothing any more
	ending   atomic.Uint32 // the close code, once the tunnel was asked to end
	bidden   atomic.Bool   // the client was told so

	// Of the way from the app.
	patient bool // it has waited for the rest of a frame
	parting bool // the app is cut off as soon as it is up
}

// The two ways of a tunnel.
type (
	fromClient tunnel
	fromApp    tunnel
)

func newTunnel(c *conn, x *exchange, l *link, protocol []byte) *tunnel {
	t := &tunnel{g: c.g, c: c, link: l, patience: x.settings.RequestTimeout}
	if http1.EqualFold(protocol, "websocket") {
		t.ws = newWebSocket(x, l)
	}
	t.up = way{poller: &c.g.poller, conn: c.conn, carrier: (*fromClient)(t)}
	t.down = way{poller: &c.g.poller, conn: l.conn, carrier: (*fromApp)(t)}
	t.waysLeft.Store(2)
	return t
}

// first sends the head of the answer, with what the app has said already after it.
func (t *tunnel) first() error {
	said := t.link.in.Buffered()
	if t.ws != nil {
		t.ws.hearApp(said)
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
	if t.ws != nil {
		t.ws.settle(t.stream)
	}
	t.g.rounds.join(t, t.stream)
	if t.g.closing.Load() { // the node may have told the streams already
		t.end(closeRestart)
	}
}

func (t *tunnel) kind() streamKind {
	if t.ws != nil {
		return streamWebSocket
	}
	return streamUpgrade
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

// end implements attended: the way from the app does it, between two frames.
func (t *tunnel) end(code uint16) {
	if t.ending.CompareAndSwap(0, uint32(code)) {
		t.link.conn.Interrupt()
		t.down.rouse()
	}
}

// attend implements attended.
func (t *tunnel) attend(now time.Time, asleep bool) time.Time {
	if t.ws == nil || !asleep || t.ending.Load() != 0 || t.dead.Load() || t.halfShut.Load() {
		return time.Time{}
	}
	return t.keepCompany(now)
}

func (t *tunnel) wayOver() {
	if t.waysLeft.Add(-1) > 0 {
		return
	}
	t.g.rounds.leave(t)
	if t.ws != nil {
		t.ws.end()
	}
	t.link.release(false)
	t.stream.Close()
	t.g.metrics.streams[t.kind()].Dec()
	t.c.finish()
}

func (u *fromClient) over() { (*tunnel)(u).wayOver() }

func (u *fromClient) carry(loan *wire.Loan) verdict {
	t := (*tunnel)(u)
	if early := t.c.in.Buffered(); len(early) > 0 {
		t.toApp(early)
		t.c.in.Close()
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
		t.toApp(loan.Bytes(n))
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

// toApp passes the client's bytes on. Once the tunnel is ending they go nowhere.
func (t *tunnel) toApp(p []byte) {
	t.g.metrics.bytesIn.Add(float64(len(p)))
	switch {
	case t.ending.Load() != 0 || t.deaf.Load():
	case t.ws != nil:
		t.framesToApp(p)
	default:
		t.holdAndWrite("upgraded data", nil, p)
	}
}

// holdAndWrite writes to the environment, which is woken for it if it sleeps.
func (t *tunnel) holdAndWrite(why string, kept, p []byte) {
	if t.ending.Load() != 0 || t.deaf.Load() {
		return
	}
	release, err := t.stream.Hold(t.c.ctx, why)
	if err != nil {
		t.lost()
		return
	}
	defer release()
	t.write(kept, p)
}

// write writes to the app, which must be held.
func (t *tunnel) write(kept, p []byte) {
	t.link.conn.WriteWithin(t.patience)
	var err error
	if t.ws == nil {
		_, err = t.link.conn.Write(p)
	} else {
		err = t.ws.write(t, kept, p)
	}
	if err != nil {
		t.deaf.Store(true)
		t.link.cut(err) // the way from the app tells the client
	}
}

// lost ends a tunnel whose environment did not come back, or the connection was killed.
func (t *tunnel) lost() {
	t.deaf.Store(true)
	code := closeRestart
	if t.awaitClosing() {
		code = t.stream.CloseCode()
	}
	t.end(code)
}

// awaitClosing reports whether the environment is at its end, or gets there in a moment.
func (t *tunnel) awaitClosing() bool {
	timer := time.NewTimer(deathNotice)
	defer timer.Stop()
	select {
	case <-t.stream.Closing():
		return true
	case <-timer.C:
	case <-t.c.ctx.Done():
	}
	return false
}

// clientShut passes the end of the client's half on.
func (t *tunnel) clientShut() verdict {
	if t.dead.Load() || t.ending.Load() != 0 {
		return ended
	}
	if t.deaf.Load() {
		return t.breakOff()
	}
	release, err := t.stream.Hold(t.c.ctx, "client left")
	if err != nil {
		return t.breakOff()
	}
	defer release()
	if t.ws != nil {
		t.write(t.ws.up.Rest(), nil)
	}
	t.halfShut.Store(true)
	t.link.conn.CloseWrite()
	t.down.rouse()
	return ended
}

// breakOff cuts the app's side, which ends the other way as well. One that sleeps is woken to hear of it, but not for a
// client that has silently died: that has been seen to.
func (t *tunnel) breakOff() verdict {
	if t.dead.Load() {
		return ended
	}
	t.left.Store(true)
	if t.ending.Load() == 0 && !t.deaf.Load() {
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
	if n > 0 && t.toClient(loan.Bytes(n)) != nil && t.ending.Load() == 0 {
		t.c.conn.Reset()
		t.up.rouse() // it tells the app
		return ended
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
	case isTimeout(err) && n == 0:
		t.lingers()
		return quiet
	case t.lastWord():
		t.bid()
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

// lingers cuts the app off that has done nothing with a half-closed connection for LingerTimeout.
func (t *tunnel) lingers() {
	if t.halfShut.Load() && !t.parting {
		t.parting = true
		t.stream.WhenUp(func() { t.link.cut(errClientGone) })
	}
}

// lastWord reports whether the client of a broken WebSocket is to be told why: the environment has come to its end.
func (t *tunnel) lastWord() bool {
	if t.ws == nil || t.dead.Load() || t.left.Load() || t.halfShut.Load() || t.ws.appClosed() || !t.awaitClosing() {
		return false
	}
	t.ending.CompareAndSwap(0, uint32(t.stream.CloseCode()))
	return true
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
	t.g.metrics.bytesOut.Add(float64(len(p)))
	if t.ws != nil {
		return t.framesToClient(p)
	}
	t.c.conn.WriteWithin(t.g.WriteTimeout)
	_, err := t.c.conn.Write(p)
	t.stream.Moved()
	return err
}

const (
	restOfFrame = time.Second     // for the rest of a frame that has begun when the tunnel has to end
	partingWait = 2 * time.Second // for the client to close its half after that
)

// wantsRest reports whether a tunnel that has to end is in the middle of a frame whose rest may still come.
func (t *tunnel) wantsRest(err error) bool {
	if t.ws == nil || !t.ws.down.Midway() || err != nil && (!isTimeout(err) || t.patient) {
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
	if t.ws != nil {
		t.sayClose(uint16(t.ending.Load()))
	}
	t.c.conn.CloseWrite()
	t.bidden.Store(true)
	t.c.conn.ReadWithin(partingWait)
	t.link.cut(errStreamOver)
	t.up.rouse()
}
