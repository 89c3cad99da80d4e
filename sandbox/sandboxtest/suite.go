package sandboxtest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/sandbox"
)

// patience is how long the suite waits for something that should come at once, on a machine that has other work.
const patience = 30 * time.Second

type suite struct {
	driver    sandbox.Driver
	can       sandbox.Capabilities
	newDriver func(*testing.T) sandbox.Driver
	ports     sync.Map // given out by port
}

var lastID atomic.Int64

// spec describes a sandbox that runs the suite's program in a mode.
func (s *suite) spec(mode string, args ...string) sandbox.Spec {
	return sandbox.Spec{
		ID:     fmt.Sprintf("suite-%d-%d", os.Getpid(), lastID.Add(1)),
		Args:   Command(mode, args...),
		Env:    []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "PORT=8080", "HOME=/tmp"},
		Dir:    "/tmp",
		Limits: lull.Resources{Memory: 256 * lull.MB, CPU: 2, Disk: 64 * lull.MB, Processes: 256},
		Egress: lull.Egress{lull.EgressNone},
		Stdout: &sink{},
		Stderr: &sink{},
	}
}

// port returns a port for a program to listen on: want if every sandbox has its ports to itself, else one that is free.
// The kernel gives a port again once its listener is closed; the suite does not.
func (s *suite) port(t *testing.T, want int) int {
	if s.can.Ports {
		return want
	}
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		_ = l.Close()
		if _, taken := s.ports.LoadOrStore(port, true); !taken {
			return port
		}
	}
}

// box is a running sandbox, closed at the end of its test.
type box struct {
	sandbox.Sandbox
	t        *testing.T
	out, err *sink
	port     int // of the program, if it serves
	spec     sandbox.Spec
}

func (s *suite) start(t *testing.T, spec sandbox.Spec) *box {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	sb, err := s.driver.Start(ctx, spec)
	if err != nil {
		t.Fatalf("start %v: %v", spec.Args[min(3, len(spec.Args)-1):], err)
	}
	b := &box{Sandbox: sb, t: t, out: spec.Stdout.(*sink), err: spec.Stderr.(*sink), spec: spec}
	t.Cleanup(b.close)
	return b
}

// serve starts the program so that it answers on one port, in one of the modes that serve.
func (s *suite) serve(t *testing.T, change ...func(*sandbox.Spec)) *box {
	t.Helper()
	return s.serveMode(t, "serve", nil, change...)
}

func (s *suite) serveMode(t *testing.T, mode string, args []string, change ...func(*sandbox.Spec)) *box {
	t.Helper()
	port := s.port(t, 8080)
	spec := s.spec(mode, append(args, fmt.Sprintf("0.0.0.0:%d", port))...)
	for _, c := range change {
		c(&spec)
	}
	b := s.start(t, spec)
	b.port = port
	b.ready()
	return b
}

func (b *box) close() {
	if err := b.Close(); err != nil {
		b.t.Errorf("close %s: %v", b.ID(), err)
	}
}

// ready waits until the program listens.
func (b *box) ready() {
	b.t.Helper()
	eventually(b.t, "the program says ready", func() (any, bool) {
		select {
		case <-b.Done():
			b.t.Fatalf("the program ended: %+v\n%s%s", b.Exit(), b.out.tail(), b.err.tail())
		default:
		}
		return b.out.tail() + b.err.tail(), strings.Contains(b.out.tail(), "ready\n")
	})
}

// ended waits for the end of the process.
func (b *box) ended() sandbox.Exit {
	b.t.Helper()
	select {
	case <-b.Done():
		return b.Exit()
	case <-time.After(patience):
		b.t.Fatalf("%s has not ended after %v; it printed %q %q", b.ID(), patience, b.out.tail(), b.err.tail())
		panic("not reached")
	}
}

func (b *box) dial(port int) *line {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	conn, err := b.Dial(ctx, port)
	if err != nil {
		b.t.Fatalf("dial %d: %v", port, err)
	}
	b.t.Cleanup(func() { conn.Close() })
	return &line{b.t, conn, bufio.NewReader(conn)}
}

// ask sends the program one request over a connection of its own.
func (b *box) ask(verb string, args ...string) reply {
	b.t.Helper()
	l := b.dial(b.port)
	defer l.conn.Close()
	return l.ask(verb, args...)
}

// line is a connection to the program.
type line struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

type reply struct {
	OK    json.RawMessage
	Error string
}

// into decodes what was answered; it fails the test if that was an error.
func (r reply) into(t *testing.T, value any) {
	t.Helper()
	if r.Error != "" {
		t.Fatalf("the program answered with %s", r.Error)
	}
	if err := json.Unmarshal(r.OK, value); err != nil {
		t.Fatalf("decode %q: %v", r.OK, err)
	}
}

func (r reply) text(t *testing.T) (text string) {
	t.Helper()
	r.into(t, &text)
	return text
}

func (r reply) number(t *testing.T) (n int) {
	t.Helper()
	r.into(t, &n)
	return n
}

func (l *line) send(verb string, args ...string) {
	l.t.Helper()
	if _, err := fmt.Fprintln(l.conn, strings.Join(append([]string{verb}, args...), " ")); err != nil {
		l.t.Fatalf("send %s: %v", verb, err)
	}
}

func (l *line) receive() reply {
	l.t.Helper()
	l.conn.SetReadDeadline(time.Now().Add(patience))
	text, err := l.in.ReadString('\n')
	if err != nil {
		l.t.Fatalf("wait for an answer: %v", err)
	}
	var r reply
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		l.t.Fatalf("decode %q: %v", text, err)
	}
	return r
}

func (l *line) ask(verb string, args ...string) reply {
	l.t.Helper()
	l.send(verb, args...)
	return l.receive()
}

// given is what the program says it was given.
type given struct {
	Args   []string
	Env    map[string]string
	Dir    string
	UID    int
	GID    int
	Groups []int
	Pids   []int
	Host   string
}

// eventually waits until ok, and otherwise fails with what it saw last.
func eventually(t *testing.T, what string, look func() (saw any, ok bool)) {
	t.Helper()
	deadline := time.After(patience)
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for {
		saw, ok := look()
		if ok {
			return
		}
		select {
		case <-again.C:
		case <-deadline:
			t.Fatalf("not within %v: %s; last seen: %v", patience, what, saw)
		}
	}
}

// sink keeps the end of what a process prints and counts all of it.
type sink struct {
	mu    sync.Mutex
	end   []byte
	count int64
}

const sinkKeeps = 64 << 10

func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count += int64(len(p))
	s.end = append(s.end, p...)
	if len(s.end) > 2*sinkKeeps {
		s.end = append([]byte(nil), s.end[len(s.end)-sinkKeeps:]...)
	}
	return len(p), nil
}

func (s *sink) tail() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(s.end)
}

func (s *sink) total() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}
