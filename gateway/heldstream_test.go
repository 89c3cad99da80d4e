package gateway

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lull-dev/lull/wsframe"
	"github.com/prometheus/client_golang/prometheus"
)

// value reads a counter or gauge.
func value(c prometheus.Collector) float64 {
	reg := prometheus.NewRegistry()
	reg.MustRegister(c)
	families, err := reg.Gather()
	if err != nil {
		panic(err)
	}
	m := families[0].Metric[0]
	return m.GetCounter().GetValue() + m.GetGauge().GetValue()
}

// awaitValue waits until a counter or gauge has a value: what happens is counted after it was seen.
func awaitValue(t testing.TB, c prometheus.Collector, want float64) {
	t.Helper()
	eventually(t, func() error {
		if got := value(c); got != want {
			return fmt.Errorf("counted %v, want %v", got, want)
		}
		return nil
	})
}

// heldStream is a WebSocket of which the test plays both ends.
type heldStream struct {
	*door
	t      *testing.T
	client *raw
	app    *raw
}

// ask is how a held stream begins.
type ask struct {
	target      string // of the client
	subprotocol string // that the app chooses
	guarded     bool   // the connection to the app is a guardedConn
}

// guardedConn fails the test if the gateway does something to a connection to an environment that sleeps. It is no socket
// to the gateway: its way is not parked.
type guardedConn struct {
	net.Conn
	t   *testing.T
	env *fakeEnvironment
}

func (c *guardedConn) check(what string) {
	c.env.mu.Lock()
	defer c.env.mu.Unlock()
	if c.env.asleep && !c.env.over() {
		c.t.Errorf("a %s while the environment sleeps", what)
	}
}

func (c *guardedConn) Write(p []byte) (int, error) {
	c.check("write")
	return c.Conn.Write(p)
}

func (c *guardedConn) Close() error {
	c.check("close")
	return c.Conn.Close()
}

func (c *guardedConn) SetLinger(seconds int) error { return c.Conn.(*net.TCPConn).SetLinger(seconds) }

func (c *guardedConn) CloseWrite() error {
	c.check("half close")
	return c.Conn.(*net.TCPConn).CloseWrite()
}

// holdStream opens a WebSocket through a gateway.
func holdStream(t *testing.T, config Config, a ask) *heldStream {
	t.Helper()
	apps := make(chan *raw, 1)
	done := make(chan struct{})
	t.Cleanup(func() { close(done) })
	d := openRaw(t, config, func(conn net.Conn, in *bufio.Reader) {
		if _, err := http.ReadRequest(in); err != nil {
			return
		}
		answer := "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
		if a.subprotocol != "" {
			answer += "Sec-WebSocket-Protocol: " + a.subprotocol + "\r\n"
		}
		io.WriteString(conn, answer+"\r\n")
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		apps <- &raw{conn, in, t}
		<-done
	})
	if a.target == "" {
		a.target = "/"
	}
	if dial := d.env.dial; a.guarded {
		d.env.dial = func(ctx context.Context) (net.Conn, error) {
			conn, err := dial(ctx)
			return &guardedConn{conn, t, d.env}, err
		}
	}
	client := d.dial().send("GET %s HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", a.target)
	client.head()
	d.env.awaitCounts(t, counts{Streams: 1})
	return &heldStream{d, t, client, <-apps}
}

var frameKinds = map[string]wsframe.Kind{"text": wsframe.Text, "binary": wsframe.Binary, "ping": wsframe.Ping,
	"pong": wsframe.Pong, "close": wsframe.Close}

// frame builds a frame from "kind:payload".
func frame(masked bool, what string) []byte {
	kind, payload, _ := strings.Cut(what, ":")
	if masked {
		return wsframe.AppendMasked(nil, frameKinds[kind], []byte(payload), [4]byte{3, 1, 4, 1})
	}
	return wsframe.Append(nil, frameKinds[kind], []byte(payload))
}

func (h *heldStream) says(what ...string) {
	h.t.Helper()
	for _, w := range what {
		h.client.send("%s", frame(true, w))
	}
}

func (h *heldStream) appSays(what ...string) {
	h.t.Helper()
	for _, w := range what {
		h.app.send("%s", frame(false, w))
	}
}

// next reads a frame and returns it as "kind:payload".
func (r *raw) next() string {
	r.t.Helper()
	var f wsframe.Follower
	for {
		b := r.take(1)
		piece, _ := f.Next([]byte(b))
		if piece.Kind == wsframe.Partial {
			continue
		}
		for name, kind := range frameKinds {
			if kind == piece.Kind && piece.Small {
				return name + ":" + string(piece.AppendPayload(nil))
			}
		}
		r.t.Fatalf("came %v", piece)
	}
}

func (h *heldStream) clientHears(want ...string) {
	h.t.Helper()
	for _, w := range want {
		if got := h.client.next(); got != w {
			h.t.Fatalf("the client heard %q, want %q", got, w)
		}
	}
}

func (h *heldStream) appHears(want ...string) {
	h.t.Helper()
	for _, w := range want {
		if got := h.app.next(); got != w {
			h.t.Fatalf("the app heard %q, want %q", got, w)
		}
	}
}

// wakes sends data that wakes the environment, and checks that the app hears it before anything else.
func (h *heldStream) wakes(what string) {
	h.t.Helper()
	before := len(h.env.reasons())
	h.says(what)
	h.awaitReason(before, "websocket data")
	h.env.resume()
	h.appHears(what)
}

func (h *heldStream) awaitReason(at int, want string) {
	h.t.Helper()
	eventually(h.t, func() error {
		got := h.env.reasons()
		if len(got) <= at || got[at] != want {
			return fmt.Errorf("held for %q, want %q at %d", got, want, at)
		}
		return nil
	})
}

func (h *heldStream) awaitSettled(want ...bool) {
	h.t.Helper()
	eventually(h.t, func() error {
		h.env.mu.Lock()
		defer h.env.mu.Unlock()
		if !slices.Equal(h.env.settled, want) {
			return fmt.Errorf("the stream said of itself: settled %v, want %v", h.env.settled, want)
		}
		return nil
	})
}

// awaitNowSettled waits until the stream is settled, or not, however often it has changed before.
func (h *heldStream) awaitNowSettled(want bool) {
	h.t.Helper()
	eventually(h.t, func() error {
		h.env.mu.Lock()
		defer h.env.mu.Unlock()
		if n := len(h.env.settled); n > 0 && h.env.settled[n-1] == want || n == 0 && want {
			return nil
		}
		return fmt.Errorf("the stream said of itself: settled %v, want %v now", h.env.settled, want)
	})
}

// sleeps lets the environment fall asleep when nothing holds it.
func (h *heldStream) sleeps() {
	h.t.Helper()
	h.env.awaitCounts(h.t, counts{Streams: 1})
	h.env.pause()
}

func (h *heldStream) notWoken() {
	h.t.Helper()
	if got := h.env.reasons(); len(got) > 0 {
		h.t.Errorf("the environment was held for %q", got)
	}
}
