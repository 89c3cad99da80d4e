package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// audience is how many clients the libraries' tests have.
const audience = 200

// sleepy is the manifest of apps that fall asleep quickly, with more keys.
func sleepy(more string) map[string]string {
	return map[string]string{"lull.yaml": "scale: {max: 1}\nidle: {pause: 500ms, hibernate: 2s}\n" + more}
}

// Socket.IO's server pings its clients, and a client that hears no ping leaves. Asleep for far longer than both allow,
// nobody leaves.
func TestSocketIOSleepsOnDisk(t *testing.T) {
	t.Parallel()
	s := sharedNode(t)
	s.deploy(copyApp(t, "socketio-memory", sleepy("stream: {quiet: 600ms}\n")), "sio-asleep")
	c := s.gatherSocketIO(audience, "sio-asleep")

	for round := 1; round <= 2; round++ {
		if r := c.order("ask"); r.Asked != round {
			t.Errorf("the server remembers %d questions of a client, want %d", r.Asked, round)
		}
		asleep := s.awaitState("sio-asleep", "hibernated")
		disk := s.checkNothingRuns(asleep)
		// pingInterval + pingTimeout are 2 s.
		s.staysAsleep("sio-asleep", asleep, 7*time.Second)
		began := time.Now()
		c.order(fmt.Sprintf("say round %d", round))
		eventually(t, 20*time.Second, "every client hears it", func() (bool, any) {
			r := c.order("report")
			return r.Heard == audience, r
		})
		t.Logf("%s on disk; heard by all in %s", megabytes(disk), time.Since(began).Round(time.Millisecond))
		r := c.order("report")
		if r.Connected != audience || len(r.Disconnects) > 0 || r.Said != round {
			t.Errorf("after round %d: %+v; want all connected and %d things said", round, r, round)
		}
	}
}

// socketIO is a program with many clients of Socket.IO.
type socketIO struct {
	t      *testing.T
	orders io.Writer
	lines  *bufio.Scanner
}

// socketIOReport is what it prints after every order.
type socketIOReport struct {
	Connected   int      `json:"connected"`
	Disconnects []string `json:"disconnects"` // reasons
	Heard       int      `json:"heard"`       // clients that have heard what was said last
	Said        int      `json:"said"`        // how many things have been said, as the server remembers
	Asked       int      `json:"asked"`       // how often the first client has asked, as the server remembers
}

// gatherSocketIO connects clients until the test ends.
func (s *stage) gatherSocketIO(clients int, app string) *socketIO {
	s.t.Helper()
	dir := filepath.Join(s.t.TempDir(), "client")
	if err := os.CopyFS(dir, os.DirFS("clients/socketio")); err != nil {
		s.t.Fatal(err)
	}
	command(s.t, dir, "npm", "ci", "--no-audit", "--no-fund")
	address, _, _ := strings.Cut(s.HTTP, ":")
	cmd := exec.Command("node", "crowd.js", s.URL(app, "/"), address, fmt.Sprint(clients))
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	orders, err := cmd.StdinPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	answers, err := cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	c := &socketIO{s.t, orders, bufio.NewScanner(answers)}
	if first := c.read(); first.Connected != clients {
		s.t.Fatalf("at first: %+v", first)
	}
	return c
}

func (c *socketIO) order(order string) socketIOReport {
	c.t.Helper()
	if _, err := io.WriteString(c.orders, order+"\n"); err != nil {
		c.t.Fatal(err)
	}
	return c.read()
}

// read reads a report; the program ends by itself when it has nothing to say for too long.
func (c *socketIO) read() socketIOReport {
	c.t.Helper()
	if !c.lines.Scan() {
		c.t.Fatalf("the Socket.IO clients have ended: %v", c.lines.Err())
	}
	return decode[socketIOReport](c.t, c.lines.Text())
}

// Python's websockets pings its clients every 20 s and closes after 20 s without a pong. A variant does so every second.
func TestPythonWebSocketsSleepOnDisk(t *testing.T) {
	t.Parallel()
	for name, python := range map[string]struct {
		replace string
		asleep  time.Duration
	}{
		"default": {"", 45 * time.Second},
		"hasty":   {`, ping_interval=1, ping_timeout=1`, 7 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, app := sharedNode(t), "python-"+name
			dir := copyApp(t, "python-websockets", sleepy("stream: {quiet: 1s}\n"))
			replaceIn(t, filepath.Join(dir, "main.py"), `int(os.environ["PORT"])`, `int(os.environ["PORT"])`+python.replace)
			s.deploy(dir, app)
			c := s.gather(audience, 2*time.Second, app, "/")
			c.checkAllHear("say-all before", 20*time.Second)
			asleep := s.awaitState(app, "hibernated")
			disk := s.checkNothingRuns(asleep)
			c.checkOnTime(func() { s.staysAsleep(app, asleep, python.asleep) })
			took := c.checkAllHear("say-all after", 20*time.Second)
			t.Logf("%s on disk; every client answered in %s", megabytes(disk), took.Round(time.Millisecond))
			c.checkUndisturbed()
			s.awaitState(app, "hibernated")
			c.checkAllHear("say-all again", 20*time.Second)
			c.checkUndisturbed()
		})
	}
}

// A Go server with read deadlines, which pongs push forward, lives on by ticks with hold: memory.
func TestReadDeadlinesLiveByTicks(t *testing.T) {
	t.Parallel()
	s := sharedNode(t)
	s.deploy(copyApp(t, "go-deadlines", sleepy("stream: {quiet: 1s, hold: memory, tick: 1s}\n")), "deadlines-memory")
	c := s.gather(audience, 2*time.Second, "deadlines-memory", "/")
	c.checkAllHear("say-all before", 20*time.Second)
	asleep := s.awaitState("deadlines-memory", "paused")
	c.checkOnTime(func() { s.staysAsleep("deadlines-memory", asleep, 13*time.Second) }) // three times the server's deadline
	if r := c.order("report"); r.ServerPings == 0 {
		t.Error("the server's own pings did not come out in its ticks")
	}
	took := c.checkAllHear("say-all after", 20*time.Second)
	t.Logf("every client answered in %s", took.Round(time.Millisecond))
	c.checkUndisturbed()
}

// On disk there are no ticks: deadlines have passed when it wakes. The server closes what it finds first; who has its pong
// in before that lives on. Clients see either an ordinary close or nothing at all.
func TestReadDeadlinesPassOnDisk(t *testing.T) {
	t.Parallel()
	s := sharedNode(t)
	s.deploy(copyApp(t, "go-deadlines", sleepy("stream: {quiet: 1s, hold: disk, tick: 1s}\n")), "deadlines-disk")
	c := s.gather(audience, 2*time.Second, "deadlines-disk", "/")
	asleep := s.awaitState("deadlines-disk", "hibernated")
	c.checkOnTime(func() { s.staysAsleep("deadlines-disk", asleep, 5*time.Second) })
	c.checkUndisturbed()
	if a := s.get("deadlines-disk", "/"); a.Took != "wake" || a.Environment != asleep.ID {
		t.Errorf("the request came by %q from %s, want by \"wake\" from %s", a.Took, a.Environment, asleep.ID)
	}
	s.awaitState("deadlines-disk", "hibernated")
	r := c.order("report")
	t.Logf("%d live on, the others were closed by %v", r.Open, r.Closes)
	for how, n := range r.Closes {
		if how != "1000" && how != "1001" && how != "1005" {
			t.Errorf("%d connections ended by %q, want an ordinary close", n, how)
		}
	}
}

// Listeners of server-sent events are held like WebSockets, also on disk.
func TestServerSentEventsSleepOnDisk(t *testing.T) {
	t.Parallel()
	s := sharedNode(t)
	s.deploy(copyApp(t, "sse", sleepy("stream: {quiet: 1s}\n")), "events-disk")
	var heard sync.Map // listener -> what it has heard
	ctx, leave := context.WithCancel(t.Context())
	var listening sync.WaitGroup
	defer listening.Wait()
	defer leave()
	for i := range audience {
		lines := s.listen(ctx, "events-disk")
		listening.Go(func() {
			var all []string
			for lines.Scan() {
				if line := lines.Text(); strings.HasPrefix(line, "data: ") {
					all = append(all, strings.TrimPrefix(line, "data: "))
					heard.Store(i, strings.Join(all, " "))
				}
			}
			if ctx.Err() == nil {
				t.Errorf("the stream of listener %d has ended: %v", i, lines.Err())
			}
		})
	}
	want := ""
	for _, text := range []string{"one", "two", "three"} {
		asleep := s.awaitState("events-disk", "hibernated")
		disk := s.checkNothingRuns(asleep)
		if asleep.Held != audience {
			t.Errorf("%d streams are held, want %d", asleep.Held, audience)
		}
		began := time.Now()
		if a := s.must(http.MethodPost, "events-disk", "/publish", text); a.Took != "wake" || a.Environment != asleep.ID {
			t.Errorf("the request came by %q from %s, want by \"wake\" from %s", a.Took, a.Environment, asleep.ID)
		}
		want = strings.TrimSpace(want + " " + text)
		eventually(t, 20*time.Second, "every listener hears it", func() (bool, any) {
			n := 0
			heard.Range(func(_, all any) bool {
				if all == want {
					n++
				}
				return true
			})
			return n == audience, n
		})
		t.Logf("%s on disk; heard by all in %s", megabytes(disk), time.Since(began).Round(time.Millisecond))
	}
}

// listen opens a stream of server-sent events until ctx ends.
func (s *stage) listen(ctx context.Context, app string) *bufio.Scanner {
	s.t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL(app, "/events"), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := s.Client().Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		s.t.Fatalf("listen: %s", resp.Status)
	}
	return bufio.NewScanner(resp.Body)
}

// Express keeps sessions in memory by default: they outlive a sleep on disk.
func TestExpressSessionsSleepOnDisk(t *testing.T) {
	t.Parallel()
	s := sharedNode(t)
	s.deploy(copyApp(t, "express-session", sleepy("")), "sessions")
	client := s.Client()
	var err error
	if client.Jar, err = cookiejar.New(nil); err != nil {
		t.Fatal(err)
	}
	for visits := 1; visits <= 4; visits++ {
		a, err := ask(within(t, 30*time.Second), client, http.MethodGet, s.URL("sessions", "/"), "")
		if want := fmt.Sprintf(`{"visits":%d}`, visits); err != nil || a.Body != want {
			t.Fatalf("visit %d was answered with %d %s (%v), by %q", visits, a.Status, a.Body, err, a.Took)
		}
		if visits > 1 && a.Took != "wake" {
			t.Errorf("visit %d came by %q, want \"wake\"", visits, a.Took)
		}
		// The client closes its idle connection or not: either way the environment falls asleep.
		s.checkNothingRuns(s.awaitState("sessions", "hibernated"))
	}
}
