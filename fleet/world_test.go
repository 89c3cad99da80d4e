package fleet_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/fleet"
	"github.com/lull-dev/lull/internal/bubble"
	"github.com/lull-dev/lull/sandbox"
	"github.com/lull-dev/lull/sandbox/sandboxtest"
)

// startTime is how long the test's app takes from the start of its process until it listens.
const startTime = 200 * time.Millisecond

// world is a fleet with a fake driver in a synctest bubble: time passes only when everybody waits.
type world struct {
	*fleet.Fleet
	t       *testing.T
	fake    *sandboxtest.Fake
	journal *memory
}

var hello = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") })

// after is a program that sleeps before it does what next does.
func after(d time.Duration, next sandboxtest.Program) sandboxtest.Program {
	return func(p *sandboxtest.Process) int {
		select {
		case <-time.After(d):
			return next(p)
		case <-p.Done():
			return 0
		}
	}
}

var programs = map[string]sandboxtest.Program{
	"app":      after(startTime, sandboxtest.HTTP(hello)),
	"broken":   sandboxtest.Exits(1, 50*time.Millisecond, "cannot find module express"),
	"silent":   sandboxtest.Silent("waiting for a database"),
	"literal":  after(startTime, sandboxtest.HTTPOn("127.0.0.1:3000", hello)),
	"echo":     after(startTime, echoAfter(0)),
	"late":     after(startTime, echoAfter(300*time.Millisecond)),
	"function": runtimeAndFunction,
	"dies":     diesAsked,
	"trailers": after(startTime, sandboxtest.HTTP(http.HandlerFunc(withTrailers))),
	"v6":       after(startTime, sandboxtest.HTTPOn("[::]:5000", hello)),
}

// echoAfter answers every byte with the same. It begins to read from a connection that long after it was made.
func echoAfter(d time.Duration) sandboxtest.Program {
	return func(p *sandboxtest.Process) int {
		l, err := p.Listen("0.0.0.0:8080")
		if err != nil {
			return 1
		}
		for {
			conn, err := l.Accept()
			if err != nil {
				return 0
			}
			go func() { // ends with the connection
				defer conn.Close()
				select {
				case <-time.After(d):
					io.Copy(conn, conn)
				case <-p.Done():
				}
			}()
		}
	}
}

// inBubble runs a story in a world of its own, and closes it; every goroutine must have ended then.
func inBubble(t *testing.T, story func(t *testing.T, w *world), change ...func(*fleet.Config)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, change...)
		defer w.end()
		story(t, w)
	})
}

func newWorld(t *testing.T, change ...func(*fleet.Config)) *world {
	w := &world{t: t, fake: sandboxtest.NewFake(programs), journal: &memory{lines: map[string][]string{}}}
	config := fleet.Config{App: "chat", Driver: w.fake, Journal: w.journal, Prepare: prepare}
	for _, c := range change {
		c(&config)
	}
	w.Fleet = fleet.New(config)
	return w
}

func (w *world) end() {
	w.Close(0)
	if left := w.fake.Sandboxes(); len(left) > 0 {
		w.t.Errorf("%d sandboxes are left", len(left))
	}
	if n := w.fake.Trespasses(); n > 0 {
		w.t.Errorf("a paused sandbox was written to %d times", n)
	}
	w.fake.Close()
}

func prepare(_ context.Context, rel lull.Release) (sandbox.Spec, error) {
	return sandbox.Spec{Args: rel.Process.Args, Dir: "/app", Env: []string{fmt.Sprintf("PORT=%d", rel.Process.Port)},
		Limits: rel.Manifest.Resources}, nil
}

// release is a release of the test's app; changes are made to its manifest.
func release(number int, program string, changes ...func(*lull.Manifest)) lull.Release {
	m := lull.DefaultManifest()
	for _, c := range changes {
		c(&m)
	}
	return lull.Release{App: "chat", Number: number, Manifest: m,
		Process: lull.Process{Args: []string{program}, Dir: "/app", Port: lull.DefaultPort}}
}

func size(concurrency, most int) func(*lull.Manifest) {
	return func(m *lull.Manifest) { m.Concurrency, m.Scale.Max = concurrency, most }
}

// acquire gets a place that must be there.
func (w *world) acquire(why string) fleet.Place {
	w.t.Helper()
	p, err := w.Acquire(w.t.Context(), fleet.Want{Why: why})
	if err != nil {
		w.t.Fatalf("acquire for %s: %v", why, err)
	}
	return p
}

// warm brings one environment up and returns when it is idle.
func (w *world) warm() string {
	w.t.Helper()
	p := w.acquire("GET /warm")
	p.Free()
	return p.Environment()
}

// stream opens a stream on a running environment.
func (w *world) stream() (fleet.Stream, string) {
	w.t.Helper()
	p, err := w.Acquire(w.t.Context(), fleet.Want{Why: "GET /socket", Stream: true})
	if err != nil {
		w.t.Fatal(err)
	}
	defer p.Free()
	return p.Stream(), p.Environment()
}

// states returns the states of all environments, oldest first.
func (w *world) states() string {
	var list []string
	for _, s := range w.Environments() {
		list = append(list, s.State.String())
	}
	return strings.Join(list, " ")
}

// is checks the states of all environments once everything that can happen has happened.
func (w *world) is(want string) {
	w.t.Helper()
	synctest.Wait()
	if got := w.states(); got != want {
		w.t.Errorf("environments are [%s], want [%s]", got, want)
	}
}

// sleep lets time pass.
func sleep(d time.Duration) {
	bubble.Pass(d)
	synctest.Wait()
}

// get makes a request over the place and returns the body.
func get(t *testing.T, p fleet.Place) string {
	t.Helper()
	conn, err := p.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: chat\r\nConnection: close\r\n\r\n")
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(string(answer), "\r\n\r\n")
	return body
}

// memory is a journal.
type memory struct {
	mu    sync.Mutex
	lines map[string][]string // by environment
	notes []string
}

func (m *memory) Writer(_, env, _ string) io.WriteCloser { return &page{m, env} }

func (m *memory) Note(_, _, text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.notes = append(m.notes, text)
}

func (m *memory) Tail(_, env string, n int) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	lines := m.lines[env]
	return lines[max(0, len(lines)-n):]
}

func (m *memory) noted(text string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Contains(strings.Join(m.notes, "\n"), text)
}

// page takes what an environment prints; the fake's programs print whole lines.
type page struct {
	memory *memory
	env    string
}

func (p *page) Write(data []byte) (int, error) {
	p.memory.mu.Lock()
	defer p.memory.mu.Unlock()
	p.memory.lines[p.env] = append(p.memory.lines[p.env], strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")...)
	return len(data), nil
}

func (p *page) Close() error { return nil }
