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
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

func TestEventsArriveAtOnce(t *testing.T) {
	next := make(chan string)
	d := openHandler(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		w.WriteHeader(200)
		control := http.NewResponseController(w)
		control.Flush()
		for text := range next {
			fmt.Fprintf(w, "data: %s\n\n", text)
			control.Flush()
		}
	})
	request := newRequest(t, "GET", "http://app.test/events", nil)
	request.Header.Set("Accept", "text/event-stream")
	answer, err := d.client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if !d.fleet.wants.Load().Stream {
		t.Error("the fleet was not told that it will be a stream")
	}
	d.env.awaitCounts(t, counts{Streams: 1})
	in := bufio.NewReader(answer.Body)
	for i := range 10 {
		next <- fmt.Sprint(i)
		got, err := in.ReadString('\n')
		if got != fmt.Sprintf("data: %d\n", i) || err != nil {
			t.Fatalf("event is %q, %v", got, err)
		}
		in.ReadString('\n')
	}
	close(next)
	if rest, err := io.ReadAll(in); len(rest) > 0 || err != nil {
		t.Errorf("at the end came %q, %v", rest, err)
	}
	d.env.awaitCounts(t, counts{})
	if d.env.moved == 0 {
		t.Error("the fleet was not told that data moved")
	}
}

func TestALongAnswerBecomesAStream(t *testing.T) {
	finish := make(chan struct{})
	d := openHandler(t, Config{StreamAfter: 30 * time.Millisecond}, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "begin ")
		http.NewResponseController(w).Flush()
		<-finish
		io.WriteString(w, "end")
	})
	answer, err := d.client().Get("http://app.test/")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	d.env.awaitCounts(t, counts{Streams: 1})
	close(finish)
	if body, err := io.ReadAll(answer.Body); string(body) != "begin end" || err != nil {
		t.Errorf("body is %q, %v", body, err)
	}
}

func TestEventClientThatLeavesIsToldToASleepingApp(t *testing.T) {
	cancelled := make(chan struct{})
	d := openHandler(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
		close(cancelled)
	})
	c := d.dial().send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n")
	c.head()
	d.env.awaitCounts(t, counts{Streams: 1})
	d.env.pause()
	c.Close()
	eventually(t, func() error {
		if !slices.Contains(d.env.reasons(), "client left") {
			return errors.New("the environment was not woken")
		}
		return nil
	})
	select {
	case <-cancelled:
		t.Fatal("the app heard of it while it slept")
	default:
	}
	d.env.resume()
	<-cancelled
	d.env.awaitCounts(t, counts{})
}

func TestEventsAreCutWhenTheEnvironmentCloses(t *testing.T) {
	d := openHandler(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	c := d.dial().send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n")
	c.head()
	d.env.awaitCounts(t, counts{Streams: 1})
	close(d.env.closing)
	if rest, _ := c.rest(); rest != "" {
		t.Errorf("then came %q, which may look like an end", rest)
	}
}

// echo is a WebSocket app.
func echo(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionContextTakeover})
	if err != nil {
		return
	}
	defer conn.CloseNow()
	conn.SetReadLimit(-1)
	for {
		kind, message, err := conn.Read(r.Context())
		if err != nil {
			return
		}
		if conn.Write(r.Context(), kind, message) != nil {
			return
		}
	}
}

func (d *door) webSocket(path string) *websocket.Conn {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, answer, err := websocket.Dial(ctx, "ws://app.test"+path, &websocket.DialOptions{HTTPClient: d.client()})
	if err != nil {
		d.t.Fatal(err)
	}
	if answer.Header.Get("Lull-Environment") != "env-1" {
		d.t.Errorf("the handshake's headers are %v", answer.Header)
	}
	conn.SetReadLimit(-1)
	d.t.Cleanup(func() { conn.CloseNow() })
	return conn
}

func say(t testing.TB, conn *websocket.Conn, message []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := conn.Write(ctx, websocket.MessageBinary, message); err != nil {
		t.Fatal(err)
	}
	_, got, err := conn.Read(ctx)
	if err != nil || !bytes.Equal(got, message) {
		t.Fatalf("%d bytes came back as %d, %v", len(message), len(got), err)
	}
}

func TestWebSocketEcho(t *testing.T) {
	d := openHandler(t, Config{}, echo)
	conn := d.webSocket("/chat")
	d.env.awaitCounts(t, counts{Streams: 1})
	if !d.fleet.wants.Load().Stream {
		t.Error("the fleet was not told that it will be a stream")
	}
	for _, size := range []int{0, 1, 125, 126, 4096, 65535, 65536, 5_000_000} {
		say(t, conn, bytes.Repeat([]byte{byte(size)}, size))
	}
	if err := conn.Close(websocket.StatusNormalClosure, "bye"); err != nil {
		t.Errorf("close: %v", err)
	}
	d.env.awaitCounts(t, counts{})
}

func TestWebSocketWakesASleepingEnvironment(t *testing.T) {
	d := openHandler(t, Config{}, echo)
	conn := d.webSocket("/")
	say(t, conn, []byte("one"))
	d.env.awaitCounts(t, counts{Streams: 1})
	d.env.pause()
	go func() {
		eventually(t, func() error {
			if n := len(d.env.reasons()); n < 2 {
				return fmt.Errorf("%d holds", n)
			}
			return nil
		})
		d.env.resume()
	}()
	say(t, conn, []byte("two"))
	if got := d.env.reasons(); got[0] != "websocket data" {
		t.Errorf("held for %q", got)
	}
	conn.CloseNow()
	d.env.awaitCounts(t, counts{})
}

func TestWebSocketIsClosedProperly(t *testing.T) {
	for _, test := range []struct {
		name string
		end  func(d *door)
		want websocket.StatusCode
	}{
		{"environment closes", func(d *door) { close(d.env.closing) }, 1001},
		{"node shuts down", func(d *door) { go d.Shutdown(context.Background()) }, 1012},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := openHandler(t, Config{}, echo)
			conn := d.webSocket("/")
			say(t, conn, []byte("one"))
			test.end(d)
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			_, _, err := conn.Read(ctx)
			if got := websocket.CloseStatus(err); got != test.want {
				t.Errorf("read ended with %v, want code %d", err, test.want)
			}
			d.env.awaitCounts(t, counts{})
		})
	}
}

// TestCloseFrameOnlyBetweenFrames: the environment closes in the middle of a frame. The rest of it is waited for; the
// close frame comes after it.
func TestCloseFrameOnlyBetweenFrames(t *testing.T) {
	for _, rest := range []string{"lo", ""} {
		finish := make(chan struct{})
		d := openRaw(t, Config{}, func(conn net.Conn, in *bufio.Reader) {
			http.ReadRequest(in)
			io.WriteString(conn, "HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\n\r\n\x81\x05hel")
			<-finish
			io.WriteString(conn, rest)
			io.Copy(io.Discard, in)
		})
		c := d.dial().send("GET / HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		c.head()
		if got := c.take(5); got != "\x81\x05hel" {
			t.Errorf("first came %q", got)
		}
		close(d.env.closing)
		eventually(t, func() error {
			d.rounds.mu.Lock()
			defer d.rounds.mu.Unlock()
			for _, s := range d.rounds.members {
				if !s.asked {
					return errors.New("not asked to end yet")
				}
			}
			return nil
		})
		close(finish)
		want := ""
		if rest != "" {
			want = rest + "\x88\x02\x03\xe9"
		}
		if got, err := c.rest(); got != want || err != nil {
			t.Errorf("then came %q, %v, want %q", got, err, want)
		}
	}
}

// upgrade is an app that changes to a protocol of its own and then runs serve.
func upgrade(serve func(conn net.Conn, in *bufio.Reader)) func(conn net.Conn, in *bufio.Reader) {
	return func(conn net.Conn, in *bufio.Reader) {
		request, err := http.ReadRequest(in)
		if err != nil || request.Header.Get("Upgrade") != "thing" {
			return
		}
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: thing\r\nX: y\r\n\r\nearly")
		serve(conn, in)
	}
}

const askForThing = "GET / HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: thing\r\n\r\n"

func TestAnyUpgradeWithHalfClose(t *testing.T) {
	d := openRaw(t, Config{}, upgrade(func(conn net.Conn, in *bufio.Reader) {
		all, _ := io.ReadAll(in) // until the client has closed its half
		fmt.Fprintf(conn, " got %d", len(all))
	}))
	c := d.dial().send(askForThing + "also early") // before the answer
	if got := c.head(); !strings.Contains(got, "Connection: Upgrade\r\nUpgrade: thing\r\n") || !strings.Contains(got, "X: y\r\n") {
		t.Errorf("head is %q", got)
	}
	d.env.awaitCounts(t, counts{Streams: 1})
	io.Copy(c.Conn, &endless{1 << 20})
	c.Conn.(*net.TCPConn).CloseWrite()
	if got, err := c.rest(); got != "early got 1048586" || err != nil {
		t.Errorf("came back %q, %v", got, err)
	}
	d.env.awaitCounts(t, counts{})
}

func TestAppThatClosesItsHalfStillHears(t *testing.T) {
	heard := make(chan string, 1)
	d := openRaw(t, Config{}, upgrade(func(conn net.Conn, in *bufio.Reader) {
		conn.(*net.TCPConn).CloseWrite()
		all, _ := io.ReadAll(in)
		heard <- string(all)
	}))
	c := d.dial().send(askForThing)
	c.head()
	if got, err := c.rest(); got != "early" || err != nil {
		t.Errorf("came %q, %v", got, err)
	}
	c.send("still here")
	c.Close()
	if got := <-heard; got != "still here" {
		t.Errorf("the app heard %q", got)
	}
}

func TestAHalfClosedTunnelDoesNotLastForEver(t *testing.T) {
	d := openRaw(t, Config{LingerTimeout: 50 * time.Millisecond}, upgrade(func(conn net.Conn, in *bufio.Reader) {
		conn.(*net.TCPConn).CloseWrite()
		io.Copy(io.Discard, in)
	}))
	c := d.dial().send(askForThing)
	c.head()
	d.env.awaitCounts(t, counts{})
}

func TestTunnelHasBackPressure(t *testing.T) {
	read := make(chan struct{})
	d := openRaw(t, Config{}, upgrade(func(conn net.Conn, in *bufio.Reader) {
		<-read
		n, _ := io.Copy(io.Discard, in)
		fmt.Fprintf(conn, " %d", n)
	}))
	c := d.dial().send(askForThing)
	c.head()
	sent := make(chan error, 1)
	grown := watchHeap()
	go func() {
		_, err := io.Copy(c.Conn, &endless{64 << 20})
		c.Conn.(*net.TCPConn).CloseWrite()
		sent <- err
	}()
	d.env.awaitCounts(t, counts{Streams: 1, Holds: 1}) // it is stuck in the write to the app
	select {
	case <-sent:
		t.Error("64 MB went to an app that does not read")
	default:
	}
	close(read)
	if got, err := c.rest(); got != "early 67108864" || err != nil {
		t.Errorf("came %q, %v", got, err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if heap := grown(); heap > 8<<20 {
		t.Errorf("the heap grew by %d KB", heap>>10)
	}
}

func TestUnaskedUpgradeIsRefused(t *testing.T) {
	d := openRaw(t, Config{}, func(conn net.Conn, in *bufio.Reader) {
		http.ReadRequest(in)
		io.WriteString(conn, "HTTP/1.1 101 Surprise\r\nConnection: upgrade\r\nUpgrade: thing\r\n\r\n")
	})
	answer, _ := d.get(d.client(), "http://app.test/")
	if answer.StatusCode != 502 || answer.Header.Get("Lull-Error") != "refused" {
		t.Errorf("answer is %v", answer)
	}
}
