package gateway

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/lull-dev/lull/fleet"
	"github.com/lull-dev/lull/gateway/http1"
	"github.com/lull-dev/lull/gateway/wire"
)

// prefaceHead is how an HTTP/2 connection begins, as far as it looks like a head.
const prefaceHead = "PRI * HTTP/2.0\r\n\r\n"

// newH2 returns the server that speaks HTTP/2 in clear text on connections that conns hands over, and nothing else.
func newH2(g *Gateway) (*http.Server, *handover) {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler:        http.HandlerFunc(g.serveH2),
		Protocols:      protocols,
		IdleTimeout:    g.IdleTimeout,
		MaxHeaderBytes: g.MaxHead,
		ErrorLog:       slog.NewLogLogger(g.Log.Handler(), slog.LevelDebug),
	}, &handover{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// startH2 starts the goroutine that takes handed connections; it ends when Shutdown closes the server.
func (g *Gateway) startH2() {
	g.h2once.Do(func() { g.work.Go(func() { g.h2.Serve(g.h2conns) }) })
}

// handover is a listener whose connections were accepted elsewhere.
type handover struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (h *handover) Accept() (net.Conn, error) {
	select {
	case conn := <-h.conns:
		return conn, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

func (h *handover) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

func (h *handover) Addr() net.Addr { return &net.TCPAddr{} }

// gate counts those inside and can be closed behind the last. A WaitGroup would not do: the server starts handlers when it
// likes.
type gate struct {
	mu     sync.Mutex
	inside int
	empty  chan struct{} // made by close, closed when nobody is inside
}

func (g *gate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.empty != nil {
		return false
	}
	g.inside++
	return true
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	if g.inside == 0 && g.empty != nil {
		close(g.empty)
	}
}

// close lets nobody in any more and waits for those inside. It is called once.
func (g *gate) close() {
	g.mu.Lock()
	g.empty = make(chan struct{})
	if g.inside == 0 {
		close(g.empty)
	}
	g.mu.Unlock()
	<-g.empty
}

// handToH2 gives the connection away, with what was read from it.
func (c *conn) handToH2() {
	early := slices.Clone(c.in.Buffered())
	c.in.Close()
	c.conn.SetReadDeadline(time.Time{})
	c.gone = true
	handed := &h2conn{Conn: c.conn.Conn, early: early, gone: sync.OnceFunc(c.g.gone)}
	select {
	case c.g.h2conns.conns <- handed:
	case <-c.g.h2conns.closed:
		handed.Close()
	}
}

// h2conn is a connection whose first bytes were read before, and which is counted until it is closed.
type h2conn struct {
	net.Conn
	early []byte
	gone  func()
}

func (c *h2conn) Read(p []byte) (int, error) {
	if len(c.early) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.early)
	c.early = c.early[n:]
	return n, nil
}

func (c *h2conn) Close() error {
	defer c.gone()
	return c.Conn.Close()
}

// stream2 is one HTTP/2 request. It implements client and source.
type stream2 struct {
	g       *Gateway
	w       http.ResponseWriter
	r       *http.Request
	control *http.ResponseController
	loan    wire.Loan
	err     error
	trailer []http1.Field
	stop    func() bool // of the watch
	stopped chan struct{}
}

// serveH2 brings the request into the form of HTTP/1 and from there on the way of all others.
func (g *Gateway) serveH2(w http.ResponseWriter, r *http.Request) {
	if !g.h2work.enter() {
		panic(http.ErrAbortHandler)
	}
	defer g.h2work.leave()
	s := &stream2{g: g, w: w, r: r, control: http.NewResponseController(w)}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	x := &exchange{g: g, from: s, source: s, ctx: ctx, cancel: cancel}
	x.sender = newSender(addr(r.RemoteAddr), g.TrustForwarded)
	defer s.loan.Reclaim()

	err := x.req.Parse(appendHead2(nil, r))
	if err == nil {
		x.prepare()
		err = x.run()
	}
	switch {
	case err == nil:
	case x.begun || errors.Is(err, errClientGone):
		panic(http.ErrAbortHandler)
	default:
		s.fail(x, err)
	}
}

type addr string

func (a addr) Network() string { return "tcp" }
func (a addr) String() string  { return string(a) }

// appendHead2 writes a request as an HTTP/1 head, which is then parsed as strictly as if it had come that way.
func appendHead2(dst []byte, r *http.Request) []byte {
	dst = append(dst, r.Method+" "+r.RequestURI+" HTTP/1.1\r\n"...)
	add := func(key, value string) { dst = http1.AppendField(dst, []byte(key), []byte(value)) }
	add("Host", r.Host)
	for key, values := range r.Header {
		switch key {
		case "Host", "Content-Length", "Transfer-Encoding", "Connection", "Upgrade", "Expect":
			continue
		}
		for _, value := range values {
			add(key, value)
		}
	}
	switch {
	case r.ContentLength > 0:
		add("Content-Length", strconv.FormatInt(r.ContentLength, 10))
	case r.ContentLength < 0:
		add("Transfer-Encoding", "chunked")
	}
	if len(r.Trailer) > 0 {
		names := make([]string, 0, len(r.Trailer))
		for name := range r.Trailer {
			names = append(names, name)
		}
		slices.Sort(names)
		add("Trailer", strings.Join(names, ", "))
	}
	return append(dst, "\r\n"...)
}

func (s *stream2) fail(x *exchange, err error) {
	f := failureOf(err)
	s.g.metrics.failed(f.kind)
	s.g.logFailure(f, err)
	contentType, body := f.body(x.page)
	header := s.w.Header()
	f.headers(x.place, s.g.QuietHeaders, header.Set)
	header.Set("Content-Type", contentType)
	header.Set("Content-Length", strconv.Itoa(len(body)))
	s.w.WriteHeader(f.status)
	if !x.isHead {
		s.w.Write(body)
	}
}

// What follows implements source.

func (s *stream2) ReadTo(to wire.Lender) (int, error) {
	n, err := s.r.Body.Read(to.Lend())
	if err != io.EOF {
		return n, err
	}
	for key, values := range s.r.Trailer {
		for _, value := range values {
			s.trailer = append(s.trailer, http1.Field{Key: []byte(key), Value: []byte(value)})
		}
	}
	return n, io.EOF
}

func (s *stream2) ReadBuffered(wire.Lender) (int, error) { return 0, nil }
func (s *stream2) Trailer() []http1.Field                { return s.trailer }

// What follows implements client.

func (s *stream2) begin(a answer) {
	header := s.w.Header()
	header["Date"], header["Content-Type"] = nil, nil // not to be made up
	for i := range a.resp.Fields {
		if f := &a.resp.Fields[i]; forwarded(f) {
			header.Add(string(f.Key), string(f.Value))
		}
	}
	if a.resp.Declared >= 0 && a.resp.Status != 204 {
		header.Set("Content-Length", strconv.FormatInt(a.resp.Declared, 10))
	}
	if a.cookie != "" {
		header.Add("Set-Cookie", a.cookie)
	}
	if a.place != nil {
		header.Set("Lull-Environment", a.place.Environment())
		header.Add("Server-Timing", string(appendTiming(nil, a.place)))
	}
	if a.resp.Declared > wire.Small {
		s.loan.Size = int(min(a.resp.Declared, wire.Large))
	}
	s.w.WriteHeader(a.resp.Status)
}

func (s *stream2) Lend() []byte { return s.loan.Lend() }
func (s *stream2) Reclaim()     { s.loan.Reclaim() }

func (s *stream2) Commit(n int) {
	if n > 0 && s.err == nil {
		s.control.SetWriteDeadline(time.Now().Add(s.g.WriteTimeout))
		_, s.err = s.w.Write(s.loan.Bytes(n))
	}
}

func (s *stream2) End(trailer []http1.Field) {
	for i := range trailer {
		s.w.Header().Add(http.TrailerPrefix+string(trailer[i].Key), string(trailer[i].Value))
	}
}

func (s *stream2) Flush() error {
	if s.err == nil {
		s.control.SetWriteDeadline(time.Now().Add(s.g.WriteTimeout))
		s.err = s.control.Flush()
	}
	return s.err
}

func (s *stream2) interim(resp *http1.Response) error {
	if resp.Status == 100 {
		return nil // the server says it when the body is read
	}
	header := s.w.Header()
	for i := range resp.Fields {
		if f := &resp.Fields[i]; forwarded(f) {
			header.Add(string(f.Key), string(f.Value))
		}
	}
	s.w.WriteHeader(resp.Status)
	clear(header)
	return nil
}

func (s *stream2) readWithin(d time.Duration) {
	deadline := time.Time{}
	if d > 0 {
		deadline = time.Now().Add(d)
	}
	s.control.SetReadDeadline(deadline)
}

func (s *stream2) interrupt() { s.r.Body.Close() }

func (s *stream2) watch(x *exchange) {
	stopped := make(chan struct{})
	s.stopped = stopped
	s.stop = context.AfterFunc(s.r.Context(), func() {
		defer close(stopped)
		x.clientGone()
	})
}

func (s *stream2) handOver()  {}
func (s *stream2) watchHere() {}

func (s *stream2) unwatch() {
	if s.stop != nil && !s.stop() {
		<-s.stopped
	}
	s.stop = nil
}

func (s *stream2) takeStream(*exchange, *link, fleet.Stream) bool { return false }

func (s *stream2) upgrade(*exchange, *link) error { return http1.ErrUpgrade }
