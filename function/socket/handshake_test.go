package socket

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/lull-dev/lull"
)

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
