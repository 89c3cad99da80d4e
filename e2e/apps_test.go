package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// An ordinary Express server, which listens where it likes and has never heard of PORT.
func TestExpressOnItsOwnPort(t *testing.T) {
	t.Parallel()
	s := sharedNode(t)
	s.deploy("apps/express-3000", "express")

	if page := s.get("express", "/"); page.Body != "<h1>Notes</h1>" {
		t.Errorf("the page is %q", page.Body)
	}
	s.must(http.MethodPost, "express", "/notes", `{"text": "buy milk"}`)
	if notes := s.get("express", "/notes"); notes.Body != `[{"text":"buy milk"}]` {
		t.Errorf("the notes are %s", notes.Body)
	}
	seen := decode[struct {
		URL     string
		Headers map[string]string
	}](t, s.get("express", "/request?q=a%20b&q=%2F;c").Body)
	if seen.URL != "/request?q=a%20b&q=%2F;c" {
		t.Errorf("the app saw the path %q", seen.URL)
	}
	_, port, _ := strings.Cut(s.HTTP, ":")
	want := map[string]string{"host": "express.localhost:" + port, "x-forwarded-for": "127.0.0.1", "x-forwarded-proto": "http"}
	for name, value := range want {
		if seen.Headers[name] != value {
			t.Errorf("the app saw %s: %q, want %q", name, seen.Headers[name], value)
		}
	}
	if missing := s.try(http.MethodGet, "express", "/missing", ""); missing.Status != http.StatusNotFound || missing.Header.Get("Lull-Error") != "" {
		t.Errorf("a page the app does not have: %d, Lull-Error %q", missing.Status, missing.Header.Get("Lull-Error"))
	}
	if unknown := s.try(http.MethodGet, "nobody", "/", ""); unknown.Status != http.StatusNotFound || unknown.Header.Get("Lull-Error") != "no-app" {
		t.Errorf("an app that does not exist: %d, Lull-Error %q", unknown.Status, unknown.Header.Get("Lull-Error"))
	}
	if !strings.Contains(s.logs("express"), "listening on http://127.0.0.1:3000") {
		t.Error("lull logs does not show what the app has printed")
	}
}

// Socket.IO's own client begins with polling and upgrades to a WebSocket.
func TestSocketIO(t *testing.T) {
	t.Parallel()
	s := sharedNode(t)
	s.deploy("apps/socketio", "rooms")
	s.talk("rooms")
}

// talk lets two clients of Socket.IO talk in a room of the app.
func (s *stage) talk(app string) {
	t := s.t
	t.Helper()
	client := filepath.Join(t.TempDir(), "client")
	if err := os.CopyFS(client, os.DirFS("clients/socketio")); err != nil {
		t.Fatal(err)
	}
	command(t, client, "npm", "ci", "--no-audit", "--no-fund")
	address, _, _ := strings.Cut(s.HTTP, ":")
	said := decode[map[string]any](t, command(t, client, "node", "talk.js", s.URL(app, "/"), address))
	upgraded := []any{"polling", "websocket"}
	if diff := cmp.Diff(map[string]any{"first": upgraded, "second": upgraded, "text": "hello"}, said); diff != "" {
		t.Errorf("what the clients report (-want +got):\n%s", diff)
	}
}

// command runs a program that must succeed and returns what it prints.
func command(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(within(t, time.Minute), name, args...)
	cmd.Dir = dir
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, stderr.String())
	}
	return string(out)
}

// Server-sent events come as they are sent, also after a pause, and a listener that leaves is noticed by the app.
func TestServerSentEvents(t *testing.T) {
	t.Parallel()
	s := sharedNode(t)
	s.deploy(copyApp(t, "sse", map[string]string{"lull.yaml": "idle: {pause: 300ms}\nstream: {quiet: 700ms}\n"}), "events")

	ctx, leave := context.WithCancel(within(t, time.Minute))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL("events", "/events"), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	next := func() string {
		for lines.Scan() {
			if lines.Text() != "" {
				return lines.Text()
			}
		}
		t.Fatalf("the stream has ended: %v", lines.Err())
		return ""
	}
	if got := next(); got != "retry: 1000" {
		t.Errorf("the stream begins with %q", got)
	}
	for i, text := range []string{"first", "second", "after a pause"} {
		if text == "after a pause" {
			s.awaitState("events", "paused")
		}
		s.must(http.MethodPost, "events", "/publish", text)
		if got, want := next()+" "+next(), "id: "+string(rune('1'+i))+" data: "+text; got != want {
			t.Errorf("event %d is %q, want %q", i+1, got, want)
		}
	}
	leave()
	eventually(t, 10*time.Second, "the app notices that the listener has left", func() (bool, any) {
		body := s.get("events", "/").Body
		return body == `{"listeners":0}`, body
	})
}

func TestPythonWebSockets(t *testing.T) {
	t.Parallel()
	s := sharedNode(t)
	s.deploy("apps/python-websockets", "shout")

	conn := s.dial("shout", "/")
	for _, text := range []string{"hello", "again"} {
		s.say(conn, text)
		if got := s.hear(conn); got != strings.ToUpper(text) {
			t.Errorf("%q came back as %q", text, got)
		}
	}
}

func TestPythonAiohttp(t *testing.T) {
	t.Parallel()
	s := sharedNode(t)
	s.deploy("apps/python-aiohttp", "aiohttp")

	if got := s.get("aiohttp", "/?name=lull").Body; got != `{"hello": "lull"}` {
		t.Errorf("the answer is %s", got)
	}
	if got := s.must(http.MethodPost, "aiohttp", "/reverse", "stressed").Body; got != "desserts" {
		t.Errorf("the answer is %s", got)
	}
}

func TestGoServer(t *testing.T) {
	t.Parallel()
	s := sharedNode(t)
	s.deploy("apps/go-server", "go-server")

	if got := s.get("go-server", "/hello/lull").Body; got != "hello lull\n" {
		t.Errorf("the answer is %q", got)
	}
	text := strings.Repeat("0123456789", 10_000)
	echo := s.must(http.MethodPost, "go-server", "/echo", text)
	if echo.Body != text || echo.Trailer.Get("X-Bytes") != "100000" {
		t.Errorf("of 100000 bytes %d came back, with the trailer %v", len(echo.Body), echo.Trailer)
	}
}

// What somebody has at hand who wants to know what is going on: the tables, and JSON for programs.
func TestLooking(t *testing.T) {
	t.Parallel()
	s := sharedNode(t)
	s.deploy("apps/versions", "looked-at")
	s.get("looked-at", "/")

	for args, want := range map[string]string{
		"apps":               "looked-at",
		"ps looked-at":       "looked-at",
		"releases looked-at": "current",
		"logs looked-at":     "version 1.0.0",
	} {
		if result := s.command(strings.Fields(args)...); result.Code != 0 || !strings.Contains(result.Stdout, want) {
			t.Errorf("lull %s does not show %q: %s", args, want, result)
		}
	}
	var rows []map[string]any
	if err := json.Unmarshal([]byte(s.command("ps", "looked-at", "--json").Stdout), &rows); err != nil || len(rows) == 0 {
		t.Fatalf("lull ps --json: %v, %d rows", err, len(rows))
	}
	for _, field := range []string{"id", "app", "release", "state", "exchanges", "streams", "held", "memoryBytes", "since", "reason"} {
		if _, ok := rows[0][field]; !ok {
			t.Errorf("a row of lull ps --json has no %q: %v", field, rows[0])
		}
	}
	stranger, err := s.RunWith(within(t, 20*time.Second), []string{"LULL_API=" + s.API, "LULL_TOKEN=wrong"}, "apps")
	if err != nil || stranger.Code != 1 || !strings.Contains(stranger.Stderr, "token") {
		t.Errorf("a call with a wrong token: %v, %s", err, stranger)
	}
	if metrics := s.metrics(); !strings.Contains(metrics, "\nlull_") {
		t.Errorf("/metrics has nothing of Lull's:\n%.500s", metrics)
	}
	if result := s.command("rm", "looked-at", "--yes"); result.Code != 0 {
		t.Errorf("lull rm: %s", result)
	}
	if gone := s.try(http.MethodGet, "looked-at", "/", ""); gone.Status != http.StatusNotFound {
		t.Errorf("after lull rm the app answers %d", gone.Status)
	}
}

// metrics returns what the node counts.
func (s *stage) metrics() string {
	s.t.Helper()
	token, err := s.Token()
	if err != nil {
		s.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(within(s.t, 20*time.Second), http.MethodGet, s.API+"/metrics", nil)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		s.t.Fatalf("/metrics: %s, %v", resp.Status, err)
	}
	return string(body)
}

// lull logs -f shows a line when it is printed, and ends with Ctrl-C.
func TestFollowLogs(t *testing.T) {
	t.Parallel()
	s := sharedNode(t)
	s.deploy("apps/intruder", "talkative")

	follow := s.Command(within(t, time.Minute), "logs", "talkative", "-f")
	output, err := follow.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	intrude[string](s, "talkative", "read", "path", "/no/such/file")
	seen := false
	for lines := bufio.NewScanner(output); !seen && lines.Scan(); {
		seen = strings.Contains(lines.Text(), "/no/such/file")
	}
	if !seen {
		t.Error("the line did not come")
	}
	if err := follow.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = follow.Wait() // its exit code says that it was interrupted
}
