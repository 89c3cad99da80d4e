package gateway

import (
	"bytes"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lull-dev/lull/fleet"
	"github.com/lull-dev/lull/gateway/http1"
	"github.com/lull-dev/lull/wsframe"
)

// webSocket is what is known of the frames that go through a tunnel. Data keeps the environment up, or wakes it;
// heartbeats do not: while it sleeps those of the client are answered here (see company.go).
type webSocket struct {
	up    wsframe.Follower // of the way from the client
	heard atomic.Int64     // when something last came from the client, Unix nanoseconds

	toClient sync.Mutex       // held while bytes are written to the client
	down     wsframe.Follower // guarded by toClient: it stands where the client's bytes do

	toApp sync.Mutex // held while bytes are written to the app
	late  []byte     // answers that wait for the app to be up; guarded by toApp

	mu          sync.Mutex // guards what follows
	dialect     *dialect   // nil if none has been recognised
	every       time.Duration
	spoke       time.Time // when the app, or the gateway for it, last spoke up by itself
	greetedUp   bool      // the first message of the client has been looked at
	greetedDown bool      // of the app
	calls       callers   // whose calls the client has not answered yet
	owedPong    []byte    // the client's last ping that the app got and has not answered; nil if there is none
	owedAnswer  []byte    // its call
	pinged      bool      // a ping of the app's is unanswered
	pingSum     uint64    // what it said
	midUp       bool      // the app waits for the rest of a frame
	midDown     bool      // the client does
	unsettled   bool
	over        bool // the stream is not told any more

	asked time.Time // when the gateway pinged the client, if that is unanswered; of the rounds
	stuck time.Time // since when the client has taken nothing, not even a ping; of the rounds
}

func newWebSocket(x *exchange, l *link) *webSocket {
	w := &webSocket{spoke: time.Now(), dialect: x.dialect}
	w.heard.Store(w.spoke.UnixNano())
	for i := range l.head.Fields {
		if f := &l.head.Fields[i]; w.dialect == nil && http1.EqualFold(f.Key, "sec-websocket-protocol") {
			w.dialect = dialectOfSubprotocol(f.Value)
		}
	}
	if w.dialect != nil {
		w.every = w.dialect.every
		if x.affinity.every > 0 && w.every > 0 {
			w.every = x.affinity.every
		}
	}
	return w
}

// settle tells the stream whether sleep would fall into something half done, when that has changed. It is said under the
// lock, so that the last word is the true one.
func (w *webSocket) settle(stream fleet.Stream) {
	w.mu.Lock()
	defer w.mu.Unlock()
	unsettled := w.midUp || w.midDown || w.pinged || w.calls.ofApp()
	if unsettled != w.unsettled && !w.over {
		w.unsettled = unsettled
		stream.Unsettled(unsettled)
	}
}

// callers are those whose calls are unanswered, in the order in which they will be answered: one bit each, set if it was
// the gateway. A client that leaves more than 32 open loses the first.
type callers struct {
	bits  uint32
	count uint8
}

func (c *callers) push(gateway bool) {
	if c.count == 32 {
		c.pop()
	}
	if gateway {
		c.bits |= 1 << c.count
	}
	c.count++
}

func (c *callers) pop() (gateway, ok bool) {
	if c.count == 0 {
		return false, false
	}
	gateway = c.bits&1 != 0
	c.bits >>= 1
	c.count--
	return gateway, true
}

// ofApp reports whether the app is one of them.
func (c *callers) ofApp() bool { return c.bits != uint32(1<<c.count-1) }

// greeted notes that the client's first message is past.
func (w *webSocket) greeted() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.greetedUp = true
}

// end keeps the stream from being told anything more.
func (w *webSocket) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
}

// message looks at a small message and says what it is. It is held under w.mu.
func (w *webSocket) message(m []byte, binary, fromApp bool) said {
	greeted := &w.greetedUp
	if fromApp {
		greeted = &w.greetedDown
	}
	if !*greeted {
		*greeted = true
		if w.dialect == nil {
			if w.dialect = dialectOfFirst(m, fromApp); w.dialect != nil {
				w.every = w.dialect.every
			}
		}
		if w.dialect != nil && w.dialect.learn != nil {
			w.every = w.dialect.learn(m, fromApp, w.every)
		}
	}
	switch {
	case w.dialect == nil || w.dialect.binary != binary:
		return isData
	case fromApp:
		return w.dialect.ofApp(m)
	}
	return w.dialect.ofClient(m)
}

// hearApp follows what comes from the app and reports whether there is data in it. It is called under toClient.
func (w *webSocket) hearApp(p []byte) (moved bool) {
	var buf [wsframe.MaxSmall]byte
	for len(p) > 0 {
		piece, n := w.down.Next(p)
		p = p[n:]
		moved = w.hearPiece(&piece, buf[:0]) || moved
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.midDown = w.down.Midway()
	return moved
}

func (w *webSocket) hearPiece(piece *wsframe.Piece, buf []byte) (moved bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch kind := piece.Kind; {
	case kind == wsframe.Partial:
		return false
	case kind == wsframe.Pong:
		if w.owedPong != nil && bytes.Equal(w.owedPong, piece.AppendPayload(buf)) {
			w.owedPong = nil
		}
		return false
	case kind == wsframe.Ping:
		w.pinged, w.pingSum = true, sum(piece.AppendPayload(buf))
		return false
	case kind.Data() && !piece.Small:
		w.greetedDown = true
	case kind.Data():
		switch w.message(squeeze(piece.AppendPayload(buf)), kind == wsframe.Binary, true) {
		case isAnswer:
			w.owedAnswer = nil
			return false
		case isCall:
			w.calls.push(false)
			w.spoke = time.Now()
			return false
		case isBeat:
			w.spoke = time.Now()
			return false
		}
	}
	return true
}

// sum tells pings apart (FNV-1a).
func sum(p []byte) uint64 {
	h := uint64(14695981039346656037)
	for _, b := range p {
		h = (h ^ uint64(b)) * 1099511628211
	}
	return h
}

// appClosed reports whether the app has said goodbye.
func (w *webSocket) appClosed() bool {
	w.toClient.Lock()
	defer w.toClient.Unlock()
	return w.down.Closed()
}

// framesToClient passes the app's bytes on. Nothing is put in between: the lock is held until they are written.
func (t *tunnel) framesToClient(p []byte) error {
	w := t.ws
	w.toClient.Lock()
	defer w.toClient.Unlock()
	moved := w.hearApp(p)
	w.settle(t.stream) // before the client can answer
	t.c.conn.WriteWithin(t.g.WriteTimeout)
	_, err := t.c.conn.Write(p)
	if moved {
		t.stream.Moved()
	}
	return err
}

// framesToApp passes the client's frames on: what is data is delivered, and wakes the app for it; heartbeats go their own
// way. Frames that may be one are kept until they are whole.
func (t *tunnel) framesToApp(p []byte) {
	w := t.ws
	w.heard.Store(time.Now().UnixNano())
	from := 0 // of what has not been passed on
	var kept []byte
	for at := 0; at < len(p); {
		piece, n := w.up.Next(p[at:])
		switch {
		case piece.Kind == wsframe.Partial:
			t.dataToApp("websocket data", kept, p[from:at])
			kept, from = nil, at+n
		case piece.Small && piece.Kind == wsframe.Close:
			t.dataToApp("websocket data", kept, p[from:at])
			t.dataToApp("websocket close", piece.Kept, piece.Bytes)
			kept, from = nil, at+n
		case piece.Small && t.isHeartbeat(&piece, func() { t.dataToApp("websocket data", kept, p[from:at]) }):
			kept, from = nil, at+n
		case at == 0:
			kept = piece.Kept
		}
		if piece.Begins && piece.Kind.Data() && !piece.Small {
			w.greeted()
		}
		at += n
	}
	t.dataToApp("websocket data", kept, p[from:])
}

func (t *tunnel) dataToApp(why string, kept, p []byte) {
	if len(kept)+len(p) > 0 {
		t.holdAndWrite(why, kept, p)
	}
}

// write writes bytes of the client's to the app, after what is late for it. It is called while the environment is held,
// which lasts until it is known whether a frame is left half done.
func (w *webSocket) write(t *tunnel, kept, p []byte) error {
	w.toApp.Lock()
	defer w.toApp.Unlock()
	err := w.writeLate(t)
	for _, part := range [][]byte{kept, p} {
		if err == nil && len(part) > 0 {
			_, err = t.link.conn.Write(part)
		}
	}
	w.mu.Lock()
	w.midUp = w.up.Open()
	w.mu.Unlock()
	w.settle(t.stream)
	return err
}

// writeLate writes what is late. It is called under toApp.
func (w *webSocket) writeLate(t *tunnel) error {
	if len(w.late) == 0 {
		return nil
	}
	_, err := t.link.conn.Write(w.late)
	w.late = nil
	return err
}

// sayClose sends a close frame, if one may come here.
func (t *tunnel) sayClose(code uint16) {
	w := t.ws
	w.toClient.Lock()
	defer w.toClient.Unlock()
	if w.down.Between() {
		t.c.conn.Write(wsframe.Append(nil, wsframe.Close, wsframe.ClosePayload(code)))
	}
}
