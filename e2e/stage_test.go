package e2e

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/lull-dev/lull/e2e/rig"
)

// stage is a node as one test uses it: what must succeed fails the test if it does not.
type stage struct {
	t *testing.T
	*rig.Node
}

// deploy deploys a directory and fails the test if that does not work.
func (s *stage) deploy(dir, name string) rig.Deployed {
	s.t.Helper()
	deployed, err := s.Deploy(within(s.t, 5*time.Minute), dir, name) // Go's standard library is compiled anew, beside other tests
	if err != nil {
		s.t.Fatal(err)
	}
	if deployed.App != name || deployed.Release < 1 || deployed.URL != s.URL(name, "/") {
		s.t.Fatalf("deploy of %s printed %+v", name, deployed)
	}
	return deployed
}

// command runs a command of lull, whatever its outcome.
func (s *stage) command(args ...string) rig.Result {
	s.t.Helper()
	result, err := s.Run(within(s.t, time.Minute), args...)
	if err != nil {
		s.t.Fatal(err)
	}
	return result
}

// environments lists the environments of an app that are up.
func (s *stage) environments(app string) []rig.Environment {
	s.t.Helper()
	environments, err := s.Environments(within(s.t, 20*time.Second), app)
	if err != nil {
		s.t.Fatal(err)
	}
	return environments
}

// awaitState waits until an app has exactly one environment, in that state, and returns it.
func (s *stage) awaitState(app, state string) rig.Environment {
	s.t.Helper()
	var found []rig.Environment
	eventually(s.t, 30*time.Second, app+" is "+state, func() (bool, any) {
		found = s.environments(app)
		return len(found) == 1 && found[0].State == state, found
	})
	return found[0]
}

// awaitZero waits until an app has no environment that is up.
func (s *stage) awaitZero(app string) {
	s.t.Helper()
	eventually(s.t, 30*time.Second, app+" goes back to zero", func() (bool, any) {
		found := s.environments(app)
		return len(found) == 0, found
	})
}

// logs returns what an app and Lull have printed for it.
func (s *stage) logs(app string) string {
	s.t.Helper()
	result := s.command("logs", app)
	if result.Code != 0 {
		s.t.Fatalf("lull logs %s: %s", app, result)
	}
	return result.Stdout
}

// answer is a response that has been read whole.
type answer struct {
	Status      int
	Header      http.Header
	Trailer     http.Header
	Body        string
	Environment string
	Took        string
}

// ask sends a request to an app and reads the answer.
func ask(ctx context.Context, client *http.Client, method, url, body string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return answer{
		Status: resp.StatusCode, Header: resp.Header, Trailer: resp.Trailer, Body: string(text),
		Environment: resp.Header.Get("Lull-Environment"), Took: rig.Took(resp.Header),
	}, err
}

// get asks for a path of an app on a connection of its own; the answer must be 200 and name its environment.
func (s *stage) get(app, path string) answer {
	s.t.Helper()
	return s.must(http.MethodGet, app, path, "")
}

// must is get for any method.
func (s *stage) must(method, app, path, body string) answer {
	s.t.Helper()
	a := s.try(method, app, path, body)
	if a.Status != http.StatusOK && a.Status != http.StatusCreated {
		s.t.Fatalf("%s %s%s: %d %v\n%s\n\nlogs:\n%s", method, app, path, a.Status, a.Header, a.Body, s.logs(app))
	}
	if a.Environment == "" || a.Took == "" {
		s.t.Fatalf("%s %s%s: the answer does not say where it comes from: %v", method, app, path, a.Header)
	}
	return a
}

// try is must for any answer.
func (s *stage) try(method, app, path, body string) answer {
	s.t.Helper()
	client := s.Client()
	defer client.CloseIdleConnections()
	a, err := ask(within(s.t, time.Minute), client, method, s.URL(app, path), body)
	if err != nil {
		s.t.Fatalf("%s %s%s: %v", method, app, path, err)
	}
	return a
}

// dial opens a WebSocket to an app.
func (s *stage) dial(app, path string) *websocket.Conn {
	s.t.Helper()
	conn, _, err := websocket.Dial(within(s.t, 30*time.Second), s.URL(app, path), &websocket.DialOptions{HTTPClient: s.Client()})
	if err != nil {
		s.t.Fatalf("open a WebSocket to %s: %v", app, err)
	}
	s.t.Cleanup(func() { conn.CloseNow() })
	return conn
}

// hear reads the next message.
func (s *stage) hear(conn *websocket.Conn) string {
	s.t.Helper()
	_, data, err := conn.Read(within(s.t, 15*time.Second))
	if err != nil {
		s.t.Fatalf("read a message: %v", err)
	}
	return string(data)
}

// say sends a message.
func (s *stage) say(conn *websocket.Conn, text string) {
	s.t.Helper()
	if err := conn.Write(within(s.t, 15*time.Second), websocket.MessageText, []byte(text)); err != nil {
		s.t.Fatalf("send a message: %v", err)
	}
}

// decode reads JSON that an app has answered.
func decode[T any](t *testing.T, text string) T {
	t.Helper()
	var value T
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		t.Fatalf("read %q: %v", text, err)
	}
	return value
}
