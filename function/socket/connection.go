package socket

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"
	"golang.org/x/sync/semaphore"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/function/event"
)

const (
	// sendTime is for a client to take a message; one that does not is cut off, as its function would wait for it.
	sendTime = 10 * time.Second
	// goneTime is for the function to hear that a client has gone.
	goneTime = 5 * time.Minute
	// maxAnswer is for a reply of MaxMessage, and what is around it, in bytes.
	maxAnswer = 2 << 20
)

// connection is one client. A goroutine reads, its handler hands over what that has read; anybody may send.
type connection struct {
	hub    *Hub
	app    string
	id     string
	peer   event.Peer
	share  *share
	own    *semaphore.Weighted // bytes of its messages that are not done with
	limit  int64               // of a message, in bytes
	ready  chan struct{}       // closed when the client has been told that it is connected, or will not be
	conn   *websocket.Conn     // set before ready is closed; nil if it will not be
	active atomic.Int64        // when something last moved, either way; Unix nanoseconds
	deaf   atomic.Int64        // odd while nobody reads, as there is no room for more; changes when that does
}

// Handler serves the WebSocket clients of an app. Only requests for an upgrade belong here.
func (h *Hub) Handler(app string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !h.enter() {
			http.Error(w, "this node is shutting down", http.StatusServiceUnavailable)
			return
		}
		defer h.work.Done()
		h.serve(app, w, r)
	})
}

func (h *Hub) serve(app string, w http.ResponseWriter, r *http.Request) {
	settings, ok := h.config.Settings(app)
	if !ok {
		http.Error(w, "the app takes no WebSocket connections", http.StatusNotFound)
		return
	}
	if !handshake(w, r) {
		return
	}
	share := h.join(app, settings.Streams)
	if share == nil {
		w.Header().Set("Retry-After", "1")
		http.Error(w, fmt.Sprintf("the app has as many WebSocket connections as it may have (streams: %d)", settings.Streams), http.StatusServiceUnavailable)
		return
	}
	defer h.part(app, share)
	c := &connection{hub: h, app: app, id: newID(), share: share, limit: int64(min(settings.MaxMessage, MaxMessage)), ready: make(chan struct{})}
	c.own = semaphore.NewWeighted(clientLargest * (perMessage + c.limit))
	c.peer = event.NewPeer(app, c.id, r, time.Now())
	protocol, ok := c.connect(w, r)
	if !ok {
		return
	}
	var protocols []string
	if protocol != "" {
		protocols = []string{protocol}
	}
	// Who may connect from which page is for the function to say: it has seen the Origin.
	// It is known before the client hears of it: what the client does next may lead to a message for it.
	if !h.add(c) {
		http.Error(w, "this node is shutting down", http.StatusServiceUnavailable)
		return
	}
	defer h.remove(c)
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: protocols, InsecureSkipVerify: true})
	if err != nil { // it has been answered
		close(c.ready)
		h.remove(c)
		c.disconnected(websocket.StatusAbnormalClosure, "the connection was not opened")
		return
	}
	defer conn.CloseNow()
	conn.SetReadLimit(c.limit)
	c.touch()
	c.conn = conn
	close(c.ready)
	c.disconnected(c.live(settings))
}

// live is the connection's life once it is open. It returns how that ended.
func (c *connection) live(settings Settings) (status websocket.StatusCode, reason string) {
	messages := make(chan message, clientMessages)
	go func() { // ends with the connection, and closes messages then; handle waits for it
		defer close(messages)
		defer c.hub.remove(c)
		defer c.watch()()
		status, reason = c.read(messages)
	}()
	c.handle(settings, messages)
	return status, reason
}

// connect asks the function whether it wants the client, for as long as that is there. If not, the client has been answered.
func (c *connection) connect(w http.ResponseWriter, r *http.Request) (protocol string, ok bool) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(c.hub.ctx, cancel)()
	answer, err := c.ask(ctx, c.peer.Connect(r), "WebSocket $connect", true)
	var result reply
	if err == nil {
		result, err = readReply(answer)
	}
	switch {
	case err != nil && ctx.Err() != nil: // nobody reads this if the client has left
		http.Error(w, "this node is shutting down", http.StatusServiceUnavailable)
		return "", false
	case err != nil:
		status := http.StatusBadGateway
		if kind := lull.KindOf(err); kind != lull.KindInternal {
			status = kind.Status()
		}
		c.hub.config.Log.Warn("client not connected: the function failed", "app", c.app, "error", err)
		http.Error(w, "the function did not accept the connection", status)
		return "", false
	case result.Status < 200 || result.Status > 299:
		http.Error(w, http.StatusText(result.Status), result.Status)
		return "", false
	}
	for name, value := range result.Headers {
		if text, isText := value.(string); isText && strings.EqualFold(name, "Sec-WebSocket-Protocol") {
			return text, true
		}
	}
	return "", true
}

// read passes the client's messages on until the connection ends, and returns how it did. What the function is slow with must
// not keep it from reading: only so are pings answered, and answers to pings heard.
func (c *connection) read(messages chan<- message) (websocket.StatusCode, string) {
	for {
		m, err := c.next()
		if err != nil {
			var closed websocket.CloseError
			if errors.As(err, &closed) {
				return closed.Code, closed.Reason
			}
			return websocket.StatusAbnormalClosure, "the connection broke"
		}
		c.touch()
		c.deaf.Add(1)
		messages <- m // handle takes all of them
		c.deaf.Add(1)
	}
}

// handle hands the client's messages to the function, one at a time, until there are no more to come.
func (c *connection) handle(settings Settings, messages <-chan message) {
	for m := range messages {
		if current, ok := c.hub.config.Settings(c.app); ok {
			settings = current // it may have been deployed anew
		}
		if c.hub.ctx.Err() == nil {
			c.message(settings, m)
		}
		c.done(m)
	}
}

// message hands one message over and sends the client what is for it.
func (c *connection) message(settings Settings, m message) {
	route := "$default"
	if m.kind == websocket.MessageText {
		route = event.Route(settings.Route, settings.Routes, m.data)
	}
	answer, err := c.ask(c.hub.ctx, c.peer.Message(route, m.data, m.kind == websocket.MessageBinary), "WebSocket "+route, settings.Replies)
	var result reply
	if err == nil {
		result, err = readReply(answer)
	}
	if c.hub.ctx.Err() != nil {
		return
	}
	if err != nil {
		c.hub.config.Log.Warn("message of a client not handled", "app", c.app, "route", route, "error", err)
		_ = c.send(c.hub.ctx, c.peer.Failure())
		return
	}
	if len(result.body) > 0 {
		_ = c.send(c.hub.ctx, result.body) // a client that has gone is noticed by read
	}
}

// disconnected tells the function that the client has gone, as far as it can be told.
func (c *connection) disconnected(status websocket.StatusCode, reason string) {
	if c.hub.ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(c.hub.ctx, goneTime)
	defer cancel()
	if _, err := c.ask(ctx, c.peer.Disconnect(int(status), reason), "WebSocket $disconnect", false); err != nil && ctx.Err() == nil {
		c.hub.config.Log.Info("function not told that a client has gone", "app", c.app, "error", err)
	}
}

// ask hands an event to the function and returns its answer, if that is wanted.
func (c *connection) ask(ctx context.Context, body []byte, why string, wanted bool) ([]byte, error) {
	said, failed, err := c.hub.config.Invoke(ctx, Invocation{App: c.app, RequestID: newID(), Event: body, Why: why})
	if err != nil {
		return nil, err
	}
	defer said.Close()
	if failed != "" {
		reason, _ := io.ReadAll(io.LimitReader(said, 500))
		return nil, &lull.Error{Kind: lull.KindInternal, Message: "the function failed: " + string(reason)}
	}
	if !wanted {
		_, err := io.Copy(io.Discard, said)
		return nil, err
	}
	answer, err := io.ReadAll(io.LimitReader(said, maxAnswer+1))
	if err == nil && len(answer) > maxAnswer {
		err = &lull.Error{Kind: lull.KindInternal, Message: fmt.Sprintf("the function's answer is larger than %d bytes", maxAnswer)}
	}
	return answer, err
}

// send writes a message, as text if it is that.
func (c *connection) send(ctx context.Context, data []byte) error {
	kind := websocket.MessageBinary
	if utf8.Valid(data) {
		kind = websocket.MessageText
	}
	ctx, cancel := context.WithTimeout(ctx, sendTime)
	defer cancel()
	conn := c.open()
	if conn == nil || conn.Write(ctx, kind, data) != nil {
		c.cut()
		return gone(c.id)
	}
	c.touch()
	return nil
}

// watch pings the client when nothing moves, and ends the connection if it does not answer, unless nobody would have heard
// that. stop ends it and waits.
func (c *connection) watch() (stop func()) {
	ctx, cancel := context.WithCancel(c.hub.ctx)
	ended := make(chan struct{})
	go func() { // ends with ctx, or with the connection; stop waits for it
		defer close(ended)
		ticker := time.NewTicker(c.hub.config.Ping)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			deaf := c.deaf.Load()
			if deaf%2 == 1 || time.Since(time.Unix(0, c.active.Load())) < c.hub.config.Ping {
				continue
			}
			patience, cancel := context.WithTimeout(ctx, c.hub.config.Ping)
			err := c.conn.Ping(patience)
			cancel()
			if err != nil && ctx.Err() == nil && c.deaf.Load() == deaf {
				c.conn.CloseNow()
				return
			}
		}
	}()
	return func() {
		cancel()
		<-ended
	}
}

// open waits until the client is connected; nil if that did not come about.
func (c *connection) open() *websocket.Conn {
	<-c.ready
	return c.conn
}

// end closes the connection in good order, as far as the client is there to take part.
func (c *connection) end(code websocket.StatusCode, reason string) {
	if conn := c.open(); conn != nil {
		conn.Close(code, reason)
	}
}

// cut closes it without a word.
func (c *connection) cut() {
	if conn := c.open(); conn != nil {
		conn.CloseNow()
	}
}

func (c *connection) touch() { c.active.Store(time.Now().UnixNano()) }

func (c *connection) info() Info {
	return Info{ConnectedAt: c.peer.ConnectedAt, LastActiveAt: time.Unix(0, c.active.Load()), SourceIP: c.peer.SourceIP, UserAgent: c.peer.UserAgent}
}

// reply is what a function answers to an event of a connection. Nothing is as good as a 200.
type reply struct {
	Status  int
	Headers map[string]any
	body    []byte
}

func readReply(answer []byte) (reply, error) {
	var shape struct {
		StatusCode json.Number     `json:"statusCode"`
		Headers    map[string]any  `json:"headers"`
		Body       json.RawMessage `json:"body"`
		IsBase64   bool            `json:"isBase64Encoded"`
	}
	if trimmed := strings.TrimSpace(string(answer)); trimmed == "" || trimmed == "null" || !strings.HasPrefix(trimmed, "{") {
		return reply{Status: http.StatusOK}, nil
	}
	if err := json.Unmarshal(answer, &shape); err != nil {
		return reply{}, &lull.Error{Kind: lull.KindInternal, Message: "the function's answer is not what it should be: " + err.Error(), Err: err}
	}
	result := reply{Status: http.StatusOK, Headers: shape.Headers}
	if shape.StatusCode != "" {
		code, err := shape.StatusCode.Int64()
		if err != nil || code < 200 || code > 599 {
			return reply{}, &lull.Error{Kind: lull.KindInternal, Message: "the function's answer has no valid statusCode: " + shape.StatusCode.String()}
		}
		result.Status = int(code)
	}
	var err error
	switch text := ""; {
	case len(shape.Body) == 0 || string(shape.Body) == "null":
	case shape.Body[0] != '"':
		result.body = shape.Body
	case shape.IsBase64:
		err = json.Unmarshal(shape.Body, &result.body)
	default:
		err = json.Unmarshal(shape.Body, &text)
		result.body = []byte(text)
	}
	if err != nil {
		return reply{}, &lull.Error{Kind: lull.KindInternal, Message: "the function's answer has a body that cannot be read: " + err.Error(), Err: err}
	}
	return result, nil
}
