package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/fleet"
)

// Local is a Fleet of one environment that is this very process: what the gateway sends it goes to an http.Handler. It is
// for what needs no sandbox (files that are served as they are) or is the node's own. It never sleeps.
//
// A link to it is a pair of sockets, so that the gateway treats it like any other: a quiet stream is parked with the
// poller, the slower side sets the pace, and a hang-up is seen. Handlers may hijack connections. Their RemoteAddr says
// nothing; the gateway says in X-Forwarded-For who asks.
//
// A place or stream keeps Close waiting until it is given back.
type Local struct {
	id       string
	server   *http.Server
	listener *handover
	handler  atomic.Pointer[http.Handler]
	served   chan struct{} // closed when the server's goroutine has ended
	cancel   context.CancelFunc
	handlers gate // handlers under way, hijacked connections among them

	closing   chan struct{} // closed by Close, at its begin
	done      chan struct{} // and at its end
	awake     time.Time
	closeOnce sync.Once
	closeErr  error

	mu     sync.Mutex // guards what follows
	shut   bool
	claims int           // places and streams that were not given back
	free   chan struct{} // closed when there are none and shut
	conns  map[*localConn]struct{}
}

// NewLocal starts serving handler to those who have a place; Close ends it. The name is the environment's id.
func NewLocal(name string, handler http.Handler, log *slog.Logger) *Local {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &Local{
		id:       name,
		listener: &handover{conns: make(chan net.Conn), closed: make(chan struct{})},
		served:   make(chan struct{}),
		cancel:   cancel,
		closing:  make(chan struct{}),
		done:     make(chan struct{}),
		awake:    time.Now(),
		free:     make(chan struct{}),
		conns:    map[*localConn]struct{}{},
	}
	l.handler.Store(&handler)
	l.server = &http.Server{
		Handler:           http.HandlerFunc(l.serve),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: 30 * time.Second, // the gateway sends a head in one piece
		ErrorLog:          slog.NewLogLogger(log.With("local", name).Handler(), slog.LevelWarn),
	}
	go func() { // ends when Close shuts the server, and Close waits
		defer close(l.served)
		l.server.Serve(l.listener)
	}()
	return l
}

// Replace makes requests that come from now on go to another handler. Those under way, and streams, stay where they are.
func (l *Local) Replace(handler http.Handler) { l.handler.Store(&handler) }

func (l *Local) serve(w http.ResponseWriter, r *http.Request) {
	if !l.handlers.enter() {
		panic(http.ErrAbortHandler) // everything was cut
	}
	defer l.handlers.leave()
	(*l.handler.Load()).ServeHTTP(w, r)
}

var errLocalClosed = &lull.Error{Kind: lull.KindDraining, Message: "The app is going away."}

// Acquire implements Fleet. It never waits.
func (l *Local) Acquire(ctx context.Context, want fleet.Want) (fleet.Place, error) {
	if !l.claim(false) {
		return nil, errLocalClosed
	}
	return &localPlace{local: l}, nil
}

// claim takes a share in the environment; late allows it after Close has begun, to those who have one already.
func (l *Local) claim(late bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.shut && !late {
		return false
	}
	l.claims++
	return true
}

func (l *Local) giveBack() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.claims--
	l.checkFree()
}

// checkFree is called under mu. A claim made late may come after the last one was given back: it is too late then.
func (l *Local) checkFree() {
	if !l.shut || l.claims > 0 {
		return
	}
	select {
	case <-l.free:
	default:
		close(l.free)
	}
}

// Close gives no more places, asks streams to end (a WebSocket with 1001) and waits for the exchanges under way. When ctx
// ends it cuts those that are left and returns ctx's error. It returns when no handler runs any more: one that goes on
// after its request's context has ended and its connection was cut keeps it waiting. Only the first call counts; a later
// one waits for it.
func (l *Local) Close(ctx context.Context) error {
	l.closeOnce.Do(func() { l.closeErr = l.close(ctx) })
	return l.closeErr
}

func (l *Local) close(ctx context.Context) error {
	l.mu.Lock()
	l.shut = true
	l.checkFree()
	l.mu.Unlock()
	close(l.closing)

	empty := make(chan struct{})
	go func() { // ends when all handlers have, which the cut below sees to; waited for below
		defer close(empty)
		select {
		case <-l.free:
		case <-ctx.Done():
		}
		l.listener.Close()
		l.server.Shutdown(ctx)
		l.handlers.close()
	}()
	var err error
	select {
	case <-empty:
	case <-ctx.Done():
		err = ctx.Err()
	}
	l.cancel()
	l.server.Close()
	l.cut()
	<-empty
	<-l.served
	close(l.done)
	return err
}

// cut closes every connection, those that were hijacked too.
func (l *Local) cut() {
	l.mu.Lock()
	left := make([]*localConn, 0, len(l.conns))
	for c := range l.conns {
		left = append(left, c)
	}
	l.mu.Unlock()
	for _, c := range left {
		c.Close()
	}
}

// dial makes a pair of sockets and gives one of them to the server.
func (l *Local) dial(ctx context.Context) (net.Conn, error) {
	near, far, err := socketPair()
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", l.id, err)
	}
	served := &localConn{UnixConn: far, local: l}
	l.mu.Lock()
	l.conns[served] = struct{}{}
	l.mu.Unlock()
	select {
	case l.listener.conns <- served:
		return near, nil
	case <-l.listener.closed:
		err = net.ErrClosed
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	near.Close()
	served.Close()
	return nil, err
}

// localConn is the server's end of a link.
type localConn struct {
	*net.UnixConn
	local *Local
}

// Close implements net.Conn.
func (c *localConn) Close() error {
	c.local.mu.Lock()
	delete(c.local.conns, c)
	c.local.mu.Unlock()
	return c.UnixConn.Close()
}

func socketPair() (near, far *net.UnixConn, err error) {
	syscall.ForkLock.RLock()
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(pair[0])
		syscall.CloseOnExec(pair[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	near, nearErr := unixConn(pair[0])
	far, farErr := unixConn(pair[1])
	if err := errors.Join(nearErr, farErr); err != nil {
		for _, conn := range []*net.UnixConn{near, far} {
			if conn != nil {
				conn.Close()
			}
		}
		return nil, nil, err
	}
	return near, far, nil
}

// unixConn takes a descriptor over, whatever it returns.
func unixConn(fd int) (*net.UnixConn, error) {
	file := os.NewFile(uintptr(fd), "local")
	defer file.Close() // FileConn has one of its own
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}

// localPlace is one exchange's claim on a Local.
type localPlace struct {
	local *Local
	free  sync.Once
}

func (p *localPlace) Environment() string   { return p.local.id }
func (p *localPlace) Release() lull.Release { return lull.Release{App: p.local.id} }
func (p *localPlace) How() fleet.How        { return fleet.Warm }
func (p *localPlace) Waited() time.Duration { return 0 }
func (p *localPlace) Awake() time.Time      { return p.local.awake }
func (p *localPlace) Done() <-chan struct{} { return p.local.done }
func (p *localPlace) Err() error            { return errLocalClosed }
func (p *localPlace) Free()                 { p.free.Do(p.local.giveBack) }

func (p *localPlace) Late() {}

func (p *localPlace) Dial(ctx context.Context) (net.Conn, error) { return p.local.dial(ctx) }

func (p *localPlace) Stream() fleet.Stream {
	p.local.claim(true)
	return &localStream{local: p.local}
}

// localStream is a stream to a Local, which is always up.
type localStream struct {
	local *Local
	over  sync.Once
}

func (s *localStream) Hold(context.Context, string) (func(), error) {
	select {
	case <-s.local.done:
		return nil, errLocalClosed
	default:
		return func() {}, nil
	}
}

func (s *localStream) HoldIfUp() (func(), bool)    { return func() {}, true }
func (s *localStream) HoldIfThere() (func(), bool) { return func() {}, true }
func (s *localStream) WhenUp(do func())            { go do() }
func (s *localStream) Moved()                      {}
func (s *localStream) Unsettled(bool)              {}
func (s *localStream) Sleep() uint32               { return 0 }
func (s *localStream) Closing() <-chan struct{}    { return s.local.closing }
func (s *localStream) CloseCode() uint16           { return closeGoingAway }
func (s *localStream) Close()                      { s.over.Do(s.local.giveBack) }
