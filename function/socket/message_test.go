package socket

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/coder/websocket"

	"github.com/lull-dev/lull"
)

// Messages are handed over one after the other, whatever each takes.
func TestMessagesKeepTheirOrder(t *testing.T) {
	var mu sync.Mutex
	running, order := 0, ""
	f := &function{answer: func(event events.APIGatewayWebsocketProxyRequest) (string, string, error) {
		mu.Lock()
		defer mu.Unlock()
		if running++; running > 1 {
			t.Error("two at a time")
		}
		order += event.Body
		running--
		return "", "", nil
	}}
	_, url := open(t, f, Settings{WebSocket: lull.WebSocket{Route: "$default"}})
	conn := dial(t, url, nil)
	f.next(t, "CONNECT", "$connect")
	for _, c := range "abcdefgh" {
		if err := conn.Write(t.Context(), websocket.MessageText, []byte(string(c))); err != nil {
			t.Fatal(err)
		}
	}
	for range "abcdefgh" {
		f.next(t, "MESSAGE", "$default")
	}
	mu.Lock()
	defer mu.Unlock()
	if !strings.HasPrefix("abcdefgh", order) || len(order) < 7 { // the last may be under way
		t.Errorf("order %q", order)
	}
}

func TestMessageOverTheLimit(t *testing.T) {
	f := &function{}
	_, url := open(t, f, Settings{WebSocket: lull.WebSocket{Route: "$default"}, MaxMessage: 1000})
	conn := dial(t, url, nil)
	f.next(t, "CONNECT", "$connect")
	if err := conn.Write(t.Context(), websocket.MessageText, make([]byte, 2000)); err != nil {
		t.Fatal(err)
	}
	_, _, err := conn.Read(t.Context())
	if websocket.CloseStatus(err) != websocket.StatusMessageTooBig {
		t.Errorf("closed with %v", err)
	}
	f.next(t, "DISCONNECT", "$disconnect")
}

func TestLargestMessage(t *testing.T) {
	f := &function{}
	_, url := open(t, f, Settings{WebSocket: lull.WebSocket{Route: "$default"}})
	conn := dial(t, url, nil)
	f.next(t, "CONNECT", "$connect")
	for _, size := range []int{0, smallMessage - 1, smallMessage, smallMessage + 1, int(MaxMessage)} {
		if err := conn.Write(t.Context(), websocket.MessageText, bytes.Repeat([]byte("x"), size)); err != nil {
			t.Fatal(err)
		}
		if event := f.next(t, "MESSAGE", "$default"); len(event.Body) != size {
			t.Errorf("%d bytes of %d", len(event.Body), size)
		}
	}
	if err := conn.Write(t.Context(), websocket.MessageText, make([]byte, MaxMessage+1)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := conn.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusMessageTooBig {
		t.Errorf("closed with %v", err)
	}
	f.next(t, "DISCONNECT", "$disconnect")
}

// A message that has begun must come to its end, as there is no room for others meanwhile.
func TestMessageWithoutEnd(t *testing.T) {
	f := &function{}
	const size = 100_000
	h, url := openWith(t, f, Settings{WebSocket: lull.WebSocket{Route: "$default"}, MaxMessage: size}, Config{Ping: 250 * time.Millisecond, Room: 3 * size / 2})
	for range 3 { // each takes more than half of the room
		conn := dial(t, url, nil)
		go conn.Read(t.Context()) // answers pings; ends with the connection
		f.next(t, "CONNECT", "$connect")
		w, err := conn.Writer(t.Context(), websocket.MessageBinary)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(make([]byte, size/2)); err != nil {
			t.Fatal(err)
		}
		f.next(t, "DISCONNECT", "$disconnect")
	}
	if h.Count("chat") != 0 {
		t.Errorf("%d connections", h.Count("chat"))
	}
}

// What is over the room of an app waits on the clients' side, and all of it gets its turn.
func TestRoomForMessages(t *testing.T) {
	var running, most atomic.Int64
	goOn := make(chan struct{})
	f := &function{answer: func(event events.APIGatewayWebsocketProxyRequest) (string, string, error) {
		if event.RequestContext.EventType == "MESSAGE" {
			most.Store(max(most.Load(), running.Add(1)))
			select {
			case <-goOn:
			case <-t.Context().Done():
			}
			running.Add(-1)
		}
		return "", "", nil
	}}
	const size = 100_000
	h, url := openWith(t, f, Settings{WebSocket: lull.WebSocket{Route: "$default"}, MaxMessage: size}, Config{Ping: time.Minute, Room: 3 * size})
	conns := make([]*websocket.Conn, 5)
	for i := range conns {
		conns[i] = dial(t, url, nil)
		f.next(t, "CONNECT", "$connect")
	}
	for _, conn := range conns {
		go conn.Write(t.Context(), websocket.MessageText, bytes.Repeat([]byte("x"), size)) // ends when it is read, or with the connection
	}
	h.mu.Lock()
	room := h.shares["chat"].room
	h.mu.Unlock()
	wait(t, "a client that waits for room", func() bool { // while one does nobody else gets any
		free := room.TryAcquire(1)
		if free {
			room.Release(1)
		}
		return !free
	})
	close(goOn)
	for range conns {
		f.next(t, "MESSAGE", "$default")
	}
	if most.Load() > 2 {
		t.Errorf("%d messages were there at a time", most.Load())
	}
	wait(t, "all of the room", func() bool { return room.TryAcquire(3 * size) })
	room.Release(3 * size)
}

// A function that works at a message does not keep the node from hearing the client, nor from being heard.
func TestClientLivesWhileTheFunctionWorks(t *testing.T) {
	goOn := make(chan struct{})
	_, url := openWith(t, held(t, goOn), Settings{WebSocket: lull.WebSocket{Route: "$default", Replies: true}}, Config{Ping: time.Second})
	conn, pinged := dialPinged(t, url)
	heard := make(chan string, 1)
	go func() { // ends with the reply, or the connection
		_, data, err := conn.Read(t.Context())
		heard <- fmt.Sprint(string(data), err)
	}()
	if err := conn.Write(t.Context(), websocket.MessageText, []byte("hi")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := conn.Ping(ctx); err != nil {
		t.Fatal(err)
	}
	pinged(3)
	close(goOn)
	if got := <-heard; got != "hi<nil>" {
		t.Errorf("heard %q", got)
	}
}

// A client that is ahead of the function is made to wait, and is not taken for one that has gone.
func TestClientAheadOfTheFunction(t *testing.T) {
	for name, c := range map[string]struct {
		messages, size int
		deaf           int64 // four times for each message that has its place, and when the next one waits
	}{
		"many":  {clientMessages + 3, 10, 4*(clientMessages+1) + 3},
		"large": {4, 70_000, 4*2 + 1},
	} {
		t.Run(name, func(t *testing.T) {
			goOn := make(chan struct{})
			h, url := openWith(t, held(t, goOn), Settings{WebSocket: lull.WebSocket{Route: "$default", Replies: true}, MaxMessage: 100_000}, Config{Ping: time.Second})
			conn := dial(t, url, nil)
			conn.SetReadLimit(-1)
			text := func(n int) string { return strings.Repeat(string(rune('a'+n)), c.size) }
			go func() { // ends when all is read, or with the connection
				for n := range c.messages {
					conn.Write(t.Context(), websocket.MessageText, []byte(text(n)))
				}
			}()
			replies := make(chan string, c.messages)
			go func() { // ends with the connection
				for {
					_, data, err := conn.Read(t.Context())
					if err != nil {
						close(replies)
						return
					}
					replies <- string(data)
				}
			}()
			first := h.all()[0]
			wait(t, "the point where nobody reads", func() bool { return first.deaf.Load() == c.deaf })
			other, pinged := dialPinged(t, url)
			go other.Read(t.Context()) // ends with the connection
			pinged(3)                  // the time in which the first would have been cut off
			close(goOn)
			for n := range c.messages {
				if got := <-replies; got != text(n) {
					t.Fatalf("heard %d bytes of %.1q as number %d", len(got), got, n)
				}
			}
		})
	}
}

// held is a function that answers a message with what it says, and not before goOn is closed.
func held(t *testing.T, goOn <-chan struct{}) *function {
	return &function{answer: func(event events.APIGatewayWebsocketProxyRequest) (string, string, error) {
		if event.RequestContext.EventType != "MESSAGE" {
			return "", "", nil
		}
		select {
		case <-goOn:
		case <-t.Context().Done():
		}
		return `{"statusCode": 200, "body": "` + event.Body + `"}`, "", nil
	}}
}

// dialPinged is dial for a client of which one can wait until it has got so many pings.
func dialPinged(t *testing.T, url string) (conn *websocket.Conn, pinged func(times int)) {
	t.Helper()
	pings := make(chan struct{}, 1000)
	conn = dial(t, url, &websocket.DialOptions{OnPingReceived: func(context.Context, []byte) bool {
		pings <- struct{}{}
		return true
	}})
	return conn, func(times int) {
		t.Helper()
		for range times {
			select {
			case <-pings:
			case <-time.After(10 * time.Second):
				t.Fatal("not pinged")
			}
		}
	}
}
