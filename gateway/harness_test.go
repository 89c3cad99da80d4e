package gateway

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"runtime"
	"runtime/pprof"
	"strings"
	"testing"
	"time"
)

// TestMain ends with as many goroutines as it began with.
func TestMain(m *testing.M) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt) // fuzzing does, and its goroutine stays
	signal.Stop(signals)
	before := runtime.NumGoroutine()
	code := m.Run()
	http.DefaultClient.CloseIdleConnections()
	deadline := time.Now().Add(5 * time.Second)
	for code == 0 && runtime.NumGoroutine() > before {
		if time.Now().After(deadline) {
			fmt.Fprintf(os.Stderr, "%d goroutines at the start, %d at the end:\n", before, runtime.NumGoroutine())
			pprof.Lookup("goroutine").WriteTo(os.Stderr, 1)
			code = 1
		}
		<-time.After(5 * time.Millisecond)
	}
	os.Exit(code)
}

// door is a gateway on loopback in front of one app.
type door struct {
	*Gateway
	t     testing.TB
	addr  string
	apps  *fakeApps
	fleet *fakeFleet
	env   *fakeEnvironment
}

// open starts a gateway in front of what dial reaches.
func open(t testing.TB, config Config, dial func(ctx context.Context) (net.Conn, error)) *door {
	t.Helper()
	env := newFakeEnvironment("env-1", dial)
	flt := &fakeFleet{env: env}
	apps := &fakeApps{fleet: flt}
	config.Apps = apps
	if config.Log == nil {
		config.Log = slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	}
	g := New(config)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- g.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		defer cancel()
		g.Shutdown(ctx)
		if err := <-served; err != ErrClosed {
			t.Errorf("Serve returned %v", err)
		}
		if got := env.counts(); got != (counts{}) {
			t.Errorf("at the end places, streams, holds are %v, want none", got)
		}
	})
	return &door{Gateway: g, t: t, addr: l.Addr().String(), apps: apps, fleet: flt, env: env}
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// openHandler starts a gateway in front of a net/http server.
func openHandler(t testing.TB, config Config, handler http.HandlerFunc) *door {
	t.Helper()
	app := httptest.NewServer(handler)
	t.Cleanup(app.Close)
	return open(t, config, dialer(app.Listener.Addr().String()))
}

// openRaw starts a gateway in front of an app that handles each connection with serve.
func openRaw(t testing.TB, config Config, serve func(conn net.Conn, in *bufio.Reader)) *door {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(conn, bufio.NewReader(conn))
			}()
		}
	}()
	return open(t, config, dialer(l.Addr().String()))
}

// client returns an HTTP/1.1 client that sends every host to the gateway.
func (d *door) client() *http.Client {
	transport := &http.Transport{DisableCompression: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dialer(d.addr)(ctx)
	}}
	d.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 60 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
}

// do sends a request and returns the answer with its body read.
func (d *door) do(client *http.Client, request *http.Request) (*http.Response, string) {
	d.t.Helper()
	answer, err := client.Do(request)
	if err != nil {
		d.t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		d.t.Fatalf("read body: %v", err)
	}
	return answer, string(body)
}

func (d *door) get(client *http.Client, url string) (*http.Response, string) {
	d.t.Helper()
	return d.do(client, newRequest(d.t, "GET", url, nil))
}

func newRequest(t testing.TB, method, url string, body io.Reader) *http.Request {
	t.Helper()
	request, err := http.NewRequest(method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	return request
}

// raw is a bare connection to the gateway.
type raw struct {
	net.Conn
	in *bufio.Reader
	t  testing.TB
}

func (d *door) dial() *raw {
	d.t.Helper()
	conn, err := net.Dial("tcp", d.addr)
	if err != nil {
		d.t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	d.t.Cleanup(func() { conn.Close() })
	return &raw{conn, bufio.NewReader(conn), d.t}
}

func (r *raw) send(format string, args ...any) *raw {
	r.t.Helper()
	if _, err := fmt.Fprintf(r.Conn, format, args...); err != nil {
		r.t.Fatalf("send: %v", err)
	}
	return r
}

// head reads one head, without its empty line.
func (r *raw) head() string {
	r.t.Helper()
	var lines []string
	for {
		line, err := r.in.ReadString('\n')
		if err != nil {
			r.t.Fatalf("read head after %q: %v", lines, err)
		}
		if line == "\r\n" {
			return strings.Join(lines, "")
		}
		lines = append(lines, line)
	}
}

// take reads n bytes.
func (r *raw) take(n int) string {
	r.t.Helper()
	buf := make([]byte, n)
	if m, err := io.ReadFull(r.in, buf); err != nil {
		r.t.Fatalf("read %d bytes: %v after %q", n, err, buf[:m])
	}
	return string(buf)
}

// rest reads until the end, however it comes.
func (r *raw) rest() (string, error) {
	all, err := io.ReadAll(r.in)
	return string(all), err
}
