package gateway

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lull-dev/lull/fleet"
	"github.com/lull-dev/lull/gateway/http1"
	"github.com/lull-dev/lull/gateway/wire"
)

// link is one connection to an app. An exchange has it to itself until it is kept for the next or closed.
type link struct {
	env   *environment
	conn  *wire.Conn
	in    wire.Reader
	out   http1.Writer
	head  http1.Response // of the answer; valid until more is read
	body  http1.Body     // of the answer
	used  bool           // it has carried an exchange before
	heard bool           // something has come back in this one
	since time.Time      // when it was kept
	cause atomic.Pointer[error]
	way   atomic.Pointer[way] // that carries what comes, once it is a stream
}

// cut breaks the connection so that the app sees it broken and whoever waits on it learns the cause. Only the first cut
// counts. It may be called by any goroutine.
func (l *link) cut(cause error) {
	if !l.cause.CompareAndSwap(nil, &cause) {
		return
	}
	l.conn.Reset()
	if w := l.way.Load(); w != nil {
		w.rouse()
	}
}

// why returns the cause of the cut, or err if there was none.
func (l *link) why(err error) error {
	if cause := l.cause.Load(); cause != nil {
		return *cause
	}
	return err
}

// readHead reads the next head and takes it off the buffer.
func (l *link) readHead(limit int) error {
	for from := 0; ; {
		buffered := l.in.Buffered()
		end, next, err := http1.HeadEnd(buffered, from)
		switch {
		case err != nil:
			return err
		case end > limit || end == 0 && len(buffered) >= limit:
			return http1.ErrHeadSize
		case end > 0:
			l.in.Discard(end)
			return l.head.Parse(buffered[:end])
		}
		from = next
		if err := l.in.Fill(); err != nil {
			return err
		}
		l.heard = true
	}
}

// release ends the link's part in an exchange: it is kept for the next one, or closed.
func (l *link) release(keep bool) {
	l.out.Close()
	keep = keep && len(l.in.Buffered()) == 0 // what nobody asked for must not answer the next request
	l.in.Close()
	if !keep || !l.env.keep(l) {
		l.env.drop(l)
		l.conn.Close()
	}
}

// environment is what the gateway knows of one environment: the connections to it.
type environment struct {
	idleFor time.Duration // a link is kept
	metrics *metrics

	mu    sync.Mutex
	links map[*link]struct{} // all of them
	idle  []*link            // kept for the next exchange, the longest unused first
	ended error              // why the environment is gone; nil while it is there
	sweep *time.Timer        // runs while there is an idle link
}

// maxIdle bounds what is kept after a burst.
const maxIdle = 256

// reuse returns the link that was used last and nothing has come from, nil if there is none. Those that were used last
// before the environment slept are closed: the app's timers have seen the time pass, and it may be closing them. The
// caller has a place, so that the environment is up to hear of it.
func (e *environment) reuse(awake time.Time) *link {
	for {
		e.mu.Lock()
		last := len(e.idle) - 1
		if last < 0 {
			e.mu.Unlock()
			return nil
		}
		l := e.idle[last]
		e.idle[last] = nil
		e.idle = e.idle[:last]
		e.mu.Unlock()
		if !l.since.Before(awake) && l.conn.Untouched() {
			l.used, l.heard = true, false
			return l
		}
		e.drop(l)
		l.conn.Close()
	}
}

// adopt makes a link of a connection that was dialled. The caller has it.
func (e *environment) adopt(inner net.Conn) (*link, error) {
	if tcp, ok := inner.(interface{ SetKeepAlive(bool) error }); ok {
		tcp.SetKeepAlive(false) // a sleeping environment cannot answer probes
	}
	l := &link{env: e, conn: wire.NewConn(inner)}
	l.in.Conn, l.out.Conn = l.conn, l.conn
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended != nil {
		inner.Close()
		return nil, e.ended
	}
	e.links[l] = struct{}{}
	e.metrics.links.Inc()
	return l, nil
}

// keep takes a link back. It reports false if it cannot: the caller still has it.
func (e *environment) keep(l *link) bool {
	l.since = time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended != nil || len(e.idle) >= maxIdle || l.cause.Load() != nil {
		return false
	}
	e.idle = append(e.idle, l)
	if len(e.idle) == 1 {
		e.sweep.Reset(e.idleFor)
	}
	return true
}

func (e *environment) drop(l *link) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, there := e.links[l]; there {
		delete(e.links, l)
		e.metrics.links.Dec()
	}
}

// sweepIdle closes the links that were not used for a while, so that none is left when the environment is paused: timers
// that the app has on them would fire when it is resumed.
func (e *environment) sweepIdle() {
	now := time.Now()
	var old []*link
	e.mu.Lock()
	for len(e.idle) > 0 && now.Sub(e.idle[0].since) >= e.idleFor {
		old = append(old, e.idle[0])
		e.idle = e.idle[1:]
	}
	if len(e.idle) > 0 {
		e.sweep.Reset(e.idle[0].since.Add(e.idleFor).Sub(now))
	}
	e.mu.Unlock()
	for _, l := range old {
		e.drop(l)
		l.conn.Close()
	}
}

// end cuts every link: the sockets of a dead sandbox say nothing by themselves.
func (e *environment) end(cause error) {
	e.mu.Lock()
	e.ended = cause
	links := e.links
	e.links, e.idle = nil, nil
	e.metrics.links.Sub(float64(len(links)))
	e.sweep.Stop()
	e.mu.Unlock()
	for l := range links {
		l.cut(cause)
	}
}

// environments are those that the gateway has been to and that have not ended.
type environments struct {
	metrics *metrics
	mu      sync.RWMutex
	byID    map[string]*environment
	quit    chan struct{}
	watches sync.WaitGroup
}

// of returns the environment of a place. The first time it starts a goroutine, which ends with the environment or with
// close, and which close waits for.
func (es *environments) of(place fleet.Place, idleFor time.Duration) *environment {
	es.mu.RLock()
	e := es.byID[place.Environment()]
	es.mu.RUnlock()
	if e != nil {
		return e
	}
	es.mu.Lock()
	defer es.mu.Unlock()
	if e := es.byID[place.Environment()]; e != nil {
		return e
	}
	if es.quit == nil {
		es.byID, es.quit = map[string]*environment{}, make(chan struct{})
	}
	e = &environment{idleFor: idleFor, metrics: es.metrics, links: map[*link]struct{}{}}
	e.sweep = time.AfterFunc(time.Hour, e.sweepIdle)
	e.sweep.Stop()
	es.byID[place.Environment()] = e
	quit := es.quit
	es.watches.Go(func() { es.watch(e, place, quit) })
	return e
}

func (es *environments) watch(e *environment, place fleet.Place, quit <-chan struct{}) {
	cause := error(errCutOff)
	select {
	case <-place.Done():
		cause = endOf(place)
	case <-quit:
	}
	es.mu.Lock()
	delete(es.byID, place.Environment())
	es.mu.Unlock()
	e.end(cause)
}

// close forgets all environments. No exchange may be under way.
func (es *environments) close() {
	es.mu.Lock()
	if es.quit != nil {
		close(es.quit)
		es.quit = nil
	}
	es.mu.Unlock()
	es.watches.Wait()
}
