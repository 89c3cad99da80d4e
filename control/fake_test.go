package control

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/lull-dev/lull"
)

// fakeNode is a Node that answers what a test tells it to.
type fakeNode struct {
	apps         []AppInfo
	releases     []ReleaseInfo
	environments []Environment
	info         NodeInfo
	err          error // of every call

	asked    string // what the last call asked for
	deploy   func(ctx context.Context, req DeployRequest, emit func(Event)) (Deployed, error)
	rollback func(ctx context.Context, app string, release int, emit func(Event)) (Deployed, error)
	logs     func(ctx context.Context, app string, query LogQuery, fn func(LogEntry) error) error
}

func (n *fakeNode) Deploy(ctx context.Context, req DeployRequest, emit func(Event)) (Deployed, error) {
	return n.deploy(ctx, req, emit)
}

func (n *fakeNode) Rollback(ctx context.Context, app string, release int, emit func(Event)) (Deployed, error) {
	return n.rollback(ctx, app, release, emit)
}

func (n *fakeNode) Remove(_ context.Context, app string) error {
	n.asked = app
	return n.err
}

func (n *fakeNode) Apps(context.Context) ([]AppInfo, error) { return n.apps, n.err }

func (n *fakeNode) Releases(_ context.Context, app string) ([]ReleaseInfo, error) {
	n.asked = app
	return n.releases, n.err
}

func (n *fakeNode) Schedules(_ context.Context, app string) ([]Schedule, error) {
	at := time.Unix(1, 0).UTC()
	return []Schedule{{App: app, Name: "tick", Cron: "@hourly", Zone: "UTC", Next: &at}}, nil
}

func (n *fakeNode) Events(_ context.Context, app string) ([]QueuedEvent, error) {
	at := time.Unix(2, 0).UTC()
	return []QueuedEvent{{App: app, ID: "e1", State: EventDead, Accepted: at, Dead: &at, Attempts: 3, LastError: "no"}}, nil
}

func (n *fakeNode) EventPayload(_ context.Context, app, id string) (EventPayload, error) {
	n.asked = app + " " + id
	return EventPayload{Event: `{"a":"<&>"}`}, n.err
}

func (n *fakeNode) RetryEvent(_ context.Context, app, id string) error {
	n.asked = "retry " + app + " " + id
	return n.err
}

func (n *fakeNode) RemoveEvent(_ context.Context, app, id string) error {
	n.asked = "remove " + app + " " + id
	return n.err
}

func (n *fakeNode) Environments(_ context.Context, app string) ([]Environment, error) {
	n.asked = app
	return n.environments, n.err
}

func (n *fakeNode) Logs(ctx context.Context, app string, query LogQuery, fn func(LogEntry) error) error {
	return n.logs(ctx, app, query, fn)
}

func (n *fakeNode) NodeInfo(context.Context) (NodeInfo, error) { return n.info, n.err }

const testToken = "0123456789abcdef0123456789abcdef"

// serve serves a node on a free port and returns a client of it.
func serve(t testing.TB, node Node) *Client {
	t.Helper()
	return serveHandler(t, Handler(node, []string{"another", testToken}, nil, slog.New(slog.DiscardHandler)))
}

func serveHandler(t testing.TB, handler http.Handler) *Client {
	t.Helper()
	goroutines := runtime.NumGoroutine()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := NewServer(handler, slog.New(slog.DiscardHandler))
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("serve: %v", err)
		}
	})
	client := &Client{URL: "http://" + listener.Addr().String(), Token: testToken}
	t.Cleanup(func() {
		server.Close()
		serving.Wait()
		client.client().CloseIdleConnections()
		eventually(t, "all goroutines end", func() bool { return runtime.NumGoroutine() <= goroutines })
	})
	return client
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for !condition() {
		select {
		case <-deadline:
			stacks := make([]byte, 1<<16)
			t.Fatalf("waited in vain: %s\n%s", what, stacks[:runtime.Stack(stacks, true)])
		default:
			runtime.Gosched()
		}
	}
}

func wantKind(t testing.TB, err error, kind lull.Kind) {
	t.Helper()
	if err == nil || lull.KindOf(err) != kind {
		t.Errorf("got error %v of kind %q, want kind %q", err, lull.KindOf(err), kind)
	}
}

func ignore(Event) {}

// endless is an archive without an end.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// readAll is the part of a node that receives the archive.
func readAll(req DeployRequest) ([]byte, error) {
	var got bytes.Buffer
	_, err := io.Copy(&got, req.Archive)
	return got.Bytes(), err
}
