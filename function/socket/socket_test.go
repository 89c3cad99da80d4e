package socket

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
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
