package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"sync"
	"time"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/build/archive"
	"github.com/lull-dev/lull/control"
	"github.com/lull-dev/lull/manifest"
)

// fakeNode is a node without sandboxes, behind the real API. What a deploy does depends on a file in the upload:
// "build-fails", "never-ready", "slow" (waits until the client goes away).
type fakeNode struct {
	dir   string // scratch
	start time.Time

	mu   sync.Mutex
	apps map[string]*fakeApp
	done map[string]bool // events that were delivered or removed
	gone chan struct{}   // closed when a slow deploy has been given up
}

type fakeApp struct {
	releases []control.ReleaseInfo
	current  int
}

func newFakeNode(dir string) *fakeNode {
	return &fakeNode{dir: dir, start: time.Now(), apps: map[string]*fakeApp{}, done: map[string]bool{}, gone: make(chan struct{})}
}

func (n *fakeNode) Deploy(ctx context.Context, req control.DeployRequest, emit func(control.Event)) (control.Deployed, error) {
	emit(control.Event{Phase: control.PhaseUpload, Text: "receiving files"})
	source, err := os.MkdirTemp(n.dir, "deploy-")
	if err != nil {
		return control.Deployed{}, err
	}
	if err := archive.Unpack(req.Archive, source, archive.Upload()); err != nil {
		return control.Deployed{}, err
	}
	has := func(name string) bool {
		_, err := os.Stat(filepath.Join(source, name))
		return err == nil
	}
	emit(control.Event{Phase: control.PhaseBuild})
	if m := req.Manifest; m != nil {
		text, err := manifest.Format(*m)
		if err != nil {
			return control.Deployed{}, err
		}
		emit(control.Event{Phase: control.PhaseBuild, Text: "manifest of " + req.App + ":\n" + string(text)})
	}
	for _, file := range filesIn(source) {
		emit(control.Event{Phase: control.PhaseBuild, Text: "got " + file + "\n"})
	}
	emit(control.Event{Phase: control.PhaseBuild, Text: "10%\r100%\nno line "})
	emit(control.Event{Phase: control.PhaseBuild, Text: "end, \x1b[31mred\x1b[0m"})
	switch {
	case has("slow"):
		<-ctx.Done()
		close(n.gone)
		return control.Deployed{}, ctx.Err()
	case has("build-fails"):
		return control.Deployed{}, &lull.Error{Kind: lull.KindBuild, Message: "build: npm ci: exit status 1", Hint: "the output above says why"}
	}
	emit(control.Event{Phase: control.PhaseStore})
	emit(control.Event{Phase: control.PhaseStart, Text: "starting it"})
	if has("never-ready") {
		return control.Deployed{}, &lull.Error{Kind: lull.KindNotReady,
			Message: "the app exited with code 1 before it was ready\nError: no database", Hint: "release 1 keeps serving"}
	}
	return n.release(req.App), nil
}

func (n *fakeNode) release(name string) control.Deployed {
	n.mu.Lock()
	defer n.mu.Unlock()
	app := n.apps[name]
	if app == nil {
		app = &fakeApp{}
		n.apps[name] = app
	}
	number := len(app.releases) + 1
	app.releases = append(app.releases, control.ReleaseInfo{Release: number, Created: n.start, Run: "node server.js", Size: 3 * lull.KB / 2})
	app.current = number
	return deployed(name, number)
}

func deployed(name string, number int) control.Deployed {
	return control.Deployed{App: name, Release: number, URL: "http://" + name + ".localhost:8080/"}
}

func (n *fakeNode) app(name string) (*fakeApp, error) {
	if app := n.apps[name]; app != nil {
		return app, nil
	}
	return nil, &lull.Error{Kind: lull.KindNotFound, Message: fmt.Sprintf("there is no app %q", name), Hint: "lull apps lists them"}
}

func (n *fakeNode) Rollback(_ context.Context, name string, number int, emit func(control.Event)) (control.Deployed, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	app, err := n.app(name)
	if err != nil {
		return control.Deployed{}, err
	}
	if number == 0 {
		number = app.current - 1
	}
	if number < 1 || number > len(app.releases) {
		return control.Deployed{}, &lull.Error{Kind: lull.KindNotFound, Message: fmt.Sprintf("%s has no release %d", name, number)}
	}
	emit(control.Event{Phase: control.PhaseStart})
	app.current = number
	return deployed(name, number), nil
}

func (n *fakeNode) Remove(_ context.Context, name string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, err := n.app(name); err != nil {
		return err
	}
	delete(n.apps, name)
	return nil
}

func (n *fakeNode) names() []string {
	var names []string
	for name := range n.apps {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

func (n *fakeNode) Apps(context.Context) ([]control.AppInfo, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var rows []control.AppInfo
	for _, name := range n.names() {
		app := n.apps[name]
		rows = append(rows, control.AppInfo{Name: name, Release: app.current, URL: deployed(name, 0).URL, Environments: 1,
			Created: n.start, Deployed: n.start})
	}
	return rows, nil
}

func (n *fakeNode) Releases(_ context.Context, name string) ([]control.ReleaseInfo, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	app, err := n.app(name)
	if err != nil {
		return nil, err
	}
	rows := append([]control.ReleaseInfo(nil), app.releases...)
	rows[app.current-1].Current = true
	return rows, nil
}

func (n *fakeNode) Environments(_ context.Context, name string) ([]control.Environment, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if name != "" {
		if _, err := n.app(name); err != nil {
			return nil, err
		}
	}
	var rows []control.Environment
	for _, app := range n.names() {
		if name == "" || name == app {
			rows = append(rows, control.Environment{ID: app + "-1-abcd", App: app, Release: n.apps[app].current, State: lull.Paused,
				Streams: 2, Held: 1, MemoryBytes: 48 * lull.MB, CPUSeconds: 1.5, Since: n.start, Reason: "idle for 2s",
				Moves: []control.Transition{{At: n.start, State: lull.Running, Why: "GET /rooms"}, {At: n.start, State: lull.Paused, Why: "idle for 2s"}}})
		}
	}
	return rows, nil
}

func (n *fakeNode) Schedules(_ context.Context, name string) ([]control.Schedule, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if name == "" {
		return nil, nil
	}
	if _, err := n.app(name); err != nil {
		return nil, err
	}
	at := n.start
	return []control.Schedule{{App: name, Name: "tick", Cron: "@hourly", Zone: "Europe/Berlin", Next: &at, Last: &at, TookMS: 1500, Result: "ok"},
		{App: name, Name: "schedule-2", Cron: "0 0 30 2 *", Zone: "UTC"}}, nil
}

// Events has those of every app: one that waits, and two dead letters until they are dealt with.
func (n *fakeNode) Events(_ context.Context, name string) ([]control.QueuedEvent, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if name == "" {
		return nil, nil
	}
	if _, err := n.app(name); err != nil {
		return nil, err
	}
	at := n.start
	rows := []control.QueuedEvent{{App: name, ID: "waits-1", State: control.EventWaiting, Accepted: at, Due: &at, Attempts: 1, LastError: "not now"}}
	for _, id := range []string{"dead-1", "dead-2"} {
		if !n.done[id] {
			rows = append(rows, control.QueuedEvent{App: name, ID: id, State: control.EventDead, Accepted: at, Dead: &at, Attempts: 3, LastError: "it failed\nagain"})
		}
	}
	return rows, nil
}

func (n *fakeNode) EventPayload(_ context.Context, _, id string) (control.EventPayload, error) {
	if id == "nothing" {
		return control.EventPayload{}, &lull.Error{Kind: lull.KindNotFound, Message: "chat has no event nothing"}
	}
	return control.EventPayload{Event: `{"order": 7}`, ClientContext: `{"custom": {}}`}, nil
}

func (n *fakeNode) RetryEvent(ctx context.Context, app, id string) error {
	return n.RemoveEvent(ctx, app, id)
}

func (n *fakeNode) RemoveEvent(_ context.Context, app, id string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.done[id] || id == "nothing" {
		return &lull.Error{Kind: lull.KindNotFound, Message: app + " has no event " + id}
	}
	n.done[id] = true
	return nil
}

func (n *fakeNode) Logs(ctx context.Context, name string, q control.LogQuery, fn func(control.LogEntry) error) error {
	n.mu.Lock()
	_, err := n.app(name)
	n.mu.Unlock()
	if err != nil {
		return err
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)
	entries := []control.LogEntry{
		{Time: at, Environment: "a", Stream: "stdout", Text: "listening"},
		{Time: at, Environment: "b", Stream: "stderr", Text: "\x1b]0;owned\x07 <red>"},
		{Time: at, Environment: "a", Stream: "lull", Text: "paused: idle for 2s"},
	}
	if q.Last != 0 {
		entries = entries[len(entries)-min(max(q.Last, 0), len(entries)):]
	}
	for _, e := range entries {
		if q.Environment != "" && q.Environment != e.Environment {
			continue
		}
		if err := fn(e); err != nil {
			return err
		}
	}
	if !q.Follow {
		return nil
	}
	if err := fn(control.LogEntry{Time: at, Environment: "a", Stream: "stdout", Text: "and now?"}); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

func (n *fakeNode) NodeInfo(context.Context) (control.NodeInfo, error) {
	return control.NodeInfo{Version: "test", Domain: "localhost", HTTP: "127.0.0.1:8080", URL: "http://<app>.localhost:8080/", Sandbox: "process"}, nil
}

func filesIn(dir string) []string {
	var names []string
	_ = filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			name, _ := filepath.Rel(dir, path)
			names = append(names, name)
		}
		return err
	})
	return names
}

// fakeServe stands in for node.Run: it says it is up, and ends when it is told to.
func fakeServe(ctx context.Context, opts ServeOptions, ready func(Serving), force <-chan struct{}) error {
	if opts.HTTP == "127.0.0.1:1" {
		return &lull.Error{Kind: lull.KindConflict, Message: "listen on 127.0.0.1:1: address already in use", Hint: "choose another address with --http"}
	}
	opts.Log.Debug("options", "data", opts.Data, "quiet", opts.QuietHeaders)
	ready(Serving{HTTP: opts.HTTP, API: "http://" + opts.API, URL: "http://<app>." + opts.Domain + ":8080/", Data: opts.Data,
		Sandbox: "process", Warnings: []string{"apps are not isolated"}})
	<-ctx.Done()
	fmt.Fprintln(os.Stderr, "draining")
	if opts.QuietHeaders { // a node that takes its time
		select {
		case <-force:
			return errors.New("ended at once")
		case <-time.After(time.Minute):
			return errors.New("nobody was in a hurry") // so that a test that fails leaves nothing behind
		}
	}
	return nil
}
