package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/manifest"
)

func TestClientSaysWhatTheNodeSays(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 7, time.UTC)
	node := &fakeNode{
		apps:     []AppInfo{{Name: "chat", Release: 3, URL: "http://chat.localhost:8080/", Environments: 2, Created: at, Deployed: at}},
		releases: []ReleaseInfo{{Release: 3, Current: true, Created: at, Run: "node server.js", Size: 5 * lull.MB}},
		environments: []Environment{{ID: "e1", App: "chat", Release: 3, State: lull.Paused, MemoryBytes: 30 * lull.MB, CPUSeconds: 1.5,
			Since: at, Reason: "idle", Moves: []Transition{{At: at, State: lull.Paused, Why: "idle"}}}},
		info: NodeInfo{Version: "1", Domain: "localhost", HTTP: ":8080", Sandbox: "gvisor", Warnings: []string{"careful"}},
	}
	c, ctx := serve(t, node), t.Context()
	check := func(what string, want, got any, err error) {
		t.Helper()
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s (-want +got):\n%s%v", what, diff, err)
		}
	}
	apps, err := c.Apps(ctx)
	check("apps", node.apps, apps, err)
	releases, err := c.Releases(ctx, "chat")
	check("releases", node.releases, releases, err)
	check("app of releases", "chat", node.asked, nil)
	environments, err := c.Environments(ctx, "")
	check("environments", node.environments, environments, err)
	check("all environments", "", node.asked, nil)
	_, err = c.Environments(ctx, "a b/../&?c")
	check("odd app of environments", "a b/../&?c", node.asked, err)
	schedules, err := c.Schedules(ctx, "a b")
	want, _ := node.Schedules(ctx, "a b")
	check("schedules", want, schedules, err)
	events, err := c.Events(ctx, "a b")
	wantEvents, _ := node.Events(ctx, "a b")
	check("events", wantEvents, events, err)
	payload, err := c.EventPayload(ctx, "a/b", "c d")
	wantPayload, _ := node.EventPayload(ctx, "a/b", "c d")
	check("payload", wantPayload, payload, err)
	check("retry", nil, nil, c.RetryEvent(ctx, "a/b", "../c"))
	check("event to retry", "retry a/b ../c", node.asked, nil)
	check("remove an event", nil, nil, c.RemoveEvent(ctx, "a/b", "c"))
	check("event to remove", "remove a/b c", node.asked, nil)
	info, err := c.NodeInfo(ctx)
	check("info", node.info, info, err)
	check("remove", nil, nil, c.Remove(ctx, "a/b c"))
	check("app of remove", "a/b c", node.asked, nil)

	node.apps = nil
	apps, err = c.Apps(ctx)
	check("no apps", []AppInfo{}, apps, err)
}

func TestErrorsKeepWhatTheySay(t *testing.T) {
	node := &fakeNode{}
	c := serve(t, node)
	broken := &manifest.Error{File: "lull.yaml", Problems: []manifest.Problem{{Line: 3, Column: 7, Path: "scale.max", Message: "is 0"}, {Line: 4, Message: "x"}}}
	for _, want := range []error{
		&lull.Error{Kind: lull.KindNotFound, Message: "there is no app \"x\"", Hint: "`lull apps` lists them"},
		&lull.Error{Kind: lull.KindConflict, Message: "busy"},
		&lull.Error{Kind: lull.KindNotReady, Message: "it did not come up\nlast line 1\nlast line 2", Hint: "look at <&> its logs"},
		fmt.Errorf("deploy chat: %w", &lull.Error{Kind: lull.KindBuild, Message: "npm ci: exit status 1", Hint: "run it at home"}),
		errors.New("something unforeseen"),
		fmt.Errorf("deploy: %w", broken),
	} {
		node.err = want
		node.rollback = func(_ context.Context, _ string, release int, emit func(Event)) (Deployed, error) {
			for range release { // with 0 the error is the whole answer, with more the last line of it
				emit(Event{Phase: PhaseStart})
			}
			return Deployed{}, want
		}
		_, plain := c.Apps(t.Context())
		_, early := c.Rollback(t.Context(), "x", 0, ignore)
		_, late := c.Rollback(t.Context(), "x", 2, ignore)
		for name, got := range map[string]error{"plain": plain, "early": early, "late": late} {
			if got == nil || got.Error() != want.Error() || lull.KindOf(got) != lull.KindOf(want) || lull.HintOf(got) != lull.HintOf(want) {
				t.Errorf("%s: sent %#v, got %#v", name, want, got)
			}
			var problems, wanted *manifest.Error
			if errors.As(got, &problems) != errors.As(want, &wanted) {
				t.Errorf("%s: problems %v, want %v", name, problems, wanted)
			} else if diff := cmp.Diff(wanted, problems); diff != "" {
				t.Errorf("%s: problems (-want +got):\n%s", name, diff)
			}
		}
	}
}

func TestRollbackTellsWhatHappens(t *testing.T) {
	node := &fakeNode{rollback: func(_ context.Context, app string, release int, emit func(Event)) (Deployed, error) {
		emit(Event{Phase: PhaseStart, Text: "starting"})
		emit(Event{Phase: PhaseSwitch})
		return Deployed{App: app, Release: release, URL: "http://x/"}, nil
	}}
	var events []Event
	done, err := serve(t, node).Rollback(t.Context(), "chat", 7, func(e Event) { events = append(events, e) })
	if want := (Deployed{App: "chat", Release: 7, URL: "http://x/"}); done != want || err != nil {
		t.Errorf("got %+v, %v", done, err)
	}
	if diff := cmp.Diff([]Event{{PhaseStart, "starting"}, {PhaseSwitch, ""}}, events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestPanicIsOneFailedCall(t *testing.T) {
	node := &fakeNode{rollback: func(_ context.Context, _ string, release int, emit func(Event)) (Deployed, error) {
		if release > 0 {
			emit(Event{Phase: PhaseStart})
		}
		panic("out of range")
	}}
	c := serve(t, node)
	for release := range 2 {
		_, err := c.Rollback(t.Context(), "chat", release, ignore)
		wantKind(t, err, lull.KindInternal)
		if err != nil && !strings.Contains(err.Error(), "out of range") {
			t.Errorf("got %v", err)
		}
	}
	if _, err := c.Apps(t.Context()); err != nil {
		t.Errorf("the next call: %v", err)
	}
}

// request sends a request without the client and returns its status and body.
func request(t *testing.T, handler http.Handler, method, target, body string, headers ...string) (int, string) {
	t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			r.Host = headers[i+1]
		}
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	if got := w.Header().Get("Access-Control-Allow-Origin"); got != "" {
		t.Errorf("%s lets %q read the answer", target, got)
	}
	return w.Code, w.Body.String()
}

func TestOnlyATokenOpens(t *testing.T) {
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "lull_starts_total 3") })
	h := Handler(&fakeNode{}, []string{testToken, ""}, metrics, slog.New(slog.DiscardHandler))
	for _, c := range []struct {
		target, authorization string
		status                int
	}{
		{"/v1/apps", "Bearer " + testToken, 200},
		{"/v1/apps", "bearer  " + testToken + " ", 200},
		{"/v1/apps", "", 401},
		{"/v1/apps", "Bearer", 401},
		{"/v1/apps", "Bearer ", 401},
		{"/v1/apps", "Bearer " + testToken[1:], 401},
		{"/v1/apps", "Bearer " + testToken + "x", 401},
		{"/v1/apps", "Basic " + testToken, 401},
		{"/v1/apps?token=" + testToken, "", 401},
		{"/metrics", "", 401},
		{"/metrics", "Bearer " + testToken, 200},
		{"/nothing", "", 401},
		{"/nothing", "Bearer " + testToken, 404},
		{"/healthz", "", 200},
	} {
		status, body := request(t, h, "GET", c.target, "", "Host", "localhost:7777", "Authorization", c.authorization)
		if status != c.status {
			t.Errorf("%s with %q: %d %s", c.target, c.authorization, status, body)
		}
		if status == 401 && !strings.Contains(body, "LULL_TOKEN") {
			t.Errorf("%s with %q does not say what to do: %s", c.target, c.authorization, body)
		}
	}
}

func TestOnlyOwnNamesAreAnswered(t *testing.T) {
	h := Handler(&fakeNode{}, []string{testToken}, nil, slog.New(slog.DiscardHandler), "Lull.example.com")
	for host, ok := range map[string]bool{
		"localhost": true, "localhost:7777": true, "LOCALHOST.": true, "127.0.0.1:7777": true, "[::1]:7777": true, "[::1]": true,
		"192.0.2.7": true, "lull.example.com": true, "lull.EXAMPLE.com.:7777": true,
		"evil.example": false, "localhost.evil.example": false, "127.0.0.1.evil.example:7777": false, "": false,
		"evil.example:127": false, "x.lull.example.com": false, "0x7f.1": false, "[::1": false, "localhost:1:2": false,
	} {
		for _, target := range []string{"/healthz", "/v1/apps"} {
			status, body := request(t, h, "GET", target, "", "Host", host, "Authorization", "Bearer "+testToken)
			if (status == 200) != ok {
				t.Errorf("%s of %q: %d %s", target, host, status, body)
			}
		}
	}
}

func TestWrongRequestsAreRefused(t *testing.T) {
	node := &fakeNode{
		logs: func(context.Context, string, LogQuery, func(LogEntry) error) error { return nil },
		rollback: func(context.Context, string, int, func(Event)) (Deployed, error) {
			t.Error("the node was asked")
			return Deployed{}, nil
		},
	}
	h := Handler(node, []string{testToken}, nil, slog.New(slog.DiscardHandler))
	for _, c := range []struct {
		method, target, body string
		status               int
	}{
		{"POST", "/v1/apps/chat/rollback", `{"release": "three"}`, 400},
		{"POST", "/v1/apps/chat/rollback", `{"relaese": 3}`, 400},
		{"POST", "/v1/apps/chat/rollback", `{"release": -3}`, 400},
		{"POST", "/v1/apps/chat/rollback", `{"release": 3} {}`, 400},
		{"POST", "/v1/apps/chat/rollback", ``, 400},
		{"POST", "/v1/apps/chat/rollback", `{"release": 3` + strings.Repeat(" ", maxBody) + `}`, 413},
		{"GET", "/v1/apps/chat/rollback", ``, 404},
		{"POST", "/v1/releases?app=Not_A_Name", `x`, 400},
		{"POST", "/v1/releases?app=..%2f..", `x`, 400},
		{"GET", "/v1/apps/chat/logs?last=many", ``, 400},
		{"GET", "/v1/apps/chat/logs?follow=perhaps", ``, 400},
		{"GET", "/v2/apps", ``, 404},
		{"PUT", "/v1/apps", ``, 404},
	} {
		status, body := request(t, h, c.method, c.target, c.body, "Host", "localhost", "Authorization", "Bearer "+testToken)
		if status != c.status || !strings.Contains(body, `{"error":{"kind":"`) {
			t.Errorf("%s %s %.40s: %d %s", c.method, c.target, c.body, status, body)
		}
	}
}

func TestUnreachableNode(t *testing.T) {
	server := httptest.NewServer(nil)
	url := server.URL
	server.Close()
	_, err := (&Client{URL: url}).Apps(t.Context())
	wantKind(t, err, lull.KindRefused)
	if !strings.Contains(lull.HintOf(err), "is `lull serve` running?") || !strings.Contains(err.Error(), url) {
		t.Errorf("got %v, hint %q", err, lull.HintOf(err))
	}
	for _, url := range []string{"", "ftp://x", "http://", "http://user:pass@x", "http://x?y", "::", "unix:///run/x"} {
		_, err := (&Client{URL: url}).Apps(t.Context())
		wantKind(t, err, lull.KindInvalid)
	}
}

func TestWhatIsNotANodeIsNotTrusted(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"page":     func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>hello") },
		"404 page": http.NotFound,
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://evil.example/", http.StatusFound)
		},
		"odd JSON": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(500)
			io.WriteString(w, `{"message":"?"}`)
		},
		"not a list": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, `"hello"`)
		},
		"cut off": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, `[{"name":`)
		},
	} {
		server := httptest.NewServer(handler)
		_, err := (&Client{URL: server.URL, Token: testToken}).Apps(t.Context())
		if lull.KindOf(err) != lull.KindRefused || lull.HintOf(err) == "" {
			t.Errorf("%s: got %v, hint %q", name, err, lull.HintOf(err))
		}
		server.Close()
	}
}

func TestLogsComeAsTheyAre(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 7, time.UTC)
	want := []LogEntry{
		{Time: at, Environment: "e1", Stream: "stdout", Text: "one <&> \x1b[31m \x00 €"},
		{Time: at, Environment: "e2", Stream: "lull"},
	}
	var asked LogQuery
	node := &fakeNode{logs: func(_ context.Context, app string, query LogQuery, fn func(LogEntry) error) error {
		asked = query
		if app != "chat" {
			return &lull.Error{Kind: lull.KindNotFound, Message: "no " + app}
		}
		for _, entry := range want {
			if err := fn(entry); err != nil {
				return err
			}
		}
		return nil
	}}
	c := serve(t, node)
	var got []LogEntry
	query := LogQuery{Last: -3, Environment: "e 1&"}
	err := c.Logs(t.Context(), "chat", query, func(e LogEntry) error {
		got = append(got, e)
		return nil
	})
	if diff := cmp.Diff(want, got); diff != "" || err != nil || asked != query {
		t.Errorf("logs (-want +got):\n%s%v; asked %+v", diff, err, asked)
	}
	wantKind(t, c.Logs(t.Context(), "x", LogQuery{}, func(LogEntry) error { return nil }), lull.KindNotFound)
	if err := c.Logs(t.Context(), "chat", LogQuery{}, func(LogEntry) error { return io.EOF }); err != io.EOF {
		t.Errorf("got %v, want the error of the function", err)
	}
}

func TestFollowedLogsAreLiveAndEnd(t *testing.T) {
	entries, left := make(chan LogEntry), make(chan error, 1)
	node := &fakeNode{logs: func(ctx context.Context, _ string, query LogQuery, fn func(LogEntry) error) error {
		for {
			select {
			case entry := <-entries:
				if err := fn(entry); err != nil {
					return err
				}
			case <-ctx.Done():
				left <- ctx.Err()
				return ctx.Err()
			}
		}
	}}
	c := serve(t, node)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got, ended := make(chan string), make(chan error)
	go func() {
		ended <- c.Logs(ctx, "chat", LogQuery{Follow: true}, func(e LogEntry) error {
			got <- e.Text
			return nil
		})
	}()
	for n := range 3 {
		entries <- LogEntry{Text: fmt.Sprint(n)}
		if text := <-got; text != fmt.Sprint(n) {
			t.Errorf("got %q, want %d", text, n)
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("the node saw %v", err)
	}
}
