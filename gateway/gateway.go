// Package gateway is the front door: it accepts client connections, finds the app by Host, asks the app's fleet for a
// place, and carries the exchange or the stream there and back without storing it.
//
//	client ──▶ conn (HTTP/1.x) ─┐
//	client ──▶ h2 (cleartext) ──┴▶ exchange ──▶ link ──▶ environment
//	                                  ├ 101 ──▶ tunnel
//	                                  └ an answer that stays open ──▶ feed
//
// One goroutine serves an HTTP/1 connection; a second one exists only while a request body is on its way, or while somebody
// waits longer than a moment. Nothing that waits holds a buffer. A tunnel or feed on which nothing moves holds no goroutine
// either: its sockets are parked with a poller.
package gateway

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lull-dev/lull/fleet"
	"github.com/lull-dev/lull/gateway/wire"
	"github.com/prometheus/client_golang/prometheus"
)

// Apps knows which app a host name belongs to. It is asked once per exchange and must answer from memory.
type Apps interface {
	// Fleet returns the fleet of the app at host: in lower case, without port and final dot; empty if the client named
	// none. An error without a kind means that there is no such app.
	Fleet(host string) (Fleet, Settings, error)
}

// Fleet gives places in the environments of one app.
type Fleet interface {
	Acquire(ctx context.Context, want fleet.Want) (fleet.Place, error)
}

// Settings are what the gateway has to know of an app.
type Settings struct {
	RequestTimeout time.Duration // from the last byte of the request to the first of the answer; 0 is 300 s
	IdlePause      time.Duration // after which an idle environment is paused: no connection is kept to it that long; 0 is 2 s
	Affinity       string        // how a client comes back to its environment: "auto" (Engine.IO), "cookie"; all else is not at all
}

// Config is what a gateway works with. Zero values are replaced by the defaults named.
type Config struct {
	Apps           Apps
	Domain         string         // apps are at <app>.<Domain>; for messages only
	QuietHeaders   bool           // leave Lull-Environment and Server-Timing out
	TrustForwarded []netip.Prefix // whose X-Forwarded-* and Forwarded are appended to; everybody else's are replaced
	Log            *slog.Logger   // default: discard
	Metrics        prometheus.Registerer

	MaxConnections int           // open client connections; more get a 503; default 20,000
	MaxHead        int           // bytes of a request's or response's head; default 64 KB
	HeadTimeout    time.Duration // from the first byte of a request's head to its last; default 15 s
	IdleTimeout    time.Duration // a client connection without a request under way; default 120 s
	BodyTimeout    time.Duration // between two pieces of a request's body, unless an answer without an end in sight has begun; default 60 s
	WriteTimeout   time.Duration // for a client to take 64 KB of what was sent; default 60 s
	ExpectTimeout  time.Duration // for the app to say whether it wants the body of a "100-continue"; default 1 s
	DialTimeout    time.Duration // for the app to accept a connection; default 10 s
	StreamAfter    time.Duration // an answer without an end in sight is a stream after this long; default 1 s
	LingerTimeout  time.Duration // for the second half of a connection whose first half was closed; default 60 s
	ClientPing     time.Duration // between two pings to the client of a sleeping app, and for its answer; default 30 s
	LinkIdle       time.Duration // an unused connection to an app, at most half of IdlePause; default 1 s
}

func (c Config) withDefaults() Config {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.MaxConnections <= 0 {
		c.MaxConnections = 20_000
	}
	if c.MaxHead <= 0 || c.MaxHead > wire.Large {
		c.MaxHead = wire.Large
	}
	for _, d := range []struct {
		value *time.Duration
		less  time.Duration
	}{
		{&c.HeadTimeout, 15 * time.Second}, {&c.IdleTimeout, 120 * time.Second}, {&c.BodyTimeout, 60 * time.Second},
		{&c.WriteTimeout, 60 * time.Second}, {&c.ExpectTimeout, time.Second}, {&c.DialTimeout, 10 * time.Second},
		{&c.StreamAfter, time.Second}, {&c.LingerTimeout, 60 * time.Second}, {&c.LinkIdle, time.Second},
		{&c.ClientPing, 30 * time.Second},
	} {
		if *d.value <= 0 {
			*d.value = d.less
		}
	}
	return c
}

// Gateway is a front door. Serve opens it, Shutdown closes it for good.
type Gateway struct {
	Config
	metrics      *metrics
	environments environments
	rounds       rounds
	sessions     sessions
	pingMark     [12]byte // what the gateway's own pings say
	poller       wire.Poller
	h2           *http.Server
	h2conns      *handover
	h2once       sync.Once
	h2work       gate
	shutOnce     sync.Once
	shutErr      error

	closing atomic.Bool
	work    sync.WaitGroup // goroutines of connections
	count   atomic.Int64   // open client connections, of either protocol

	mu        sync.Mutex // guards what follows
	listeners map[net.Listener]struct{}
	conns     map[*conn]struct{}
}

// New returns a gateway that serves nothing yet.
func New(config Config) *Gateway {
	g := &Gateway{
		Config:    config.withDefaults(),
		metrics:   newMetrics(config.Metrics),
		listeners: map[net.Listener]struct{}{},
		conns:     map[*conn]struct{}{},
	}
	g.environments.metrics, g.rounds.held = g.metrics, g.metrics.held
	copy(g.pingMark[:], "lull")
	rand.Read(g.pingMark[4:])
	g.h2, g.h2conns = newH2(g)
	return g
}

// ErrClosed is returned by Serve after Shutdown.
var ErrClosed = errors.New("gateway closed")

// Serve accepts connections until Shutdown (ErrClosed) or until the listener fails. It may be called for several
// listeners at the same time, and closes the listener before it returns.
func (g *Gateway) Serve(l net.Listener) error {
	defer l.Close()
	if !g.track(l) {
		return ErrClosed
	}
	defer g.untrack(l)
	for pause := time.Duration(0); ; {
		accepted, err := l.Accept()
		switch {
		case err == nil:
			pause = 0
			g.admit(accepted)
		case g.closing.Load():
			return ErrClosed
		case !isTemporary(err):
			return err
		default: // out of descriptors, most likely
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			g.Log.Warn("accept connection", "err", err, "retry", pause)
			time.Sleep(pause)
		}
	}
}

func isTemporary(err error) bool {
	var temporary interface{ Temporary() bool }
	return errors.As(err, &temporary) && temporary.Temporary()
}

func (g *Gateway) track(l net.Listener) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closing.Load() {
		return false
	}
	if len(g.listeners) == 0 {
		g.startH2()
	}
	g.listeners[l] = struct{}{}
	return true
}

func (g *Gateway) untrack(l net.Listener) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.listeners, l)
}

// admit starts the goroutine that serves a connection. What it becomes ends with the connection, and Shutdown waits for it.
func (g *Gateway) admit(accepted net.Conn) {
	crowded := g.count.Add(1) > int64(g.MaxConnections)
	g.metrics.connections.Inc()
	c := newConn(g, accepted)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closing.Load() || crowded && len(g.conns) >= g.MaxConnections+turningAway {
		accepted.Close()
		g.gone()
		return
	}
	g.conns[c] = struct{}{}
	g.work.Add(1)
	if crowded {
		go c.turnAway()
	} else {
		go c.serve()
	}
}

// turningAway is how many connections over the limit get a proper answer at a time.
const turningAway = 100

// gone counts a client connection that was closed.
func (g *Gateway) gone() {
	g.count.Add(-1)
	g.metrics.connections.Dec()
}

func (g *Gateway) forget(c *conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.conns, c)
}

// Shutdown stops accepting, ends streams that wait for events (a WebSocket with 1012) and idle connections, and waits for
// the exchanges under way. When ctx ends it cuts those that are left and returns ctx's error. It returns when no goroutine
// of the gateway is left. Only the first call counts; a later one waits for it.
func (g *Gateway) Shutdown(ctx context.Context) error {
	g.shutOnce.Do(func() { g.shutErr = g.shutdown(ctx) })
	return g.shutErr
}

func (g *Gateway) shutdown(ctx context.Context) error {
	conns := g.shut()
	for _, c := range conns {
		c.interruptIdle()
	}
	g.rounds.endAll(closeRestart)

	done := make(chan struct{})
	go func() { // ends when everything has, which the cut below sees to; waited for below
		defer close(done)
		g.h2.Shutdown(ctx)
		g.h2work.close()
		g.work.Wait()
	}()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = ctx.Err()
		for _, c := range g.open() {
			c.kill()
		}
		g.h2.Close()
		<-done
	}
	g.h2conns.Close()
	g.environments.close()
	g.rounds.wait()
	g.poller.Close()
	return err
}

func (g *Gateway) shut() []*conn {
	g.mu.Lock()
	g.closing.Store(true)
	for l := range g.listeners {
		l.Close()
	}
	g.mu.Unlock()
	return g.open()
}

func (g *Gateway) open() []*conn {
	g.mu.Lock()
	defer g.mu.Unlock()
	open := make([]*conn, 0, len(g.conns))
	for c := range g.conns {
		open = append(open, c)
	}
	return open
}
