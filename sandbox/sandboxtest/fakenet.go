package sandboxtest

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/lull-dev/lull/sandbox"
)

// pipeSize is how much a pipe takes before its writer waits, like a socket's buffers.
const pipeSize = 64 << 10

// fakeListener is a listening socket of a fake sandbox.
type fakeListener struct {
	sandbox *fakeBody
	addr    netip.AddrPort
	backlog chan *fakeConn // never closed
	stopped chan struct{}
	once    sync.Once
}

func (l *fakeListener) stop() { l.once.Do(func() { close(l.stopped) }) }

// Accept waits for a connection, and for the sandbox to be awake.
func (l *fakeListener) Accept() (net.Conn, error) {
	select {
	case <-l.stopped:
		return nil, net.ErrClosed
	case c := <-l.backlog:
		if err := l.sandbox.waitAwake(); err != nil {
			return nil, net.ErrClosed
		}
		return c, nil
	}
}

func (l *fakeListener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.addr) }

func (l *fakeListener) Close() error {
	l.stop()
	l.sandbox.mu.Lock()
	defer l.sandbox.mu.Unlock()
	delete(l.sandbox.listeners, int(l.addr.Port()))
	return nil
}

// connect makes a connection and puts its far end into the backlog.
func (l *fakeListener) connect(ctx context.Context) (net.Conn, error) {
	s := l.sandbox
	here, there := net.TCPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:50000")), net.TCPAddrFromAddrPort(l.addr)
	in, out := newPipe(), newPipe()
	in.writerHeld, out.readerHeld = true, true
	out.trespass = s.fake.trespass
	near := &fakeConn{in: in, out: out, local: here, remote: there}
	far := &fakeConn{in: out, out: in, local: there, remote: here}
	s.mu.Lock()
	if s.dead {
		s.mu.Unlock()
		return nil, sandbox.ErrExited
	}
	for _, p := range []*pipe{in, out} {
		p.hold(s.paused)
		s.pipes[p] = true
	}
	s.mu.Unlock()
	near.forget = func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if in.finished() && out.finished() {
			delete(s.pipes, in)
			delete(s.pipes, out)
		}
	}
	far.forget = near.forget
	select {
	case l.backlog <- far:
		return near, nil
	case <-l.stopped:
		return nil, errors.New("connection refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// fakeConn is one end of a connection.
type fakeConn struct {
	in, out       *pipe
	local, remote net.Addr
	forget        func()
}

func (c *fakeConn) Read(b []byte) (int, error)  { return c.in.read(b) }
func (c *fakeConn) Write(b []byte) (int, error) { return c.out.write(b) }
func (c *fakeConn) LocalAddr() net.Addr         { return c.local }
func (c *fakeConn) RemoteAddr() net.Addr        { return c.remote }

// CloseWrite ends one direction.
func (c *fakeConn) CloseWrite() error {
	c.out.closeWriter()
	return nil
}

func (c *fakeConn) Close() error {
	c.out.closeWriter()
	c.in.closeReader()
	c.forget()
	return nil
}

func (c *fakeConn) SetDeadline(t time.Time) error {
	c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

func (c *fakeConn) SetReadDeadline(t time.Time) error {
	c.in.setDeadline(&c.in.readBy, t)
	return nil
}

func (c *fakeConn) SetWriteDeadline(t time.Time) error {
	c.out.setDeadline(&c.out.writeBy, t)
	return nil
}

// pipe is one direction of a connection: a bounded buffer. The end that belongs to the sandbox stands still while that
// is paused.
type pipe struct {
	readerHeld, writerHeld bool   // which end belongs to the sandbox
	trespass               func() // called for writes to a paused sandbox; nil on the way out of it

	mu              sync.Mutex // guards everything below
	change          *sync.Cond
	data            []byte
	held            bool // the sandbox is paused
	broken          bool // the sandbox is dead
	noWriter        bool // what is in the buffer is the last
	noReader        bool
	readBy, writeBy deadline
}

func newPipe() *pipe {
	p := &pipe{}
	p.change = sync.NewCond(&p.mu)
	return p
}

func (p *pipe) filled() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.data) > 0 && !p.noReader
}

// deadline is when reads or writes fail. Guarded by the pipe's mu.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (p *pipe) setDeadline(d *deadline, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
	}
	d.at = at
	if !at.IsZero() {
		d.timer = time.AfterFunc(time.Until(at), p.wake)
	}
	p.change.Broadcast()
}

func (p *pipe) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.change.Broadcast()
}

// update changes the pipe and wakes whoever waits for that.
func (p *pipe) update(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
	p.change.Broadcast()
}

func (p *pipe) hold(held bool) { p.update(func() { p.held = held }) }
func (p *pipe) breakOff()      { p.update(func() { p.broken = true }) }
func (p *pipe) closeWriter()   { p.update(func() { p.noWriter = true }) }
func (p *pipe) closeReader()   { p.update(func() { p.noReader = true }) }

func (p *pipe) finished() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.noWriter && p.noReader
}

func (p *pipe) read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		held := p.readerHeld && p.held
		switch {
		case p.noReader:
			return 0, net.ErrClosed
		case p.broken && (p.readerHeld || len(p.data) == 0):
			return 0, syscall.ECONNRESET
		case held:
		case p.readBy.passed():
			return 0, os.ErrDeadlineExceeded
		case len(p.data) > 0:
			n := copy(b, p.data)
			p.data = p.data[n:]
			p.change.Broadcast()
			return n, nil
		case p.noWriter:
			return 0, io.EOF
		}
		p.change.Wait()
	}
}

func (p *pipe) write(b []byte) (written int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(b) > 0 {
		switch {
		case p.noWriter:
			return written, net.ErrClosed
		case p.noReader, p.broken:
			return written, syscall.EPIPE
		case p.writerHeld && p.held:
		case p.writeBy.passed():
			return written, os.ErrDeadlineExceeded
		case len(p.data) < pipeSize:
			if p.held && p.trespass != nil {
				p.trespass()
			}
			n := min(len(b), pipeSize-len(p.data))
			p.data = append(p.data, b[:n]...)
			b, written = b[n:], written+n
			p.change.Broadcast()
			continue
		}
		p.change.Wait()
	}
	return written, nil
}
