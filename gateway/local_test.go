package gateway

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/fleet"
)

// openLocal starts a gateway in front of a handler in this process.
func openLocal(t testing.TB, config Config, handler http.HandlerFunc) (*door, *Local) {
	t.Helper()
	local := NewLocal("env-1", handler, nil)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := local.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	d := open(t, config, func(context.Context) (net.Conn, error) { return nil, errors.New("not dialled") })
	d.apps.fleet = local
	return d, local
}

func (l *Local) left() (claims, conns int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.claims, len(l.conns)
}

func (l *Local) awaitNoClaims(t testing.TB) {
	t.Helper()
	eventually(t, func() error {
		if claims, _ := l.left(); claims != 0 {
			return fmt.Errorf("%d claims", claims)
		}
		return nil
	})
}

func TestLocalCarriesBodiesBothWays(t *testing.T) {
	d, local := openLocal(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		w.Header().Set("X-For", r.Header.Get("X-Forwarded-For"))
		io.Copy(w, r.Body)
	})
	for name, client := range map[string]*http.Client{"HTTP/1": d.client(), "HTTP/2": d.client2()} {
		for _, size := range []int{0, 10, 100_000, 20 << 20} {
			sent := bytes.Repeat([]byte("0123456789"), size/10)
			answer, body := d.do(client, newRequest(t, "POST", "http://app.test/", bytes.NewReader(sent)))
			if answer.StatusCode != 200 || body != string(sent) || answer.Header.Get("X-For") != "127.0.0.1" {
				t.Errorf("%s, %d bytes: %v, %d bytes back", name, size, answer, len(body))
			}
			if got := answer.Header.Get("Lull-Environment"); got != "env-1" {
				t.Errorf("environment is %q", got)
			}
		}
	}
	local.awaitNoClaims(t)
}

func TestLocalAsksForTheBody(t *testing.T) {
	d, _ := openLocal(t, Config{ExpectTimeout: time.Minute}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		io.Copy(w, r.Body)
	})
	c := d.dial().send("PUT / HTTP/1.1\r\nHost: app.test\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
	if got := c.head(); !strings.HasPrefix(got, "HTTP/1.1 100") {
		t.Fatalf("came %q", got)
	}
	c.send("hi")
	if c.head(); c.take(2) != "hi" {
		t.Error("the body did not come back")
	}
	c = d.dial().send("PUT /no HTTP/1.1\r\nHost: app.test\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
	if got := c.head(); !strings.HasPrefix(got, "HTTP/1.1 403") {
		t.Errorf("came %q", got)
	}
}

// TestLocalWebSocketIsParked: what is quiet has no goroutine in the gateway, and wakes up again.
func TestLocalWebSocketIsParked(t *testing.T) {
	d, local := openLocal(t, Config{}, echo)
	conn := d.webSocket("/")
	conn.SetReadLimit(-1)
	for _, size := range []int{0, 5, 1 << 20} {
		say(t, conn, bytes.Repeat([]byte("x"), size))
	}
	d.awaitParked()
	say(t, conn, []byte("again"))
	ctx, cancel := context.WithTimeout(conn.CloseRead(context.Background()), 10*time.Second)
	defer cancel()
	if err := conn.Ping(ctx); err != nil {
		t.Error(err)
	}
	conn.Close(websocket.StatusNormalClosure, "")
	local.awaitNoClaims(t)
}

func TestLocalCloseCodes(t *testing.T) {
	codes := make(chan websocket.StatusCode, 1)
	d, local := openLocal(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		if r.URL.Path == "/closes" {
			conn.Close(4001, "enough")
			return
		}
		_, _, err = conn.Read(r.Context())
		codes <- websocket.CloseStatus(err)
	})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, _, err := d.webSocket("/closes").Read(ctx); websocket.CloseStatus(err) != 4001 {
		t.Errorf("the client hears %v", err)
	}
	d.webSocket("/").Close(4002, "bye")
	if code := <-codes; code != 4002 {
		t.Errorf("the handler hears %d", code)
	}
	local.awaitNoClaims(t)
}

func TestLocalCloseEndsStreamsAndLetsExchangesFinish(t *testing.T) {
	before := runtime.NumGoroutine()
	asked, finish := make(chan struct{}), make(chan struct{})
	d, local := openLocal(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ws":
			echo(w, r)
		case "/events":
			w.Header().Set("Content-Type", "text/event-stream")
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
		default:
			close(asked)
			<-finish
			io.WriteString(w, "done")
		}
	})
	conn := d.webSocket("/ws")
	say(t, conn, []byte("one"))
	events := d.dial().send("GET /events HTTP/1.1\r\nHost: app.test\r\n\r\n")
	events.head()
	slow := d.dial().send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n")
	<-asked
	closed := make(chan error, 1)
	go func() { closed <- local.Close(context.Background()) }()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, _, err := conn.Read(ctx); websocket.CloseStatus(err) != 1001 {
		t.Errorf("the client hears %v", err)
	}
	events.rest() // ends
	if _, err := local.Acquire(ctx, fleet.Want{}); lull.KindOf(err) != lull.KindDraining {
		t.Errorf("a place after the end: %v", err)
	}
	select {
	case err := <-closed:
		t.Fatalf("closed with an exchange under way: %v", err)
	default:
	}
	close(finish)
	slow.head()
	if got := slow.take(4); got != "done" {
		t.Errorf("came %q", got)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if claims, conns := local.left(); claims != 0 || conns != 0 {
		t.Errorf("%d claims, %d connections are left", claims, conns)
	}
	conn.CloseNow()
	slow.Close()
	d.Shutdown(ctx)
	eventually(t, func() error {
		if n := runtime.NumGoroutine(); n > before+4 { // the client's
			return fmt.Errorf("%d goroutines, %d before", n, before)
		}
		return nil
	})
}

func TestLocalCloseInAHurry(t *testing.T) {
	local := NewLocal("local-1", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hijack" {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\n\r\n")
			io.Copy(io.Discard, conn)
		}
		<-r.Context().Done()
	}), nil)
	for _, path := range []string{"/", "/hijack"} {
		place, err := local.Acquire(t.Context(), fleet.Want{})
		if err != nil {
			t.Fatal(err)
		}
		conn, err := place.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: app.test\r\n\r\n", path)
		if path == "/hijack" {
			bufio.NewReader(conn).ReadString('\n')
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := local.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("close: %v", err)
	}
}

func TestLocalReplace(t *testing.T) {
	say := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, text) }
	}
	d, local := openLocal(t, Config{}, say("old"))
	client := d.client()
	if _, body := d.get(client, "http://app.test/"); body != "old" {
		t.Errorf("came %q", body)
	}
	local.Replace(say("new"))
	if _, body := d.get(client, "http://app.test/"); body != "new" {
		t.Errorf("came %q", body)
	}
}

func TestLocalPanicCostsOneExchange(t *testing.T) {
	d, local := openLocal(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/panic" {
			panic("oops")
		}
	})
	if answer, _ := d.get(d.client(), "http://app.test/panic"); answer.StatusCode != http.StatusBadGateway {
		t.Errorf("answer is %v", answer)
	}
	if answer, _ := d.get(d.client(), "http://app.test/"); answer.StatusCode != http.StatusOK {
		t.Errorf("answer is %v", answer)
	}
	local.awaitNoClaims(t)
}

// TestLocalSetsThePace: a client that reads nothing stops the handler.
func TestLocalSetsThePace(t *testing.T) {
	written := make(chan int, 1)
	d, local := openLocal(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		total, piece := 0, make([]byte, 64<<10)
		for range 1000 {
			http.NewResponseController(w).SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
			n, err := w.Write(piece)
			total += n
			if err != nil {
				break
			}
		}
		written <- total
	})
	c := d.dial().send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n")
	if total := <-written; total > 32<<20 {
		t.Errorf("%d bytes were taken from the handler", total)
	}
	c.Close()
	local.awaitNoClaims(t)
}
