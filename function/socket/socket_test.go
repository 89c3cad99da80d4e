package socket

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/coder/websocket"

	"github.com/lull-dev/lull"
)

// function is the function of the app "chat", which notes its events.
type function struct {
	mu     sync.Mutex
	answer func(event events.APIGatewayWebsocketProxyRequest) (string, string, error)
	seen   chan events.APIGatewayWebsocketProxyRequest
}

func (f *function) invoke(_ context.Context, in Invocation) (io.ReadCloser, string, error) {
	var event events.APIGatewayWebsocketProxyRequest
	if err := json.Unmarshal(in.Event, &event); err != nil {
		return nil, "", err
	}
	f.seen <- event
	f.mu.Lock()
	answer := f.answer
	f.mu.Unlock()
	if answer == nil {
		return io.NopCloser(strings.NewReader(`{"statusCode": 200}`)), "", nil
	}
	body, failed, err := answer(event)
	return io.NopCloser(strings.NewReader(body)), failed, err
}

// next returns the next event, which must be of this kind.
func (f *function) next(t *testing.T, kind, route string) events.APIGatewayWebsocketProxyRequest {
	t.Helper()
	select {
	case event := <-f.seen:
		if event.RequestContext.EventType != kind || event.RequestContext.RouteKey != route {
			t.Fatalf("event %s %s, want %s %s", event.RequestContext.EventType, event.RequestContext.RouteKey, kind, route)
		}
		return event
	case <-time.After(10 * time.Second):
		t.Fatalf("no event %s", kind)
	}
	panic("unreachable")
}

// open serves a hub. When the test ends nothing of it may be left.
func open(t *testing.T, f *function, settings Settings) (*Hub, string) {
	t.Helper()
	return openWith(t, f, settings, Config{Ping: 20 * time.Second})
}

func openWith(t *testing.T, f *function, settings Settings, config Config) (*Hub, string) {
	t.Helper()
	goroutines := runtime.NumGoroutine()
	f.seen = make(chan events.APIGatewayWebsocketProxyRequest, 100)
	if settings.MaxMessage == 0 {
		settings.MaxMessage = 16 * lull.MB
	}
	if settings.Streams == 0 {
		settings.Streams = 100
	}
	config.Invoke = f.invoke
	config.Settings = func(app string) (Settings, bool) { return settings, app == "chat" }
	h := New(config)
	server := httptest.NewServer(h.Handler("chat"))
	t.Cleanup(func() {
		h.Close()
		server.Close()
		for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > goroutines+2; runtime.Gosched() {
			if time.Now().After(deadline) {
				t.Errorf("%d goroutines are left of %d", runtime.NumGoroutine(), goroutines)
				break
			}
		}
	})
	return h, "ws" + strings.TrimPrefix(server.URL, "http")
}

func dial(t *testing.T, url string, options *websocket.DialOptions) *websocket.Conn {
	t.Helper()
	conn, _, err := websocket.Dial(t.Context(), url, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.CloseNow() })
	return conn
}

func hear(t *testing.T, conn *websocket.Conn) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, data, err := conn.Read(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestLifeOfAConnection(t *testing.T) {
	f := &function{}
	h, url := open(t, f, Settings{WebSocket: lull.WebSocket{Route: "$request.body.action", Routes: []string{"say"}}})
	conn := dial(t, url+"/?room=1", nil)
	id := f.next(t, "CONNECT", "$connect").RequestContext.ConnectionID
	if h.Count("chat") != 1 || h.Count("other") != 0 {
		t.Errorf("%d connections", h.Count("chat"))
	}
	for _, message := range []struct{ text, route string }{{`{"action": "say", "n": 1}`, "say"}, {`{"action": "x"}`, "$default"}} {
		if err := conn.Write(t.Context(), websocket.MessageText, []byte(message.text)); err != nil {
			t.Fatal(err)
		}
		event := f.next(t, "MESSAGE", message.route)
		if event.Body != message.text || event.RequestContext.ConnectionID != id {
			t.Errorf("%+v", event)
		}
	}
	if err := h.Post(t.Context(), "chat", id, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if got := hear(t, conn); got != "hello" {
		t.Errorf("heard %q", got)
	}
	if info, err := h.Get(t.Context(), "chat", id); err != nil || info.SourceIP != "127.0.0.1" || time.Since(info.LastActiveAt) > time.Minute {
		t.Errorf("%+v, %v", info, err)
	}
	if err := h.Post(t.Context(), "other", id, nil); lull.KindOf(err) != lull.KindNotFound {
		t.Errorf("another app's post: %v", err)
	}
	conn.Close(websocket.StatusGoingAway, "bye")
	f.next(t, "DISCONNECT", "$disconnect")
	if err := h.Post(t.Context(), "chat", id, nil); lull.KindOf(err) != lull.KindNotFound {
		t.Errorf("post to a client that has gone: %v", err)
	}
}

func TestFunctionRefusesAClient(t *testing.T) {
	for _, c := range []struct {
		answer, failed string
		err            error
		want           int
	}{
		{`{"statusCode": 401}`, "", nil, http.StatusUnauthorized},
		{`{"errorMessage": "no"}`, "Unhandled", nil, http.StatusBadGateway},
		{``, "", &lull.Error{Kind: lull.KindQueueFull, Message: "full"}, http.StatusServiceUnavailable},
		{``, "", errors.New("something"), http.StatusBadGateway},
		{`{"statusCode": 1e9}`, "", nil, http.StatusBadGateway},
	} {
		f := &function{answer: func(events.APIGatewayWebsocketProxyRequest) (string, string, error) { return c.answer, c.failed, c.err }}
		h, url := open(t, f, Settings{WebSocket: lull.WebSocket{Route: "$default"}})
		_, resp, err := websocket.Dial(t.Context(), url, nil)
		if err == nil || resp.StatusCode != c.want {
			t.Errorf("%+v: %v, %v", c, resp, err)
		}
		if h.Count("chat") != 0 {
			t.Errorf("%+v: it is connected", c)
		}
	}
}

// What is no handshake is answered without the function.
func TestHandshakes(t *testing.T) {
	f := &function{}
	h, _ := open(t, f, Settings{WebSocket: lull.WebSocket{Route: "$default"}})
	for name, c := range map[string]struct {
		method string
		change map[string]string // headers of a good handshake; "" takes one away
		want   int
	}{
		"POST":             {method: http.MethodPost, want: http.StatusMethodNotAllowed},
		"another protocol": {change: map[string]string{"Upgrade": "IRC/6.9"}, want: http.StatusUpgradeRequired},
		"no upgrade":       {change: map[string]string{"Connection": "keep-alive"}, want: http.StatusUpgradeRequired},
		"no version":       {change: map[string]string{"Sec-WebSocket-Version": ""}, want: http.StatusUpgradeRequired},
		"old version":      {change: map[string]string{"Sec-WebSocket-Version": "8"}, want: http.StatusUpgradeRequired},
		"no key":           {change: map[string]string{"Sec-WebSocket-Key": ""}, want: http.StatusBadRequest},
		"short key":        {change: map[string]string{"Sec-WebSocket-Key": "AAAA"}, want: http.StatusBadRequest},
		"key not base64":   {change: map[string]string{"Sec-WebSocket-Key": "!!!!!!!!!!!!!!!!!!!!!!=="}, want: http.StatusBadRequest},
	} {
		r := upgrade(c.method)
		for header, value := range c.change {
			r.Header.Del(header)
			if value != "" {
				r.Header.Set(header, value)
			}
		}
		w := httptest.NewRecorder()
		h.Handler("chat").ServeHTTP(w, r)
		if w.Code != c.want || w.Code == http.StatusUpgradeRequired && w.Header().Get("Upgrade") != "websocket" {
			t.Errorf("%s: %d %v; want %d", name, w.Code, w.Header(), c.want)
		}
	}
	if len(f.seen) > 0 {
		t.Errorf("the function was asked %d times", len(f.seen))
	}
}

// upgrade is a good handshake, if its method is.
func upgrade(method string) *http.Request {
	r := httptest.NewRequest(method, "/", nil)
	r.Header.Set("Connection", "keep-alive, Upgrade")
	r.Header.Set("Upgrade", "WebSocket")
	r.Header.Set("Sec-WebSocket-Version", "13")
	r.Header.Set("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==")
	return r
}

// A function that has taken a client hears of it when the connection does not come about.
func TestConnectionDoesNotComeAbout(t *testing.T) {
	f := &function{}
	h, _ := open(t, f, Settings{WebSocket: lull.WebSocket{Route: "$default"}})
	w := httptest.NewRecorder() // cannot be taken over
	h.Handler("chat").ServeHTTP(w, upgrade(http.MethodGet))
	if w.Code != http.StatusNotImplemented || h.Count("chat") != 0 {
		t.Errorf("answered %d; %d connections", w.Code, h.Count("chat"))
	}
	f.next(t, "CONNECT", "$connect")
	f.next(t, "DISCONNECT", "$disconnect")
}

// The question whether a client may connect does not outlive it.
func TestClientLeavesBeforeItIsConnected(t *testing.T) {
	asked, over := make(chan struct{}), make(chan struct{})
	h := New(Config{
		Invoke: func(ctx context.Context, _ Invocation) (io.ReadCloser, string, error) {
			close(asked)
			<-ctx.Done()
			close(over)
			return nil, "", ctx.Err()
		},
		Settings: func(string) (Settings, bool) { return Settings{Streams: 1}, true },
	})
	server := httptest.NewServer(h.Handler("chat"))
	defer server.Close()
	defer h.Close()
	ctx, leave := context.WithCancel(t.Context())
	go func() { // ends when the client leaves, or the function has answered
		<-asked
		leave()
	}()
	if _, _, err := websocket.Dial(ctx, server.URL, nil); err == nil {
		t.Error("it is connected")
	}
	select {
	case <-over:
	case <-time.After(10 * time.Second):
		t.Error("the function is still asked")
	}
}

func TestRepliesAndFailures(t *testing.T) {
	f := &function{answer: func(event events.APIGatewayWebsocketProxyRequest) (string, string, error) {
		switch event.Body {
		case "fail":
			return `{"errorMessage": "no"}`, "Unhandled", nil
		case "break":
			return "", "", errors.New("it is gone")
		case "nothing":
			return "", "", nil
		}
		if event.RequestContext.EventType == "CONNECT" {
			return `{"statusCode": 200, "headers": {"Sec-WebSocket-Protocol": "v2"}}`, "", nil
		}
		return `{"statusCode": 200, "body": "you said ` + event.Body + `"}`, "", nil
	}}
	_, url := open(t, f, Settings{WebSocket: lull.WebSocket{Route: "$default", Replies: true}})
	conn := dial(t, url, &websocket.DialOptions{Subprotocols: []string{"v1", "v2"}})
	if conn.Subprotocol() != "v2" {
		t.Errorf("subprotocol %q", conn.Subprotocol())
	}
	for _, c := range []struct{ say, want string }{{"hi", "you said hi"}, {"fail", `"message":"Internal server error"`}, {"break", "Internal server error"}} {
		for _, text := range []string{"nothing", c.say} { // which is answered with nothing
			if err := conn.Write(t.Context(), websocket.MessageText, []byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		if got := hear(t, conn); !strings.Contains(got, c.want) {
			t.Errorf("%s: heard %q", c.say, got)
		}
	}
}

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

// wait waits until something is there.
func wait(t *testing.T, what string, there func() bool) {
	t.Helper()
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	for deadline := time.Now().Add(10 * time.Second); !there(); <-again.C {
		if time.Now().After(deadline) {
			t.Fatalf("there is not %s", what)
		}
	}
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

func TestConnectionsOverTheLimit(t *testing.T) {
	f := &function{}
	_, url := open(t, f, Settings{WebSocket: lull.WebSocket{Route: "$default"}, Streams: 1})
	first := dial(t, url, nil)
	f.next(t, "CONNECT", "$connect")
	_, resp, err := websocket.Dial(t.Context(), url, nil)
	if err == nil || resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("answered %+v, %v", resp, err)
	}
	first.CloseNow()
	f.next(t, "DISCONNECT", "$disconnect")
	wait(t, "a place for the next", func() bool {
		conn, _, err := websocket.Dial(t.Context(), url, nil)
		if err == nil {
			conn.CloseNow()
		}
		return err == nil
	})
	f.next(t, "CONNECT", "$connect")
}

// What nobody needs of an answer is not kept, and what is too large for a reply is none.
func TestLargeAnswers(t *testing.T) {
	large := `{"statusCode": 200, "body": "` + strings.Repeat("x", maxAnswer) + `"}`
	for _, replies := range []bool{false, true} {
		f := &function{answer: func(event events.APIGatewayWebsocketProxyRequest) (string, string, error) {
			if event.RequestContext.EventType == "MESSAGE" {
				return large, "", nil
			}
			return "", "", nil
		}}
		h, url := open(t, f, Settings{WebSocket: lull.WebSocket{Route: "$default", Replies: replies}})
		conn := dial(t, url, nil)
		id := f.next(t, "CONNECT", "$connect").RequestContext.ConnectionID
		for range 2 { // of which the second comes after the first is done with
			if err := conn.Write(t.Context(), websocket.MessageText, []byte("hi")); err != nil {
				t.Fatal(err)
			}
			f.next(t, "MESSAGE", "$default")
		}
		want := "Internal server error"
		if !replies {
			want = "hello"
			if err := h.Post(t.Context(), "chat", id, []byte(want)); err != nil {
				t.Fatal(err)
			}
		}
		if got := hear(t, conn); !strings.Contains(got, want) {
			t.Errorf("replies %v: heard %.100q", replies, got)
		}
	}
}

func TestDeleteAndCloseApp(t *testing.T) {
	f := &function{}
	h, url := open(t, f, Settings{WebSocket: lull.WebSocket{Route: "$default"}})
	first, second := dial(t, url, nil), dial(t, url, nil)
	f.next(t, "CONNECT", "$connect")
	id := f.next(t, "CONNECT", "$connect").RequestContext.ConnectionID
	go h.Delete(t.Context(), "chat", id) // ends when the client has answered
	if _, _, err := second.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusNormalClosure {
		t.Errorf("deleted: %v", err)
	}
	h.CloseApp("chat")
	if _, _, err := first.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusGoingAway {
		t.Errorf("app removed: %v", err)
	}
}

// What a function answers may be anything.
func FuzzReadReply(f *testing.F) {
	f.Add([]byte(`{"statusCode": 200, "headers": {"a": 1}, "body": "x", "isBase64Encoded": true}`))
	f.Fuzz(func(t *testing.T, answer []byte) {
		if result, err := readReply(answer); err == nil && (result.Status < 200 || result.Status > 599) {
			t.Errorf("status %d", result.Status)
		}
	})
}
