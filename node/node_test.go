package node_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/build/archive"
	"github.com/lull-dev/lull/control"
	"github.com/lull-dev/lull/node"
	"github.com/lull-dev/lull/store"
)

// The app of these tests: a real server in the host's Python, which says what it was deployed as.
const server = `
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = b"%s"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
`

func openNode(t *testing.T, data string) *node.Node {
	t.Helper()
	return openNodeWith(t, data, t.Output())
}

func openNodeWith(t *testing.T, data string, log io.Writer) *node.Node {
	t.Helper()
	n, err := node.Open(t.Context(), node.Config{
		Data: data, HTTP: "127.0.0.1:0", API: "127.0.0.1:0", Sandbox: "process",
		Log: slog.New(slog.NewTextHandler(log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func closeNode(t *testing.T, n *node.Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := n.Close(ctx); err != nil {
		t.Fatal(err)
	}
}

// deploy packs the files and deploys them as the app "hello".
func deploy(t *testing.T, n *node.Node, files map[string]string) (control.Deployed, error) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var packed bytes.Buffer
	if err := archive.Pack(&packed, dir, archive.Upload()); err != nil {
		t.Fatal(err)
	}
	return n.Deploy(t.Context(), control.DeployRequest{App: "hello", Archive: &packed}, func(e control.Event) {
		t.Logf("%s: %s", e.Phase, strings.TrimSpace(e.Text))
	})
}

func saying(text string) map[string]string {
	return map[string]string{"server.py": fmt.Sprintf(server, text), "lull.yaml": "run: python3 server.py\n"}
}

// ask sends a request to the app "hello" and returns status and body.
func ask(t *testing.T, n *node.Node) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+n.Info().HTTP+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "hello.localhost"
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func expect(t *testing.T, n *node.Node, status int, part string) {
	t.Helper()
	if got, body := ask(t, n); got != status || !strings.Contains(body, part) {
		t.Fatalf("answer is %d %q, want %d with %q", got, body, status, part)
	}
}

func TestDeployedAppOutlivesItsNode(t *testing.T) {
	data := t.TempDir()
	n := openNode(t, data)
	if _, err := deploy(t, n, saying("first")); err != nil {
		t.Fatal(err)
	}
	expect(t, n, 200, "first")
	closeNode(t, n)

	n = openNode(t, data)
	defer closeNode(t, n)
	expect(t, n, 200, "first")

	if err := os.RemoveAll(filepath.Join(data, "releases", "hello")); err != nil {
		t.Fatal(err)
	}
	got, err := n.Rollback(t.Context(), "hello", 1, func(control.Event) {})
	if err != nil || got.Release != 1 {
		t.Fatalf("rollback to a release whose files must come from the store: %+v, %v", got, err)
	}
}

func TestReleasesReplaceOneAnother(t *testing.T) {
	n := openNode(t, t.TempDir())
	defer closeNode(t, n)
	for i, text := range []string{"first", "second"} {
		got, err := deploy(t, n, saying(text))
		if err != nil || got.Release != i+1 || !strings.HasPrefix(got.URL, "http://hello.localhost:") {
			t.Fatalf("deploy of %q: %+v, %v", text, got, err)
		}
		expect(t, n, 200, text)
	}
	if got, err := n.Rollback(t.Context(), "hello", 0, func(control.Event) {}); err != nil || got.Release != 1 {
		t.Fatalf("rollback: %+v, %v", got, err)
	}
	expect(t, n, 200, "first")

	_, err := deploy(t, n, map[string]string{"lull.yaml": "run: sh -c 'echo out of luck >&2; exit 3'\n"})
	if lull.KindOf(err) != lull.KindNotReady || !strings.Contains(lull.HintOf(err), "out of luck") {
		t.Fatalf("deploy of an app that exits: %v", err)
	}
	expect(t, n, 200, "first")
	releases, err := n.Releases(t.Context(), "hello")
	if err != nil || len(releases) != 2 {
		t.Fatalf("releases after a failed deploy: %+v, %v", releases, err)
	}
}

func TestFailedFirstDeployLeavesNothing(t *testing.T) {
	data := t.TempDir()
	n := openNode(t, data)
	defer closeNode(t, n)
	if _, err := deploy(t, n, map[string]string{"lull.yaml": "run: 'false'\n"}); err == nil {
		t.Fatal("deployed an app that exits at once")
	}
	expect(t, n, 404, "hello.localhost")
	if apps, err := n.Apps(t.Context()); err != nil || len(apps) != 0 {
		t.Fatalf("apps: %+v, %v", apps, err)
	}
	for _, dir := range []string{"releases", "tmp"} {
		entries, err := os.ReadDir(filepath.Join(data, dir))
		if err != nil || len(entries) != 0 {
			t.Fatalf("%s holds %v, %v", dir, entries, err)
		}
	}
}

func TestUnfinishedDeployIsRemovedAtTheNextStart(t *testing.T) {
	data := t.TempDir()
	s, err := store.Open(t.Context(), filepath.Join(data, "store"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	rel := lull.Release{App: "hello", Created: time.Now(), Manifest: lull.DefaultManifest()}
	if _, err := s.AddRelease(t.Context(), rel, strings.NewReader("cut off")); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	n := openNode(t, data)
	defer closeNode(t, n)
	expect(t, n, 404, "hello.localhost")
	if got, err := deploy(t, n, saying("whole")); err != nil || got.App != "hello" {
		t.Fatalf("deploy after it: %+v, %v", got, err)
	}
	expect(t, n, 200, "whole")
}

// caller is a server whose answer to a POST is that of another one.
const caller = `
import http.server, os, urllib.request
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.send_response(urllib.request.urlopen("%s").status)
        self.end_headers()
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
`

// A call of a schedule that is under way when the node ends gets its time, as exchanges do.
func TestCloseLetsScheduledCallsFinish(t *testing.T) {
	began, finish := make(chan struct{}), make(chan struct{})
	far := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { close(began); <-finish }))
	defer far.Close()
	data := t.TempDir()
	n := openNode(t, data)
	if _, err := deploy(t, n, map[string]string{"server.py": fmt.Sprintf(caller, far.URL),
		"lull.yaml": "run: python3 server.py\nschedules: [{name: report, cron: '@yearly'}]\n"}); err != nil {
		t.Fatal(err)
	}
	closeNode(t, n)
	s, err := store.Open(t.Context(), filepath.Join(data, "store"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Mark(t.Context(), "hello", "report", time.Now().AddDate(-2, 0, 0)), s.Close()); err != nil {
		t.Fatal(err)
	}

	var log bytes.Buffer
	n = openNodeWith(t, data, io.MultiWriter(t.Output(), &log)) // which makes the call that was missed
	<-began
	idle, err := net.Dial("tcp", n.Info().HTTP)
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	if _, err := io.WriteString(idle, "GET / HTTP/1.1\r\nHost: nobody.localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	go func() { // once the node shuts its front door, which ends the idle connection
		_, _ = io.Copy(io.Discard, idle)
		close(finish)
	}()
	closeNode(t, n)
	if !strings.Contains(log.String(), "scheduled call done") {
		t.Error("the call was not finished")
	}
}

func TestRemoveDeletesEverything(t *testing.T) {
	data := t.TempDir()
	n := openNode(t, data)
	defer closeNode(t, n)
	if _, err := deploy(t, n, saying("gone soon")); err != nil {
		t.Fatal(err)
	}
	expect(t, n, 200, "gone soon")
	if err := n.Remove(t.Context(), "hello"); err != nil {
		t.Fatal(err)
	}
	expect(t, n, 404, "hello.localhost")
	if err := n.Remove(t.Context(), "hello"); lull.KindOf(err) != lull.KindNotFound {
		t.Fatalf("second removal: %v", err)
	}
	if _, err := os.Stat(filepath.Join(data, "releases", "hello")); !os.IsNotExist(err) {
		t.Fatalf("files of the app: %v", err)
	}
}
