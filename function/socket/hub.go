// Package socket holds WebSocket connections on behalf of functions, as an API Gateway WebSocket API does: the function gets
// an event when a client connects, for each of its messages and when it has gone, and sends through the connections API. The
// connections are the node's, so a function sleeps between messages, and one that is deployed anew keeps its clients.
//
// The events and the API are those of https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-websocket-api.html,
// without its limits of 10 minutes of silence and 2 hours, and with messages of MaxMessage instead of 128 KB. Different from
// there, the messages of one client are handed to the function one after the other, in their order. Those of all clients of an
// app that wait for it have a bounded room in memory; what is over waits on the client's side.
package socket

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/sync/semaphore"

	"github.com/lull-dev/lull"
)

// Invocation is an event for a function.
type Invocation struct {
	App       string
	RequestID string
	Event     []byte
	Why       string // for the wake log
}

// Config is what a Hub works with.
type Config struct {
	// Invoke hands an event to the function of an app and returns what it answered, which the caller closes; failed, if not
	// empty, says that the function failed. An error means that it may not have been reached.
	Invoke func(ctx context.Context, in Invocation) (answer io.ReadCloser, failed string, err error)
	// Settings says what the current release of an app wants of its connections; false: that there are none.
	Settings func(app string) (Settings, bool)
	Log      *slog.Logger

	Ping time.Duration // between two pings to a silent client, and for its answer or the rest of a message; default 60 s
	Room lull.Size     // for the messages of an app that its function is not done with, as they came; default 64 MB; more than one message takes
}

// Settings are what a release says of its connections.
type Settings struct {
	lull.WebSocket
	MaxMessage lull.Size // if that is less than MaxMessage
	Streams    int       // connections that there may be
}

// share is what the connections of an app have in common.
type share struct {
	connections int                 // open, or about to be; guarded by Hub.mu
	room        *semaphore.Weighted // bytes
}

// Hub has all connections of a node. Its methods may be called concurrently.
type Hub struct {
	config Config
	ctx    context.Context // of the invocations; ends with Close
	cancel context.CancelFunc
	work   sync.WaitGroup // handlers; added to under mu, not after closed

	mu     sync.Mutex // guards what follows
	open   map[string]*connection
	shares map[string]*share // by app; of those that have connections
	closed bool
}

// New returns a hub without connections.
func New(config Config) *Hub {
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	if config.Ping == 0 {
		config.Ping = time.Minute
	}
	if config.Room == 0 {
		config.Room = 64 * lull.MB
	}
	h := &Hub{config: config, open: map[string]*connection{}, shares: map[string]*share{}}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	return h
}

// Info is what is known of a connection.
type Info struct {
	ConnectedAt  time.Time
	LastActiveAt time.Time
	SourceIP     string
	UserAgent    string
}

// Post sends data to a client: as text, if that is what it is. It returns when the client's end has taken it. An error with
// lull.KindNotFound means that there is no such connection, or not any more.
func (h *Hub) Post(ctx context.Context, app, id string, data []byte) error {
	c, err := h.find(app, id)
	if err != nil {
		return err
	}
	return c.send(ctx, data)
}

// App returns whose connection it is; false if there is none of that id.
func (h *Hub) App(id string) (app string, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c := h.open[id]; c != nil {
		return c.app, true
	}
	return "", false
}

// Get returns what is known of a connection. Errors are those of Post.
func (h *Hub) Get(_ context.Context, app, id string) (Info, error) {
	c, err := h.find(app, id)
	if err != nil {
		return Info{}, err
	}
	return c.info(), nil
}

// Delete closes a connection. Errors are those of Post.
func (h *Hub) Delete(_ context.Context, app, id string) error {
	c, err := h.find(app, id)
	if err != nil {
		return err
	}
	c.end(websocket.StatusNormalClosure, "")
	return nil
}

func (h *Hub) find(app, id string) (*connection, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c := h.open[id]; c != nil && c.app == app {
		return c, nil
	}
	return nil, gone(id)
}

func gone(id string) error {
	return &lull.Error{Kind: lull.KindNotFound, Message: "there is no connection " + id, Hint: "its client has gone: forget the id"}
}

// Count returns how many connections an app has.
func (h *Hub) Count(app string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	count := 0
	for _, c := range h.open {
		if c.app == app {
			count++
		}
	}
	return count
}

// CloseApp closes all connections of an app that is removed, or no longer takes any. It does not wait.
func (h *Hub) CloseApp(app string) {
	for _, c := range h.all() {
		if c.app == app {
			go c.end(websocket.StatusGoingAway, "the app was removed") // ends within the time that a close may take
		}
	}
}

// Close ends all connections and waits. Their functions are not told: they find out when they send.
func (h *Hub) Close() {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.cancel()
	for _, c := range h.all() {
		c.cut()
	}
	h.work.Wait()
}

func (h *Hub) all() []*connection {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := make([]*connection, 0, len(h.open))
	for _, c := range h.open {
		list = append(list, c)
	}
	return list
}

// enter lets a handler begin, which calls work.Done; it reports false once the hub is closed.
func (h *Hub) enter() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	h.work.Add(1)
	return true
}

// join counts a connection that is about to open, which ends with part. It returns nil if the app has as many as it may.
func (h *Hub) join(app string, most int) *share {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.shares[app]
	switch {
	case s == nil:
		s = &share{room: semaphore.NewWeighted(int64(h.config.Room))}
		h.shares[app] = s
	case s.connections >= most:
		return nil
	}
	s.connections++
	return s
}

func (h *Hub) part(app string, s *share) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s.connections--; s.connections == 0 {
		delete(h.shares, app)
	}
}

func (h *Hub) add(c *connection) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	h.open[c.id] = c
	return true
}

func (h *Hub) remove(c *connection) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.open, c.id)
}

// newID returns an id of the form that API Gateway's have.
func newID() string {
	var id [11]byte
	rand.Read(id[:])
	return base64.URLEncoding.EncodeToString(id[:])
}
