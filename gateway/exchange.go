package gateway

import (
	"bytes"
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lull-dev/lull/fleet"
	"github.com/lull-dev/lull/gateway/http1"
	"github.com/lull-dev/lull/gateway/wire"
)

// client is the side that asked: an HTTP/1 connection or an HTTP/2 stream.
type client interface {
	// The way of the answer. Nothing is sent before Flush. Flush is never called while another part runs.
	wire.Lender
	begin(a answer)
	Commit(n int)
	End(trailer []http1.Field)
	Flush() error
	interim(resp *http1.Response) error // sent at once

	// The way of the request's body.
	readWithin(d time.Duration) // 0 is for ever
	interrupt()                 // makes the read under way fail

	// Whether it is still there: x.clientGone is called if it goes between watch and unwatch. From handOver on, the
	// goroutine that reads the body sees to it itself; it calls watchHere, which returns after unwatch, when it is done.
	watch(x *exchange)
	handOver()
	watchHere()
	unwatch()

	// upgrade sends the answer on and makes a tunnel of both connections.
	upgrade(x *exchange, l *link) error

	// takeStream makes a feed of both connections and reports true, if this kind of client can.
	takeStream(x *exchange, l *link, stream fleet.Stream) bool
}

// source is the body of a request.
type source interface {
	ReadTo(wire.Lender) (int, error)
	ReadBuffered(wire.Lender) (int, error)
	Trailer() []http1.Field
}

// exchange carries one request to a place and the answer back. It belongs to the goroutine that calls run; only what mu
// guards and what is atomic is touched by others: the one that sends the body, the one that watches the client, and
// whoever ends it early.
type exchange struct {
	g      *Gateway
	from   client
	sender sender
	ctx    context.Context // of the client; its end ends the waiting for a place
	cancel context.CancelCauseFunc

	req        http1.Request
	source     source
	body       http1.Body // the source, for an HTTP/1 client
	inline     []byte     // the whole body, if it came with the head
	isHead     bool       // HEAD
	repeatable bool       // its method asks for nothing to be changed: it may be sent again
	page       bool       // the client is a browser that wants to see something

	settings Settings
	affinity affinity
	dialect  *dialect // that the target of a request for an upgrade gives away
	place    fleet.Place
	env      *environment
	begun    bool // the answer's head is with the client: nothing else can be answered any more
	again    bool // the request is sent for the second time
	last     bool // the client's connection cannot be used again
	endless  bool // the answer has no declared length; set before answered
	events   bool // it is a text/event-stream
	reading  bool // the link's deadline is set for the body
	handedOn bool // place and link belong to a tunnel or a feed by now

	sending chan struct{} // closed by the goroutine that sends the body; nil if there is none
	sent    atomic.Bool   // the app has the whole body, or is about to
	sendErr error         // valid when sending is closed

	mu       sync.Mutex
	link     *link
	cause    error // why it was given up
	answered bool  // the answer has begun to come
	leaving  bool  // the rest of the body is not wanted
	stream   fleet.Stream
}

// prepare notes what has to be known of a request after its bytes are gone.
func (x *exchange) prepare() {
	switch string(x.req.Method) {
	case "GET", "OPTIONS":
		x.repeatable = true
	case "HEAD":
		x.repeatable, x.isHead = true, true
	}
	x.page = bytes.Contains(http1.Value(x.req.Fields, http1.Accept), []byte("text/html"))
	x.last = x.req.Close
}

// run carries the exchange to its end. If it fails before begun, the caller may answer the failure; after that the client
// has to be cut off. All that the exchange took has been given back, or is handedOn.
func (x *exchange) run() error {
	x.from.watch(x)
	defer x.giveBack()
	flt, settings, err := x.g.Apps.Fleet(hostKey(x.req.Host))
	if err != nil {
		return x.unrouted(err)
	}
	x.settings = settings
	if x.settings.RequestTimeout <= 0 {
		x.settings.RequestTimeout = 300 * time.Second
	}
	x.belongs()
	if x.req.Upgrade != nil {
		x.dialect = dialectOfTarget(x.req.Target)
	}
	for {
		l, err := x.reach(flt, x.again)
		if err != nil {
			return x.explain(nil, err)
		}
		err = x.over(l)
		again := !x.again && (err == errNotBegun || x.replayable(l, err))
		err = x.explain(l, err)
		x.leave(l, err)
		if !again {
			return err
		}
		x.again = true
		x.g.metrics.retries.Inc()
	}
}

func (x *exchange) giveBack() {
	x.from.unwatch()
	if x.stream != nil {
		x.g.rounds.leave(x)
		x.stream.Close()
		x.g.metrics.streams[streamAnswer].Dec()
	}
	if x.place != nil {
		x.place.Free()
	}
}

// over sends the request over a link and carries the answer back.
func (x *exchange) over(l *link) error {
	if err := x.attach(l); err != nil {
		return err
	}
	if err := x.ask(l); err != nil {
		return err
	}
	return x.hear(l)
}

// attach makes l the link that is cut when the exchange is given up.
func (x *exchange) attach(l *link) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.link = l
	return x.cause
}

// ask sends the request: all at once if it is here, else its head, and its body as it comes.
func (x *exchange) ask(l *link) error {
	l.out.Patience = x.settings.RequestTimeout
	head := appendRequest(l.out.Tail(), &x.req, x.sender)
	l.out.Put(append(head, x.inline...))
	l.out.Chunked = x.req.Length == http1.Chunked
	switch {
	case x.req.Length == 0 || x.inline != nil:
		x.g.metrics.bytesIn.Add(float64(len(x.inline)))
		x.sent.Store(true)
		l.conn.ReadWithin(x.settings.RequestTimeout)
	case !x.req.Continue:
		x.sendBody(l)
		return nil
	default:
		l.conn.ReadWithin(x.g.ExpectTimeout)
	}
	return l.out.Flush()
}

// hear waits for the answer and carries it back.
func (x *exchange) hear(l *link) error {
	for {
		err := l.readHead(x.g.MaxHead)
		if x.mayAsk() && isTimeout(err) && x.given() == nil {
			// The app does not care whether it is asked for the body: the client gets its "100 Continue" from us.
			if err := x.goOn(l, &http1.Response{Status: 100, Reason: []byte("Continue")}); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		switch status := l.head.Status; {
		case status == 100:
			if x.mayAsk() {
				err = x.goOn(l, &l.head)
			}
		case status == 101:
			return x.change(l)
		case status < 200:
			err = x.from.interim(&l.head)
		case status == 503 && x.notBegun(l):
			return errNotBegun
		default:
			return x.relay(l)
		}
		if err != nil {
			return x.giveUp(errClientGone)
		}
	}
}

// mayAsk reports whether the client waits to be asked for the body.
func (x *exchange) mayAsk() bool { return x.req.Continue && x.sending == nil && x.inline == nil }

// goOn asks the client for the body and begins to send it on.
func (x *exchange) goOn(l *link, resp *http1.Response) error {
	if err := x.from.interim(resp); err != nil {
		return x.giveUp(errClientGone)
	}
	x.sendBody(l)
	return nil
}

// relay carries the final answer back. The bytes that are there together leave together; it never waits with bytes in
// hand.
func (x *exchange) relay(l *link) error {
	resp := &l.head
	a := answer{resp: resp, bodyless: resp.Bodyless(x.isHead)}
	if !x.g.QuietHeaders {
		a.place = x.place
	}
	a.cookie = x.setCookie()
	length := resp.Declared
	if a.bodyless {
		length = 0
	}
	x.endless = length < 0
	x.events = x.endless && isEventStream(http1.Value(resp.Fields, http1.ContentType))
	x.last = x.last || !x.sent.Load() || x.g.closing.Load()
	a.last = x.last
	x.isAnswered()
	x.begun = true
	x.g.metrics.answered(resp.Status)
	x.from.begin(a)
	return x.copyAnswer(l, length)
}

func (x *exchange) copyAnswer(l *link, length int64) error {
	l.body.Start(&l.in, length)
	n, err := x.readAnswer(l.body.ReadBuffered)
	for {
		x.from.Commit(n)
		x.g.metrics.bytesOut.Add(float64(n))
		if err == io.EOF {
			x.from.End(l.body.Trailer())
		}
		if x.from.Flush() != nil {
			x.clientGone()
			return x.given()
		}
		if x.stream != nil && n > 0 {
			x.stream.Moved()
		}
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
		if n, err = x.more(l); err == errHandedOn {
			return nil
		}
	}
}

// readAnswer reads more of the answer's body, to be committed, and listens if it opens a session.
func (x *exchange) readAnswer(read func(wire.Lender) (int, error)) (int, error) {
	if !x.affinity.opens {
		return read(x.from)
	}
	to := overhearing{Lender: x.from}
	n, err := read(&to)
	x.overhear(to.lent[:n])
	return n, err
}

// more waits for more of the answer.
func (x *exchange) more(l *link) (int, error) {
	switch {
	case x.reading:
	case x.events:
		x.becomeStream(l)
	case x.endless:
		l.conn.ReadWithin(x.g.StreamAfter)
	default:
		l.conn.ReadWithin(0)
	}
	x.reading = true
	if x.handedOn {
		return 0, errHandedOn
	}
	n, err := x.readAnswer(l.body.ReadTo)
	if x.endless && x.stream == nil && isTimeout(err) && x.given() == nil {
		x.becomeStream(l)
		return x.more(l)
	}
	return n, err
}

// becomeStream gives the place in the app's concurrency back: the answer goes on for as long as it likes. It goes on
// here if the request's body is still under way, or if the client's side cannot be taken over.
func (x *exchange) becomeStream(l *link) {
	l.conn.ReadWithin(0)
	stream := x.place.Stream()
	x.place.Free()
	if x.sent.Load() {
		x.from.unwatch()
		if x.sending != nil {
			<-x.sending
		}
		if x.handedOn = x.from.takeStream(x, l, stream); x.handedOn {
			return
		}
		x.from.watch(x)
	}
	x.mu.Lock()
	x.stream = stream
	x.mu.Unlock()
	x.g.metrics.streams[streamAnswer].Inc()
	x.g.rounds.join(x, stream)
	if x.g.closing.Load() { // the node may have told the streams already
		x.end(closeRestart)
	}
}

// end implements attended. At a restart of the node an answer that is not just a feed may still come to its end.
func (x *exchange) end(code uint16) {
	if x.events || code != closeRestart {
		x.giveUp(errStreamOver)
	}
}

// attend implements attended: of a client that only listens nothing can be asked.
func (x *exchange) attend(time.Time, bool) time.Time { return time.Time{} }

// change turns the exchange into a tunnel.
func (x *exchange) change(l *link) error {
	if x.req.Upgrade == nil || !x.sent.Load() {
		return http1.ErrUpgrade
	}
	x.isAnswered()
	x.begun, x.last = true, true
	x.g.metrics.answered(l.head.Status)
	x.from.unwatch()
	return x.from.upgrade(x, l)
}

func isEventStream(contentType []byte) bool {
	kind, _, _ := bytes.Cut(contentType, []byte(";"))
	return http1.EqualFold(bytes.TrimSpace(kind), "text/event-stream")
}
