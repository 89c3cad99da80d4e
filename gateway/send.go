package gateway

import (
	"errors"
	"fmt"
	"io"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/gateway/http1"
)

var errBodyLate = &http1.Error{Status: 408, Reason: "the body has stopped coming"}

// sendBody starts the goroutine that sends the request's body after what l.out holds already. It ends when the body does,
// when the client or the app is gone, or when leave interrupts it; leave waits for it.
func (x *exchange) sendBody(l *link) {
	x.from.handOver()
	l.conn.ReadWithin(0) // the app's time begins when it has the whole request
	x.sending = make(chan struct{})
	go func() {
		defer close(x.sending)
		if x.copyBody(l) {
			x.from.watchHere()
		}
	}()
}

// copyBody reports whether the app got the whole body.
func (x *exchange) copyBody(l *link) bool {
	n, err := x.source.ReadBuffered(&l.out)
	for {
		l.out.Commit(n)
		x.g.metrics.bytesIn.Add(float64(n))
		if err == io.EOF {
			l.out.End(x.source.Trailer())
			x.sent.Store(true)
		}
		if x.sendErr = x.toApp(l); x.sendErr != nil {
			x.notTaken(l)
			return false
		}
		switch {
		case err == io.EOF:
			x.awaitAnswer(l)
			return true
		case err != nil:
			x.bodyFailed(err)
			return false
		}
		n, err = x.moreBody(l)
	}
}

// moreBody waits for more from the client: for BodyTimeout at most, but for ever once an answer without an end in sight
// has begun, since the two may be in conversation. That becomes a stream, which has no place; any other answer has one, and
// the app may be waiting for the rest of the body to finish it.
func (x *exchange) moreBody(l *link) (int, error) {
	x.mu.Lock()
	leaving := x.leaving
	switch {
	case leaving: // and interrupted: that must last
	case x.answered && x.endless:
		x.from.readWithin(0)
	default:
		x.from.readWithin(x.g.BodyTimeout)
	}
	x.mu.Unlock()
	if leaving {
		return 0, errAnswered
	}
	return x.source.ReadTo(&l.out)
}

// stopSending makes the goroutine that sends the body end.
func (x *exchange) stopSending(l *link) {
	l.cut(errAnswered)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.leaving = true
	x.from.interrupt()
}

// notTaken deals with an app that does not take the body: its answer may be on the way all the same, unless it is just
// asleep over it.
func (x *exchange) notTaken(l *link) {
	if isTimeout(x.sendErr) {
		x.giveUp(&lull.Error{Kind: lull.KindTimeout, Err: x.sendErr, Message: fmt.Sprintf(
			"The app did not read the request's body for %s.", x.settings.RequestTimeout)})
		return
	}
	x.awaitAnswer(l)
}

// toApp writes what there is, in an environment that runs.
func (x *exchange) toApp(l *link) error {
	x.mu.Lock()
	stream := x.stream
	x.mu.Unlock()
	if stream == nil {
		return l.out.Flush()
	}
	release, err := stream.Hold(x.ctx, "request body")
	if err != nil {
		return err
	}
	defer release()
	return l.out.Flush()
}

func (x *exchange) bodyFailed(err error) {
	x.mu.Lock()
	leaving := x.leaving
	x.mu.Unlock()
	var malformed *http1.Error
	switch {
	case leaving:
	case errors.As(err, &malformed):
		x.giveUp(malformed)
	case isTimeout(err):
		x.giveUp(errBodyLate)
	default:
		x.giveUp(errClientGone)
	}
}

// awaitAnswer begins the app's time to answer, which counts from the last byte of the request.
func (x *exchange) awaitAnswer(l *link) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.answered {
		l.conn.ReadWithin(x.settings.RequestTimeout)
	}
}

// isAnswered notes that the answer has begun: from here on the link's deadline belongs to the answer's body.
func (x *exchange) isAnswered() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.answered = true
	if x.endless && x.sending != nil && !x.sent.Load() {
		x.from.readWithin(0)
	}
}
