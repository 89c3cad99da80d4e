package wire

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// pair returns both ends of a TCP connection.
func pair(t testing.TB) (near *Conn, far net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	far, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	inner, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close(); inner.Close() })
	return NewConn(inner), far
}

// counting is a Lender that knows whether its memory is out.
type counting struct {
	buf [16]byte
	out atomic.Bool
}

func (c *counting) Lend() []byte { c.out.Store(true); return c.buf[:] }
func (c *counting) Reclaim()     { c.out.Store(false) }

func eventually(t testing.TB, check func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !check(); <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("did not come to be in 10 s")
		}
	}
}

func TestReadToHoldsNoMemoryWhileItWaits(t *testing.T) {
	near, far := pair(t)
	lender := &counting{}
	lender.out.Store(true) // until it has waited
	read := make(chan string)
	go func() {
		n, err := near.ReadTo(lender)
		if err != nil {
			read <- err.Error()
			return
		}
		read <- string(lender.buf[:n])
	}()
	eventually(t, func() bool { return !lender.out.Load() })
	io.WriteString(far, "hello")
	if got := <-read; got != "hello" {
		t.Errorf("read %q", got)
	}
	far.Close()
	if _, err := near.ReadTo(lender); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

func TestReadToWithoutASocket(t *testing.T) {
	inner, far := net.Pipe()
	defer inner.Close()
	go func() { io.WriteString(far, "hello"); far.Close() }()
	near, lender := NewConn(inner), &counting{}
	if n, err := near.ReadTo(lender); string(lender.buf[:n]) != "hello" || err != nil {
		t.Errorf("read %q, %v", lender.buf[:n], err)
	}
	if _, err := near.ReadTo(lender); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	if err := near.AwaitHangup(); err != ErrNoSocket {
		t.Errorf("AwaitHangup says %v", err)
	}
	if near.Parkable() || !near.Untouched() {
		t.Error("a pipe is taken for a socket")
	}
}

func TestDeadlinesAndInterrupt(t *testing.T) {
	near, far := pair(t)
	lender := &counting{}
	timesOut := func(what string) {
		t.Helper()
		if _, err := near.ReadTo(lender); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %v", what, err)
		}
	}
	near.ReadWithin(10 * time.Millisecond)
	timesOut("a short time")
	near.ReadWithin(time.Hour)
	near.Interrupt()
	timesOut("interrupted")
	timesOut("still interrupted")
	near.ReadWithin(0)
	io.WriteString(far, "x")
	if n, err := near.ReadTo(lender); n != 1 || err != nil {
		t.Errorf("after all that: %d, %v", n, err)
	}
}

// TestADeadlineIsNeverEarly pushes a deadline in random steps and checks what would be in force.
func TestADeadlineIsNeverEarly(t *testing.T) {
	var by atomic.Int64
	var set time.Time
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Range(int64(time.Millisecond), int64(time.Hour)).Draw(t, "d"))
		before := time.Now()
		push(&by, d, func(to time.Time) error { set = to; return nil })
		after := time.Now()
		if set.Before(before.Add(d)) || set.After(after.Add(d+d/8)) {
			t.Fatalf("asked for %v, got %v", d, set.Sub(before))
		}
	})
}

func TestAwaitHangup(t *testing.T) {
	for _, test := range []struct {
		name string
		end  func(near *Conn, far *net.TCPConn)
		gone bool
	}{
		{"closed", func(_ *Conn, far *net.TCPConn) { far.Close() }, true},
		{"half closed behind bytes nobody reads", func(_ *Conn, far *net.TCPConn) { io.WriteString(far, "x"); far.CloseWrite() }, true},
		{"reset", func(_ *Conn, far *net.TCPConn) { far.SetLinger(0); far.Close() }, true},
		{"interrupted", func(near *Conn, far *net.TCPConn) { io.WriteString(far, "x"); near.Interrupt() }, false},
		{"closed from here", func(near *Conn, _ *net.TCPConn) { near.Close() }, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			near, far := pair(t)
			result := make(chan error, 1)
			go func() { result <- near.AwaitHangup() }()
			test.end(near, far.(*net.TCPConn))
			if err := <-result; (err == nil) != test.gone {
				t.Errorf("AwaitHangup says %v", err)
			}
		})
	}
}

func TestUntouched(t *testing.T) {
	near, far := pair(t)
	if !near.Untouched() {
		t.Error("touched before anything came")
	}
	io.WriteString(far, "x")
	eventually(t, func() bool { return !near.Untouched() })
	loan := &Loan{}
	if n, err := near.ReadTo(loan); n != 1 || err != nil {
		t.Errorf("the byte is gone: %d, %v", n, err)
	}
	if !near.Untouched() {
		t.Error("touched after the byte was read")
	}
	far.Close()
	eventually(t, func() bool { return !near.Untouched() })
}

func TestPoller(t *testing.T) {
	var poller Poller
	defer poller.Close()
	const count = 300
	woken := make(chan int, count)
	var fars []net.Conn
	var nears []*Conn
	for i := range count {
		near, far := pair(t)
		nears, fars = append(nears, near), append(fars, far)
		if _, err := poller.Park(near, false, func() { woken <- i }); err != nil {
			t.Fatal(err)
		}
	}
	for round := range 3 {
		seen := map[int]bool{}
		for i := range fars {
			go io.WriteString(fars[i], "x")
		}
		loan := Loan{}
		for range fars {
			i := <-woken
			if seen[i] {
				t.Fatalf("round %d: %d was woken twice", round, i)
			}
			seen[i] = true
			if n, err := nears[i].ReadTo(&loan); n != 1 || err != nil {
				t.Fatalf("read %d, %v", n, err)
			}
			if _, err := poller.Park(nears[i], false, func() { woken <- i }); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestPollerForgets(t *testing.T) {
	var poller Poller
	near, far := pair(t)
	woken := make(chan string, 2)
	ticket, err := poller.Park(near, false, func() { woken <- "first" })
	if err != nil {
		t.Fatal(err)
	}
	if !poller.Forget(ticket) || poller.Forget(ticket) {
		t.Error("Forget does not know what was parked")
	}
	io.WriteString(far, "x")
	if _, err := poller.Park(near, true, func() { woken <- "second" }); err != nil { // which a byte does not wake
		t.Fatal(err)
	}
	far.(*net.TCPConn).CloseWrite()
	if got := <-woken; got != "second" {
		t.Errorf("woke the %s", got)
	}
	near.Close()
	if _, err := poller.Park(near, false, func() {}); err == nil {
		t.Error("a closed connection was parked")
	}
	poller.Close()
}

func TestReaderGrowsAndGivesBack(t *testing.T) {
	near, far := pair(t)
	sent := bytes.Repeat([]byte("0123456789abcdef"), 2000)
	go func() { far.Write(sent); far.Close() }()
	r := &Reader{Conn: near}
	for len(r.Buffered()) < len(sent) {
		if err := r.Fill(); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(r.Buffered(), sent) {
		t.Error("the bytes are not those that were sent")
	}
	r.Discard(len(sent))
	r.Release()
	if r.buf != nil {
		t.Error("an empty Reader keeps its buffer")
	}
	if err := r.Fill(); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	small := &Reader{Conn: near, Limit: 1}
	small.buf, small.w = Borrow(Small), 1
	if err := small.Fill(); err != io.ErrShortBuffer {
		t.Errorf("over the limit: %v", err)
	}
}
