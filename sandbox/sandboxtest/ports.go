package sandboxtest

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lull-dev/lull/sandbox"
)

func (s *suite) listeners(t *testing.T) {
	var want []string
	for i, host := range []string{"[::1]", "[::]", "127.0.0.1", "0.0.0.0"} {
		want = append(want, fmt.Sprintf("%s:%d", host, s.port(t, 9000+i)))
	}
	if !s.can.Ports { // they came as they were free
		slices.SortFunc(want, func(a, b string) int { return portOf(a) - portOf(b) })
	}
	b := s.start(t, s.spec("serve", want...))
	b.ready()
	listeners, err := b.Listeners(t.Context())
	if err != nil {
		t.Fatalf("listeners: %v", err)
	}
	var got []string
	for _, l := range listeners {
		got = append(got, l.Addr.String())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	for _, addr := range want {
		if got := b.dial(portOf(addr)).ask("echo", "hello").text(t); got != "hello" {
			t.Errorf("%s answers %q", addr, got)
		}
	}
}

func portOf(addr string) int { return int(netip.MustParseAddrPort(addr).Port()) }

// ports returns the ports of the listeners, in the order in which they came.
func (b *box) ports() (ports []int) {
	b.t.Helper()
	listeners, err := b.Listeners(b.t.Context())
	if err != nil {
		b.t.Fatalf("listeners: %v", err)
	}
	for _, l := range listeners {
		ports = append(ports, int(l.Addr.Port()))
	}
	return ports
}

func (s *suite) manyListeners(t *testing.T) {
	var addrs []string
	var want []int
	for i := range 200 {
		port := s.port(t, 10000+i)
		want = append(want, port)
		addrs = append(addrs, fmt.Sprintf("127.0.0.1:%d", port))
	}
	slices.Sort(want)
	b := s.start(t, s.spec("serve", addrs...))
	b.ready()
	if diff := cmp.Diff(want, b.ports()); diff != "" {
		t.Errorf("ports: (-want +got)\n%s", diff)
	}
	if got := b.dial(want[150]).ask("echo", "hello").text(t); got != "hello" {
		t.Errorf("port %d answers %q", want[150], got)
	}
}

// Two sandboxes whose apps insist on the same port, one of them on loopback, do not meet.
func (s *suite) fixedPorts(t *testing.T) {
	var boxes []*box
	for _, host := range []string{"127.0.0.1", "0.0.0.0", "[::1]"} {
		b := s.start(t, s.spec("serve", host+":3000"))
		b.ready()
		b.port = 3000
		boxes = append(boxes, b)
	}
	for i, b := range boxes {
		if word := fmt.Sprint("box-", i); b.ask("echo", word).text(t) != word {
			t.Errorf("%d does not answer", i)
		}
	}
}

func (s *suite) dialNobody(t *testing.T) {
	b := s.serve(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	began := time.Now()
	if conn, err := b.Dial(ctx, s.port(t, 4444)); err == nil {
		conn.Close()
		t.Fatal("connected to a port that nobody listens on")
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("refused after %v, want at once", took)
	}
}

func (s *suite) dialIsSilent(t *testing.T) {
	b := s.serve(t)
	conn, ok := b.dial(b.port).conn.(*net.TCPConn)
	if !ok {
		return // not a socket of the kernel's: there is nobody to send probes
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		if on, err := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_KEEPALIVE); on != 0 || err != nil {
			t.Errorf("keep-alive is %d (%v), want off", on, err)
		}
	})
}

func (b *box) mustPause() {
	b.t.Helper()
	if err := b.Pause(b.t.Context()); err != nil {
		b.t.Fatalf("pause: %v", err)
	}
}

func (b *box) mustResume() {
	b.t.Helper()
	if err := b.Resume(b.t.Context()); err != nil {
		b.t.Fatalf("resume: %v", err)
	}
}

// answersNothing checks that no answer comes for a while.
func (l *line) answersNothing(during time.Duration) {
	l.t.Helper()
	l.conn.SetReadDeadline(time.Now().Add(during))
	if got, err := l.in.ReadString('\n'); err == nil {
		l.t.Errorf("a paused sandbox answers %q", got)
	}
}

func (s *suite) pause(t *testing.T) {
	b := s.serve(t)
	line := b.dial(b.port)
	for range 3 {
		before := line.ask("ticks").number(t)
		b.mustPause()
		line.send("ticks")
		line.answersNothing(300 * time.Millisecond)
		b.mustResume()
		// The program counts a hundred times a second, so 300 ms awake would show as thirty; what is counted before the
		// answer is sent after the resume, and before the pause, is much less.
		if after := line.receive().number(t); after < before || after > before+20 {
			t.Errorf("counted from %d to %d while paused", before, after)
		}
		if got := line.ask("echo", "same-connection").text(t); got != "same-connection" {
			t.Errorf("answers %q after the resume", got)
		}
	}
}

func (s *suite) pauseTwice(t *testing.T) {
	b := s.serve(t)
	line := b.dial(b.port)
	b.mustResume() // it is running
	b.mustPause()
	b.mustPause()
	line.send("echo", "back")
	line.answersNothing(100 * time.Millisecond)
	b.mustResume()
	b.mustResume()
	if got := line.receive().text(t); got != "back" {
		t.Errorf("answers %q after the resume", got)
	}
}

func (s *suite) pauseUnderFire(t *testing.T) {
	b := s.serve(t)
	line := b.dial(b.port)
	line.conn.SetReadDeadline(time.Now().Add(patience))
	errs := make(chan error, 4)
	for i := range cap(errs) {
		verb := b.Pause
		if i%2 == 0 {
			verb = b.Resume
		}
		go func() { // ends after 25 calls; the loop below waits for it
			var err error
			for range 25 {
				if err = verb(t.Context()); err != nil {
					break
				}
			}
			errs <- err
		}()
	}
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Errorf("pause or resume: %v", err)
		}
	}
	b.mustResume()
	if got := line.ask("echo", "still-here").text(t); got != "still-here" {
		t.Errorf("answers %q", got)
	}
}

func (s *suite) pauseUsesNoCPU(t *testing.T) {
	b := s.serve(t)
	b.mustPause()
	before := b.mustUsage()
	select {
	case <-b.Done():
		t.Fatalf("ended: %+v", b.Exit())
	case <-time.After(500 * time.Millisecond): // long enough to see it if it were running
	}
	if used := b.mustUsage().CPU - before.CPU; used > 20*time.Millisecond {
		t.Errorf("a paused sandbox used %v of CPU in 500ms", used)
	}
}

func (s *suite) listenersWhilePaused(t *testing.T) {
	b := s.serve(t)
	b.mustPause()
	if diff := cmp.Diff([]int{b.port}, b.ports()); diff != "" {
		t.Errorf("ports: (-want +got)\n%s", diff)
	}
}

func (b *box) mustUsage() sandbox.Usage {
	b.t.Helper()
	usage, err := b.Usage()
	if err != nil {
		b.t.Fatalf("usage: %v", err)
	}
	return usage
}

func (s *suite) usage(t *testing.T) {
	b := s.serve(t)
	first := b.mustUsage()
	if first.Memory <= 0 { // the CPU is counted in steps that a start may be too short for
		t.Errorf("usage is %+v, want some memory", first)
	}
	b.ask("spin", "1")
	eventually(t, "a second of CPU is used", func() (any, bool) {
		now := b.mustUsage()
		return now, now.CPU > first.CPU+time.Second
	})
}
