package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// client is one connection, and the next one if it may connect again.
type client struct {
	crowd *crowd
	from  string // local address, or ""
	in    reader // of conn; used by whoever connects, then by live

	sending sync.Mutex   // orders writers
	mu      sync.Mutex   // guards conn and asked
	conn    *net.TCPConn // nil while there is none
	asked   time.Time    // when the ping that has no pong yet was sent; zero if there is none

	lastHeard atomic.Uint64 // number of the mark in the upper half, messages since it in the lower
	pongMark  atomic.Int64  // mark at the last pong
}

// patience bounds what must go quickly: a handshake with a server that has to wake, or writing a small frame.
const patience = 60 * time.Second

// connect opens the connection. On success the crowd's reader must be started with live.
func (cl *client) connect(ctx context.Context) error {
	dialer := net.Dialer{Timeout: patience, KeepAlive: -1}
	if cl.from != "" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(cl.from)}
	}
	conn, err := dialer.DialContext(ctx, "tcp", cl.crowd.target.address)
	if err != nil {
		return err
	}
	cl.in = reader{from: conn}
	if err := handshake(conn, &cl.in, cl.crowd.target); err != nil {
		conn.Close()
		return err
	}
	cl.mu.Lock()
	cl.conn, cl.asked = conn.(*net.TCPConn), time.Time{}
	cl.mu.Unlock()
	cl.crowd.open.Add(1)
	if cl.crowd.leaving.Load() {
		cl.hangUp()
	}
	return nil
}

// handshake asks for a WebSocket.
func handshake(conn net.Conn, in *reader, to target) error {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	_, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Key: bHVsbCBjcm93ZCBjbGllbg==\r\nSec-WebSocket-Version: 13\r\n\r\n", to.path, to.host)
	if err != nil {
		return err
	}
	first, err := in.head()
	if err != nil {
		return fmt.Errorf("read the answer to the handshake: %w", err)
	}
	if !strings.HasPrefix(first, "HTTP/1.1 101 ") {
		return fmt.Errorf("the handshake was answered with %q", first)
	}
	return conn.SetDeadline(time.Time{})
}

// live reads until the connection ends, and connects again if it may.
func (cl *client) live(ctx context.Context) {
	for {
		how := cl.read()
		cl.hangUp()
		if cl.crowd.leaving.Load() {
			cl.crowd.open.Add(-1)
			return
		}
		cl.crowd.closed(how)
		cl.crowd.open.Add(-1)
		if !cl.crowd.reconnect {
			return
		}
		for again := time.NewTicker(time.Second); ; <-again.C {
			if cl.crowd.leaving.Load() {
				again.Stop()
				return
			}
			if cl.connect(ctx) == nil {
				again.Stop()
				cl.crowd.reconnects.Add(1)
				break
			}
		}
	}
}

// read reads frames until the connection ends and says how it did: by the code of a close frame, else in words.
func (cl *client) read() string {
	for {
		f, err := cl.in.next()
		if err != nil {
			return inWords(err)
		}
		switch f.op {
		case opPing:
			cl.crowd.heardPings.Add(1)
			_ = cl.write(opPong, f.payload) // if it does not arrive, the server will say so
		case opPong:
			cl.ponged()
		case opClose:
			_ = cl.write(opClose, f.payload) // the server may have gone
			if len(f.payload) < 2 {
				return "1005"
			}
			return strconv.Itoa(int(binary.BigEndian.Uint16(f.payload)))
		default:
			cl.heard(f)
		}
	}
}

// inWords names what ended a connection without a close frame.
func inWords(err error) string {
	switch {
	case errors.Is(err, io.EOF):
		return "end without a close frame"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "end within a frame"
	case errors.Is(err, syscall.ECONNRESET):
		return "reset"
	}
	return err.Error()
}

// heard counts a data frame; a message counts with its last frame.
func (cl *client) heard(f frame) {
	cl.crowd.bytes.Add(int64(f.length))
	if !f.fin {
		return
	}
	mark := uint64(cl.crowd.mark.Load())
	if last := cl.lastHeard.Load(); last>>32 == mark {
		cl.lastHeard.Store(last + 1)
	} else {
		cl.lastHeard.Store(mark<<32 | 1)
	}
	cl.crowd.messages.Add(1)
}

func (cl *client) heardSince(mark int64) int {
	last := cl.lastHeard.Load()
	if int64(last>>32) != mark {
		return 0
	}
	return int(uint32(last))
}

// ping sends a ping, or counts that the one before has had no answer.
func (cl *client) ping() {
	cl.mu.Lock()
	conn, waiting := cl.conn, !cl.asked.IsZero()
	if conn != nil && !waiting {
		cl.asked = time.Now()
	}
	cl.mu.Unlock()
	switch {
	case conn == nil:
	case waiting:
		cl.crowd.late.Add(1)
	case cl.write(opPing, []byte("crowd")) == nil:
		cl.crowd.pings.Add(1)
	}
}

func (cl *client) ponged() {
	cl.mu.Lock()
	asked := cl.asked
	cl.asked = time.Time{}
	cl.mu.Unlock()
	if asked.IsZero() {
		return // nobody asked: allowed
	}
	cl.pongMark.Store(cl.crowd.mark.Load())
	cl.crowd.pongs.Add(1)
	took := int64(time.Since(asked))
	for {
		slowest := cl.crowd.slowest.Load()
		if took <= slowest || cl.crowd.slowest.CompareAndSwap(slowest, took) {
			return
		}
	}
}

// say sends a text message.
func (cl *client) say(text string) error { return cl.write(opText, []byte(text)) }

func (cl *client) write(op byte, payload []byte) error {
	conn := cl.current()
	if conn == nil {
		return errors.New("not connected")
	}
	frame := appendFrame(make([]byte, 0, len(payload)+14), op, payload)
	cl.sending.Lock()
	defer cl.sending.Unlock()
	if err := conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	_, err := conn.Write(frame)
	return err
}

func (cl *client) connected() bool { return cl.current() != nil }

func (cl *client) current() *net.TCPConn {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	return cl.conn
}

// hangUp closes the connection, if there is one.
func (cl *client) hangUp() {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	if cl.conn != nil {
		_ = cl.conn.Close() // nothing is to be written any more
		cl.conn = nil
	}
}
