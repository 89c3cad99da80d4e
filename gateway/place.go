package gateway

import (
	"context"
	"errors"
	"time"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/fleet"
	"github.com/lull-dev/lull/gateway/http1"
)

// unrouted tells a host without an app from an app that cannot be given.
func (x *exchange) unrouted(err error) error {
	var known *lull.Error
	if errors.As(err, &known) && known.Kind != lull.KindNotFound {
		return err
	}
	return noApp(hostKey(x.req.Host), x.g.Domain)
}

// reach returns a link to an environment that the exchange has a place in. An environment that ended before it was
// reached has seen nothing of the request: another place is asked for, once.
func (x *exchange) reach(flt Fleet, fresh bool) (*link, error) {
	for try := 0; ; try++ {
		if x.place == nil {
			if err := x.acquire(flt); err != nil {
				return nil, err
			}
		}
		l, err := x.connect(fresh)
		if err == nil {
			return l, nil
		}
		if x.ctx.Err() != nil {
			return nil, context.Cause(x.ctx)
		}
		if !x.hasEnded() {
			x.g.Log.Warn("app not reached", "environment", x.place.Environment(), "place", x.place.How(), "err", err)
			return nil, unreachable(x.place, err)
		}
		if try > 0 {
			return nil, endOf(x.place)
		}
		x.place.Free()
		x.place = nil
	}
}

func (x *exchange) acquire(flt Fleet) error {
	place, err := flt.Acquire(x.ctx, x.want())
	if err != nil {
		if x.ctx.Err() != nil {
			return context.Cause(x.ctx)
		}
		return err
	}
	x.place = place
	x.g.metrics.waited(place.How(), place.Waited())
	idle := x.g.LinkIdle
	if x.settings.IdlePause > 0 {
		idle = min(idle, x.settings.IdlePause/2)
	}
	x.env = x.g.environments.of(place, idle)
	return nil
}

const maxWhy = 80

func (x *exchange) want() fleet.Want {
	path := x.req.Target
	for i, c := range path {
		if c == '?' || i == maxWhy {
			path = path[:i]
			break
		}
	}
	why := make([]byte, 0, maxWhy+40)
	why = append(append(append(why, x.req.Method...), ' '), path...)
	return fleet.Want{
		Environment: x.affinity.environment,

		Why:     string(why),
		Upgrade: x.req.Upgrade != nil,
		Stream:  x.req.Upgrade != nil || isEventStream(http1.Value(x.req.Fields, http1.Accept)),
	}
}

func (x *exchange) connect(fresh bool) (*link, error) {
	if !fresh {
		if l := x.env.reuse(x.place.Awake()); l != nil {
			return l, nil
		}
	}
	ctx, cancel := context.WithTimeout(x.ctx, x.g.DialTimeout)
	defer cancel()
	conn, err := x.place.Dial(ctx)
	if err != nil {
		return nil, err
	}
	return x.env.adopt(conn)
}

// deathNotice is how long the news of an environment's end may be on its way after its connections have ended.
const deathNotice = 250 * time.Millisecond

// hasEnded reports whether the environment has ended, or does so in a moment.
func (x *exchange) hasEnded() bool {
	timer := time.NewTimer(deathNotice)
	defer timer.Stop()
	select {
	case <-x.place.Done():
		return true
	case <-timer.C:
	case <-x.ctx.Done():
	}
	return false
}

// replayable reports whether a request that was sent over l and failed may be sent again: the link had been kept, nothing
// came back, the request is here whole, and it is one that asks for nothing to be changed. (A DELETE may be repeated as far
// as HTTP goes, but an app that has done it once answers the second with a 404.)
func (x *exchange) replayable(l *link, err error) bool {
	return err != nil && l.used && !l.heard && l.cause.Load() == nil && x.given() == nil &&
		x.repeatable && x.sending == nil && !isTimeout(err) &&
		!x.hasEnded() // else it may be this very request that the app died of
}

// errNotBegun is for a request that is sent again: nobody gets to see it.
var errNotBegun = &lull.Error{Kind: lull.KindStarting, Message: "The app has not begun with this request."}

// notBegun reports whether the answer says that the app has not begun with the request, and it can be sent again, whatever it
// asks for. A function's client says so when its process ends and requests wait for their turn.
func (x *exchange) notBegun(l *link) bool {
	return !x.again && x.sending == nil && (x.req.Length == 0 || x.inline != nil) &&
		string(http1.Value(l.head.Fields, http1.LullError)) == "not-begun"
}

// explain turns the error that ended the exchange into what is said about it.
func (x *exchange) explain(l *link, err error) error {
	if err == nil {
		return nil
	}
	if cause := x.given(); cause != nil {
		return cause
	}
	var known *lull.Error
	if errors.As(err, &known) || l == nil {
		return err
	}
	if cause := l.cause.Load(); cause != nil {
		return *cause
	}
	var broken *http1.Error
	switch {
	case errors.As(err, &broken):
		return brokenAnswer(broken.Reason, err)
	case isTimeout(err):
		x.place.Late()
		return timedOut(x.settings.RequestTimeout)
	case x.hasEnded():
		return endOf(x.place)
	}
	return hungUp(x.place, err)
}

// given returns why the exchange was given up, nil if it was not.
func (x *exchange) given() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.cause
}

// giveUp ends the exchange wherever it stands: its wait for a place, its link. Only the first cause counts; it is
// returned. Any goroutine may call it.
func (x *exchange) giveUp(cause error) error {
	x.mu.Lock()
	if x.cause == nil {
		x.cause = cause
	}
	cause, l := x.cause, x.link
	x.mu.Unlock()
	x.cancel(cause)
	if l != nil {
		l.cut(cause)
	}
	return cause
}

// clientGone gives the exchange up because nobody waits for the answer any more. An environment that sleeps is woken to
// hear of it.
func (x *exchange) clientGone() {
	x.mu.Lock()
	stream := x.stream
	x.mu.Unlock()
	if stream != nil {
		ctx, cancel := context.WithTimeout(context.Background(), partingTime)
		defer cancel()
		if release, err := stream.Hold(ctx, "client left"); err == nil {
			defer release()
		}
	}
	x.giveUp(errClientGone)
}

// partingTime bounds the waking of an environment to tell it that a client left.
const partingTime = 10 * time.Second

// leave ends the exchange's part in a link.
func (x *exchange) leave(l *link, err error) {
	if x.handedOn {
		return
	}
	if x.sending != nil {
		if err != nil || !x.sent.Load() { // the app has answered without waiting for the rest
			x.stopSending(l)
		}
		x.from.unwatch()
		<-x.sending
	}
	x.mu.Lock()
	x.link = nil
	x.mu.Unlock()
	l.release(err == nil && x.sendErr == nil && x.sent.Load() && !l.head.Close && l.body.Framed())
}

var errAnswered = errors.New("the answer has come without the whole request")
