package gateway

import (
	"bytes"
	"time"

	"github.com/lull-dev/lull/scale"
	"github.com/lull-dev/lull/wsframe"
	"github.com/prometheus/client_golang/prometheus"
)

// While an environment sleeps the gateway keeps the clients of its WebSockets company:
//
//	client's ping, or heartbeat          answered here; so is the last that the app got and had not answered before. If it
//	                                     does later, the client gets two answers (RFC 6455, section 5.5.3, allows that)
//	app's heartbeats that are due        said here, as the app would
//	client's answers to those            swallowed
//	client's answers to the app's own    given to the app, which has asked before it fell asleep: while it is paused,
//	                                     so that it finds them before its timers do; on disk, as soon as it is up
//	a ping of ours, every ClientPing     a client that leaves one unanswered until the next is dead
//
// While it is up all of them go through.

// isHeartbeat deals with a small frame of the client's that is no data, and reports false if it is. before is called
// first, to deliver what came before it.
func (t *tunnel) isHeartbeat(piece *wsframe.Piece, before func()) bool {
	w := t.ws
	var buf [wsframe.MaxSmall]byte
	m := piece.AppendPayload(buf[:0])
	if piece.Kind == wsframe.Ping {
		before()
		if !t.callToApp(piece, &w.owedPong, m) && t.reply(wsframe.Pong, m) {
			t.g.metrics.pongs.Inc()
		}
		return true
	}
	if piece.Kind == wsframe.Pong {
		before()
		t.pongToApp(piece, m)
		return true
	}
	m = squeeze(m)
	w.mu.Lock()
	is, d := w.message(m, piece.Kind == wsframe.Binary, false), w.dialect
	w.mu.Unlock()
	if is == isData {
		return false
	}
	before()
	switch is {
	case isCall:
		if !t.callToApp(piece, &w.owedAnswer, m) && t.reply(piece.Kind, d.answerTo(m)) {
			t.g.metrics.beats[d.name].Inc()
		}
	case isAnswer:
		t.answerToApp(piece)
	case isBeat:
		t.beatToApp(piece)
	}
	return true
}

// beatToApp passes a heartbeat on if the environment is up, and reports false if it is not.
func (t *tunnel) beatToApp(piece *wsframe.Piece) bool { return t.callToApp(piece, nil, nil) }

// callToApp passes a heartbeat on that wants an answer, which the app then owes.
func (t *tunnel) callToApp(piece *wsframe.Piece, owed *[]byte, m []byte) bool {
	if t.ending.Load() != 0 || t.deaf.Load() {
		return true // nobody listens
	}
	release, ok := t.stream.HoldIfUp()
	if !ok {
		return false
	}
	defer release()
	if owed != nil { // before it can answer
		t.ws.mu.Lock()
		*owed = bytes.Clone(m)
		t.ws.mu.Unlock()
	}
	t.write(piece.Kept, piece.Bytes)
	return true
}

// pongToApp finds out whose ping a pong answers. To answer the last of several is enough (RFC 6455, section 5.5.3).
func (t *tunnel) pongToApp(piece *wsframe.Piece, m []byte) {
	w := t.ws
	if bytes.Equal(m, t.g.pingMark[:]) {
		return
	}
	w.mu.Lock()
	expected := w.pinged && sum(m) == w.pingSum
	w.pinged = w.pinged && !expected
	w.mu.Unlock()
	if expected {
		t.surelyToApp(piece)
	} else {
		t.beatToApp(piece)
	}
}

// answerToApp finds out whose call an answer is for.
func (t *tunnel) answerToApp(piece *wsframe.Piece) {
	w := t.ws
	w.mu.Lock()
	gateway, expected := w.calls.pop()
	w.mu.Unlock()
	switch {
	case !expected:
		t.beatToApp(piece)
	case !gateway:
		t.surelyToApp(piece)
	}
}

// surelyToApp delivers what the app waits for: now, or as soon as it is up. The stream is told that it is settled only then.
func (t *tunnel) surelyToApp(piece *wsframe.Piece) {
	w := t.ws
	w.toApp.Lock()
	w.late = append(append(w.late, piece.Kept...), piece.Bytes...)
	w.toApp.Unlock()
	if release, ok := t.stream.HoldIfThere(); ok {
		defer release()
		t.write(nil, nil)
		return
	}
	t.stream.WhenUp(t.deliverLate)
}

// deliverLate is called when the environment is up. The app's side is then between two frames: the way from the client has
// put what is late between two of them, and delivers it before it goes on.
func (t *tunnel) deliverLate() {
	w := t.ws
	w.toApp.Lock()
	t.link.conn.WriteWithin(t.patience)
	err := w.writeLate(t)
	w.toApp.Unlock()
	if err != nil {
		t.deaf.Store(true)
		t.link.cut(err)
	}
	w.settle(t.stream)
}

// reply answers the client in the app's name, unless something of the app's is on its way.
func (t *tunnel) reply(kind wsframe.Kind, payload []byte) bool {
	w := t.ws
	w.toClient.Lock()
	defer w.toClient.Unlock()
	if !w.mayPutIn(kind) {
		return false
	}
	return t.writeWhole(wsframe.Append(nil, kind, payload))
}

// writeWhole writes a frame to the client, and reports whether it is there. A client that has got half of one can be told
// nothing more. It is called under toClient.
func (t *tunnel) writeWhole(frame []byte) bool {
	t.c.conn.WriteWithin(t.g.WriteTimeout)
	n, err := t.c.conn.Write(frame)
	if err != nil && n > 0 {
		t.halved()
	}
	return err == nil
}

// halved ends a client's connection within a frame.
func (t *tunnel) halved() {
	t.c.conn.Reset()
	t.up.rouse()
}

func (w *webSocket) mayPutIn(kind wsframe.Kind) bool {
	if kind.Data() {
		return w.down.BetweenMessages()
	}
	return w.down.Between()
}

// keepCompany does what is due at a sleeping app's client, and returns when there will be something again. It is called by
// the rounds and does not wait.
func (t *tunnel) keepCompany(now time.Time) time.Time {
	next := t.ping(now)
	if next.IsZero() {
		return next
	}
	return scale.Earliest(scale.Earliest(next, t.speak(now)), t.answer(now))
}

// answer answers what the app has left unanswered. It returns when to try again; the zero time if nothing is left.
func (t *tunnel) answer(now time.Time) time.Time {
	w := t.ws
	w.mu.Lock()
	ping, call, d := w.owedPong, w.owedAnswer, w.dialect
	w.mu.Unlock()
	left := ping != nil && !t.give(&w.owedPong, wsframe.Pong, ping, t.g.metrics.pongs)
	left = call != nil && !t.give(&w.owedAnswer, d.kind(), d.answerTo(call), t.g.metrics.beats[d.name]) || left
	if left {
		return now.Add(roundTick)
	}
	return time.Time{}
}

// give gives the client what the app owes it, and reports false if that cannot be now.
func (t *tunnel) give(owed *[]byte, kind wsframe.Kind, payload []byte, count prometheus.Counter) bool {
	if t.putIn(kind, payload, func() { *owed = nil }) != isIn {
		return false
	}
	count.Inc()
	return true
}

// ping finds out whether the client still lives. Whatever comes from it says so. It returns when to ask again; the zero
// time if it is dead.
func (t *tunnel) ping(now time.Time) time.Time {
	w, interval := t.ws, t.g.ClientPing
	heard := time.Unix(0, w.heard.Load())
	if heard.After(w.asked) {
		w.asked = time.Time{}
	}
	if heard.After(w.stuck) {
		w.stuck = time.Time{}
	}
	if !w.asked.IsZero() {
		if due := w.asked.Add(interval); now.Before(due) {
			return due
		}
		t.clientDied()
		return time.Time{}
	}
	if due := heard.Add(interval); now.Before(due) {
		return due
	}
	switch t.putIn(wsframe.Ping, t.g.pingMark[:], func() { w.asked, w.stuck = now, time.Time{} }) {
	case takesNothing: // one that reads has room sooner or later
		if w.stuck.IsZero() {
			w.stuck = now
		}
		if !now.Before(w.stuck.Add(interval)) {
			t.clientDied()
			return time.Time{}
		}
		return now.Add(min(interval/8, time.Second))
	case isBusy:
		w.stuck = time.Time{}
	}
	return now.Add(interval)
}

// speak says what the app would by now. It returns when it would again; the zero time if it does not.
func (t *tunnel) speak(now time.Time) time.Time {
	w := t.ws
	w.mu.Lock()
	d, every, spoke := w.dialect, w.every, w.spoke
	w.mu.Unlock()
	if d == nil || every <= 0 {
		return time.Time{}
	}
	if due := spoke.Add(every); now.Before(due) {
		return due
	}
	spoken := t.putIn(d.kind(), []byte(d.speaks(now)), func() {
		w.spoke = now
		if d.appCall != "" {
			w.calls.push(true)
		}
	})
	if spoken != isIn {
		return now.Add(roundTick)
	}
	t.g.metrics.beats[d.name].Inc()
	return now.Add(every)
}

// putResult says what became of a frame that was to be put in.
type putResult uint8

const (
	isIn         putResult = iota // the client gets it
	isBusy                        // something of the app's is on its way
	takesNothing                  // the client does not read
)

// putIn sends a frame to the client without waiting. sent is called, under ws.mu, before the client's answer can be dealt
// with, and only if the frame is in.
func (t *tunnel) putIn(kind wsframe.Kind, payload []byte, sent func()) putResult {
	w := t.ws
	if !w.toClient.TryLock() {
		return isBusy
	}
	if !w.mayPutIn(kind) {
		w.toClient.Unlock()
		return isBusy
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	var buf [wsframe.MaxSmall]byte
	frame := wsframe.Append(buf[:0], kind, payload)
	if !t.c.conn.Parkable() {
		sent()
		go func() { // it ends within WriteTimeout
			defer w.toClient.Unlock()
			t.writeWhole(frame)
		}()
		return isIn
	}
	defer w.toClient.Unlock()
	n, err := t.c.conn.WriteNow(frame)
	switch {
	case err != nil: // the next read from the client says so
	case n == 0:
		return takesNothing
	case n < len(frame):
		t.halved()
	}
	sent()
	return isIn
}

// clientDied closes the client's side at once, and the app's when it is up for another reason.
func (t *tunnel) clientDied() {
	t.dead.Store(true)
	t.g.metrics.dead.Inc()
	t.stream.WhenUp(func() { t.link.cut(errClientGone) })
	t.c.conn.Reset()
	t.up.rouse()
}
