package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/fleet"
	"github.com/lull-dev/lull/gateway/http1"
	"github.com/lull-dev/lull/gateway/wire"
)

// conn is a client's HTTP/1 connection. It belongs to the goroutine that runs serve; interruptIdle and kill may be called
// by others. It implements client for the exchange it has under way.
type conn struct {
	g        *Gateway
	conn     *wire.Conn
	in       wire.Reader
	out      http1.Writer
	sender   sender
	presence presence
	ctx      context.Context // done when the client is gone or given up
	cancel   context.CancelCauseFunc

	minor   int  // HTTP/1.minor of the request
	severed bool // the body of the answer ends with the connection
	served  bool // it has had a request
	gone    bool // somebody else has it now
	idle    atomic.Bool

	mu    sync.Mutex // guards what follows, so that kill finds it
	x     *exchange  // under way
	after lasting    // what became of the connection; nil while exchanges are served
}

func newConn(g *Gateway, accepted net.Conn) *conn {
	c := &conn{g: g, conn: wire.NewConn(accepted), sender: newSender(accepted.RemoteAddr(), g.TrustForwarded)}
	c.in = wire.Reader{Conn: c.conn, Limit: max(g.MaxHead, wire.Small)}
	c.out = http1.Writer{Conn: c.conn, Patience: g.WriteTimeout}
	c.presence.conn = c.conn
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	return c
}

// serve runs one exchange after the other. It ends with the connection, or when the connection has become something
// lasting: that goes on in this goroutine, and in others or none.
func (c *conn) serve() {
	for c.next() {
	}
	if after := c.lasting(); after != nil {
		after.begin()
		return
	}
	c.finish()
}

// turnAway answers a connection over the limit, and waits a moment so that the answer can be read.
func (c *conn) turnAway() {
	defer c.finish()
	c.g.metrics.turnedAway.Inc()
	c.conn.WriteWithin(lingerTime)
	if _, err := c.conn.Write(overCrowded); err == nil {
		c.linger()
	}
}

func (c *conn) lasting() lasting {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.after
}

func (c *conn) become(after lasting) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.x, c.after = nil, after
}

// again prepares the connection for the next request, after a stream. It reports false if it must end.
func (c *conn) again() bool {
	c.become(nil)
	return !c.g.closing.Load()
}

// finish ends the connection, unless it was handed on. It is called once.
func (c *conn) finish() {
	c.in.Close()
	c.out.Close()
	c.g.forget(c)
	if !c.gone {
		c.cancel(errClientGone)
		c.conn.Close()
		c.g.gone()
	}
	c.g.work.Done()
}

// next serves the next request. It reports whether another one may follow.
func (c *conn) next() (more bool) {
	head, err := c.awaitHead()
	if err != nil {
		c.refuse(err)
		return false
	}
	if !c.served && string(head) == prefaceHead {
		c.handToH2()
		return false
	}
	c.served = true
	x := c.newExchange()
	defer func() {
		if p := recover(); p != nil { // our bug costs one connection
			c.g.Log.Error("exchange panicked", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			c.conn.Reset()
			more = false
			c.forgetExchange()
		}
	}()
	if err := x.req.Parse(head); err != nil {
		x.page = bytes.Contains(http1.Value(x.req.Fields, http1.Accept), []byte("text/html"))
		c.in.Discard(len(head))
		c.answerFailure(x, err)
		return false
	}
	c.in.Discard(len(head))
	return c.exchange(x)
}

func (c *conn) exchange(x *exchange) (more bool) {
	x.prepare()
	c.minor = x.req.Minor
	c.takeBody(x)
	err := x.run()
	bodyLeft := x.req.Length != 0 && x.inline == nil && !x.body.Ended()
	switch {
	case x.handedOn:
		return false
	case err == nil:
	case x.begun:
		c.cutOff(err)
		return false
	default:
		x.last = x.last || bodyLeft || x.given() != nil || c.g.closing.Load()
		if !c.answerFailure(x, err) {
			return false
		}
	}
	if bodyLeft {
		c.linger()
		return false
	}
	if x.last {
		return false
	}
	c.forgetExchange()
	x.recycle()
	return true
}

var errIdleEnd = errors.New("the connection was not used")

// awaitHead waits for a request and returns its head, which stays in c.in. It keeps no buffer before the first byte.
func (c *conn) awaitHead() ([]byte, error) {
	c.idle.Store(true)
	defer c.idle.Store(false)
	c.conn.ReadWithin(c.g.IdleTimeout)
	if c.g.closing.Load() {
		return nil, errIdleEnd
	}
	begun, skipped := false, false
	for from := 0; ; {
		buffered := c.in.Buffered()
		if !skipped && bytes.HasPrefix(buffered, []byte("\r\n")) { // some clients end a body with one too many
			c.in.Discard(2)
			skipped = true
			continue
		}
		end, next, err := http1.HeadEnd(buffered, from)
		switch {
		case err == http1.ErrBareLF && looksLikeTLS(buffered):
			return nil, errTLS
		case err != nil:
			return nil, err
		case end > c.g.MaxHead || end == 0 && len(buffered) >= c.g.MaxHead:
			return nil, http1.ErrHeadSize
		case end > 0:
			return buffered[:end], nil
		case len(buffered) > 0 && looksLikeTLS(buffered):
			return nil, errTLS
		case len(buffered) > 0 && !begun:
			begun = true
			c.conn.ReadWithin(c.g.HeadTimeout)
		}
		from = next
		if err := c.in.Fill(); err != nil {
			if len(c.in.Buffered()) == 0 || !errors.Is(err, os.ErrDeadlineExceeded) || c.g.closing.Load() {
				return nil, errIdleEnd
			}
			return nil, errHeadLate
		}
	}
}

var (
	errHeadLate = &http1.Error{Status: http.StatusRequestTimeout, Reason: "the head did not come in time"}
	errTLS      = &http1.Error{Status: http.StatusBadRequest, Reason: "this port speaks http, not https"}
)

func looksLikeTLS(p []byte) bool { return len(p) >= 2 && p[0] == 0x16 && p[1] == 0x03 }

// refuse answers what never became a request, if anything was said.
func (c *conn) refuse(err error) {
	var malformed *http1.Error
	if errors.As(err, &malformed) {
		c.answerFailure(&exchange{last: true}, err)
	}
}

// takeBody finds out how the body comes: with the head and whole, or over time.
func (c *conn) takeBody(x *exchange) {
	length := x.req.Length
	if buffered := c.in.Buffered(); length > 0 && int64(len(buffered)) >= length {
		// The bytes stay where they are: nothing is read from the client before the exchange is over.
		x.inline = buffered[:length]
		c.in.Discard(int(length))
		length = 0
	}
	x.body.Start(&c.in, length)
	x.source = &x.body
}

var exchanges = sync.Pool{New: func() any { return new(exchange) }}

func (c *conn) newExchange() *exchange {
	x := exchanges.Get().(*exchange)
	x.g, x.from, x.sender, x.ctx, x.cancel = c.g, c, c.sender, c.ctx, c.cancel
	c.mu.Lock()
	defer c.mu.Unlock()
	c.x = x
	return x
}

func (c *conn) forgetExchange() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.x = nil
}

// recycle gives an exchange back that nobody else can know of any more.
func (x *exchange) recycle() {
	if x.stream != nil || x.sending != nil {
		return
	}
	fields := x.req.Fields[:0]
	*x = exchange{}
	x.req.Fields = fields
	exchanges.Put(x)
}

// answerFailure answers with an error of Lull's own and reports whether the connection may go on.
func (c *conn) answerFailure(x *exchange, err error) bool {
	c.out.Close()
	if errors.Is(err, errClientGone) || errors.Is(err, errStreamOver) {
		return false
	}
	f := failureOf(err)
	var malformed *http1.Error
	refused := errors.As(err, &malformed) && f.kind == lull.KindInvalid
	if refused {
		x.last = true
		c.g.metrics.refused.Inc()
	}
	c.g.metrics.failed(f.kind)
	c.g.logFailure(f, err)
	contentType, body := f.body(x.page)
	dst := fmt.Appendf(c.out.Tail(), "HTTP/1.1 %d %s\r\n", f.status, http.StatusText(f.status))
	add := func(key, value string) { dst = http1.AppendField(dst, []byte(key), []byte(value)) }
	f.headers(x.place, c.g.QuietHeaders, add)
	add("Content-Type", contentType)
	add("Content-Length", strconv.Itoa(len(body)))
	if x.last {
		add("Connection", "close")
	}
	dst = append(dst, "\r\n"...)
	if !x.isHead {
		dst = append(dst, body...)
	}
	c.out.Put(dst)
	if c.out.Flush() != nil {
		return false
	}
	if refused {
		c.linger()
	}
	return !refused
}

// logFailure writes what an operator has to know. What clients and apps do to themselves is counted, not logged.
func (g *Gateway) logFailure(f failure, err error) {
	if f.kind == lull.KindInternal {
		g.Log.Error("exchange failed", "err", err)
		return
	}
	g.Log.Debug("exchange failed", "kind", f.kind, "err", err)
}

// cutOff ends a connection in the middle of an answer, so that the client cannot take it for the whole.
func (c *conn) cutOff(err error) {
	if !errors.Is(err, errClientGone) && !errors.Is(err, errStreamOver) {
		c.g.metrics.cut.Inc()
		c.g.Log.Debug("answer cut", "err", err)
	}
	if c.severed {
		c.conn.Reset()
	}
}

// lingerTime is how long a client may go on sending what nobody wants, so that it gets to read the answer: closing at
// once would reset the connection under it.
const lingerTime = 2 * time.Second

func (c *conn) linger() {
	c.conn.CloseWrite()
	c.conn.SetReadDeadline(time.Now().Add(lingerTime))
	waste := wire.Loan{Size: wire.Medium}
	defer waste.Reclaim()
	for {
		if _, err := c.conn.ReadTo(&waste); err != nil {
			return
		}
	}
}

// interruptIdle ends the connection if no request is under way on it.
func (c *conn) interruptIdle() {
	if c.idle.Load() {
		c.conn.Interrupt()
	}
}

// kill ends the connection and what it carries.
func (c *conn) kill() {
	c.cancel(errCutOff)
	c.conn.Reset()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.x != nil {
		c.x.giveUp(errCutOff)
	}
	if c.after != nil {
		c.after.kill()
	}
}

// What follows implements client.

func (c *conn) begin(a answer) {
	endless := !a.bodyless && a.resp.Declared < 0
	chunked := endless && c.minor > 0
	c.severed = endless && !chunked
	a.last = a.last || c.severed
	if !a.bodyless && a.resp.Declared > 0 {
		c.out.Expect(a.resp.Declared + 1<<10)
	}
	dst := appendStatusLine(c.out.Tail(), a.resp)
	dst = appendAnswerFields(dst, a)
	dst = appendFraming(dst, a, chunked)
	c.out.Put(append(dst, "\r\n"...))
	c.out.Chunked = chunked
}

func (c *conn) Lend() []byte { return c.out.Lend() }
func (c *conn) Reclaim()     { c.out.Reclaim() }
func (c *conn) Commit(n int) { c.out.Commit(n) }
func (c *conn) Flush() error { return c.out.Flush() }

func (c *conn) End(trailer []http1.Field) {
	c.out.End(trailer)
	c.out.Chunked = false
}

func (c *conn) interim(resp *http1.Response) error {
	if c.minor == 0 {
		return nil // does not know of them
	}
	dst := appendStatusLine(c.out.Tail(), resp)
	dst = appendAnswerFields(dst, answer{resp: resp})
	c.out.Put(append(dst, "\r\n"...))
	return c.out.Flush()
}

func (c *conn) readWithin(d time.Duration) { c.conn.ReadWithin(d) }
func (c *conn) interrupt()                 { c.conn.Interrupt() }
func (c *conn) watch(x *exchange)          { c.presence.watch(x) }
func (c *conn) handOver()                  { c.presence.handOver() }
func (c *conn) watchHere()                 { c.presence.here() }
func (c *conn) unwatch()                   { c.presence.stop() }

func (c *conn) takeStream(x *exchange, l *link, stream fleet.Stream) bool {
	if !c.conn.Parkable() || !l.conn.Parkable() {
		return false
	}
	c.become(newFeed(c, x, l, stream))
	return true
}

func (c *conn) upgrade(x *exchange, l *link) error {
	dst := appendStatusLine(c.out.Tail(), &l.head)
	a := answer{resp: &l.head, cookie: x.setCookie()}
	if !c.g.QuietHeaders {
		a.place = x.place
	}
	dst = appendAnswerFields(dst, a)
	dst = append(dst, "Connection: Upgrade\r\n"...)
	protocol := l.head.Upgrade
	if protocol == nil {
		protocol = x.req.Upgrade
	}
	dst = http1.AppendField(dst, []byte("Upgrade"), protocol)
	c.out.Put(append(dst, "\r\n"...))
	t := newTunnel(c, x, l, protocol)
	if err := t.first(); err != nil {
		return errClientGone
	}
	t.enter(x.place)
	x.handedOn = true
	c.become(t)
	return nil
}
