package gateway

import (
	"errors"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/lull-dev/lull/fleet"
	"github.com/lull-dev/lull/gateway/http1"
	"github.com/lull-dev/lull/gateway/wire"
)

// tunnel is an upgraded connection: bytes both ways, as they come, one buffer at a time, so that the slower side sets the
// pace. It holds no buffer while nothing moves. Bytes reach the environment only while the stream holds it running.
//
// Two goroutines carry it, one for each way: the one that calls run (from the client), and one that run starts and waits
// for (from the app). When one side closes its half the other half stays open, for LingerTimeout without a byte. When a
// side breaks, both are closed.
type tunnel struct {
	g         *Gateway
	c         *conn
	link      *link
	patience  time.Duration // for the app to take what is written
	stream    fleet.Stream
	webSocket bool
	down      frames        // app to client
	ending    atomic.Uint32 // the close code, once the tunnel was asked to end
	halfShut  atomic.Bool   // one half is closed
	done      chan struct{} // closed by the goroutine from the app
}

func newTunnel(c *conn, l *link, protocol []byte, patience time.Duration) *tunnel {
	return &tunnel{g: c.g, c: c, link: l, webSocket: http1.EqualFold(protocol, "websocket"), patience: patience,
		done: make(chan struct{})}
}

// first sends the head of the answer, with what the app has said already after it.
func (t *tunnel) first() error {
	said := t.link.in.Buffered()
	t.down.pass(said)
	t.c.out.Put(append(t.c.out.Tail(), said...))
	t.link.in.Close()
	t.link.out.Close()
	t.link.head.Fields, t.link.head.Reason, t.link.head.Upgrade = nil, nil, nil
	defer t.c.out.Close()
	return t.c.out.Flush()
}

// enter makes the place a stream.
func (t *tunnel) enter(place fleet.Place) {
	t.stream = place.Stream()
	t.link.conn.ReadWithin(0)
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

// run carries bytes until both ways have ended. The client's connection is then the caller's to close.
func (t *tunnel) run() {
	go t.runFromApp()
	t.runFromClient()
	<-t.done
	t.g.closings.leave(t)
	t.link.release(false)
	t.stream.Close()
	t.g.metrics.streams[t.kind()].Dec()
}

// end implements ender: the goroutine from the app does it, between two frames.
func (t *tunnel) end(code uint16) {
	if t.ending.CompareAndSwap(0, uint32(code)) {
		t.link.conn.Interrupt()
	}
}

func (t *tunnel) runFromClient() {
	t.c.conn.ReadWithin(0)
	if early := t.c.in.Buffered(); len(early) > 0 {
		err := t.toApp(early)
		t.c.in.Close()
		if err != nil {
			t.breakOff()
			return
		}
	}
	t.c.in.Release()
	var loan wire.Loan
	defer loan.Reclaim()
	for {
		if t.halfShut.Load() && t.ending.Load() == 0 {
			t.c.conn.ReadWithin(t.g.LingerTimeout)
		}
		n, err := t.c.conn.ReadTo(&loan)
		if n > 0 {
			err = t.toApp(loan.Bytes(n))
		}
		switch {
		case err == io.EOF:
			t.clientShut()
			return
		case err != nil:
			t.breakOff()
			return
		}
		t.sizeUp(&loan, n)
	}
}

// sizeUp takes a larger buffer while there is much to carry.
func (t *tunnel) sizeUp(loan *wire.Loan, n int) {
	if n >= wire.Small && n < wire.Large {
		loan.Reclaim()
		loan.Size = wire.Large
	} else if n < wire.Small && loan.Size > 0 {
		loan.Reclaim()
		loan.Size = 0
	}
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
func (t *tunnel) clientShut() {
	if t.ending.Load() != 0 {
		return
	}
	release, err := t.stream.Hold(t.c.ctx, "client left")
	if err != nil {
		t.breakOff()
		return
	}
	defer release()
	t.halfShut.Store(true)
	t.link.conn.CloseWrite()
	t.allowApp()
}

// breakOff cuts the app's side, which ends the other goroutine as well.
func (t *tunnel) breakOff() {
	if t.ending.Load() != 0 {
		t.link.cut(errStreamOver)
		return
	}
	if release, err := t.stream.Hold(t.c.ctx, "client left"); err == nil {
		defer release()
	}
	t.link.cut(errClientGone)
}

func (t *tunnel) runFromApp() {
	defer close(t.done)
	var loan wire.Loan
	defer loan.Reclaim()
	patient := false
	for {
		n, err := t.link.conn.ReadTo(&loan)
		if n > 0 {
			t.stream.Moved()
			err = t.toClient(loan.Bytes(n))
		}
		switch {
		case t.ending.Load() != 0:
			if t.wantsRest(err, &patient) {
				continue
			}
			t.bid()
			return
		case err == io.EOF:
			t.halfShut.Store(true)
			t.c.conn.CloseWrite()
			t.c.conn.ReadWithin(t.g.LingerTimeout)
			return
		case err != nil:
			t.link.cut(err)
			t.c.conn.Reset()
			return
		}
		if t.halfShut.Load() {
			t.allowApp()
		}
		t.sizeUp(&loan, n)
	}
}

// allowApp gives the app's half LingerTimeout from now, unless the tunnel was asked to end.
func (t *tunnel) allowApp() {
	t.link.conn.ReadWithin(t.g.LingerTimeout)
	if t.ending.Load() != 0 {
		t.link.conn.Interrupt()
	}
}

func (t *tunnel) toClient(p []byte) error {
	t.c.conn.WriteWithin(t.g.WriteTimeout)
	_, err := t.c.conn.Write(p)
	if t.webSocket {
		t.down.pass(p)
	}
	t.g.metrics.bytesOut.Add(float64(len(p)))
	return err
}

const (
	restOfFrame = time.Second     // for the rest of a frame that has begun when the tunnel has to end
	partingWait = 2 * time.Second // for the client to close its half after that
)

// wantsRest reports whether a tunnel that has to end is in the middle of a frame whose rest may still come.
func (t *tunnel) wantsRest(err error, patient *bool) bool {
	late := errors.Is(err, os.ErrDeadlineExceeded)
	if !t.webSocket || t.down.between() || t.down.closed || err != nil && !late || late && *patient {
		return false
	}
	if !*patient {
		*patient = true
		t.link.conn.ReadWithin(restOfFrame)
	}
	return true
}

// bid says goodbye to the client of a tunnel that has to end. The other goroutine waits for it to close.
func (t *tunnel) bid() {
	t.c.conn.WriteWithin(partingWait)
	if t.webSocket && t.down.between() {
		t.c.conn.Write(closeFrame(uint16(t.ending.Load())))
	}
	t.c.conn.CloseWrite()
	t.c.conn.ReadWithin(partingWait)
	t.link.cut(errStreamOver)
}
