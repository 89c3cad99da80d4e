package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/lull-dev/lull"
)

func TestDeploySendsTheArchive(t *testing.T) {
	want := bytes.Repeat([]byte("files "), 1<<20)
	node := &fakeNode{deploy: func(_ context.Context, req DeployRequest, emit func(Event)) (Deployed, error) {
		emit(Event{Phase: PhaseUpload, Text: "receiving"})
		got, err := readAll(req)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("got %d of %d bytes, %v", len(got), len(want), err)
		}
		emit(Event{Phase: PhaseBuild, Text: "one\ntwo"})
		return Deployed{App: req.App, Release: 3, URL: "http://x/"}, nil
	}}
	c := serve(t, node)
	for _, app := range []string{"chat", ""} { // "": the manifest says
		var events []Event
		done, err := c.Deploy(t.Context(), DeployRequest{App: app, Archive: iotest.HalfReader(bytes.NewReader(want))},
			func(e Event) { events = append(events, e) })
		if done != (Deployed{App: app, Release: 3, URL: "http://x/"}) || err != nil {
			t.Errorf("got %+v, %v", done, err)
		}
		if diff := cmp.Diff([]Event{{PhaseUpload, "receiving"}, {PhaseBuild, "one\ntwo"}}, events); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	}
}

// duplex deploys an archive of which each part is sent only when the event for the part before has come back.
func duplex(t *testing.T, c *Client) {
	t.Helper()
	const parts = 5
	archive, packer := io.Pipe()
	seen := make(chan string, parts)
	go func() {
		for n := range parts {
			fmt.Fprintf(packer, "part %d\n", n)
			if got := <-seen; got != fmt.Sprintf("part %d\n", n) {
				t.Errorf("event %q after part %d", got, n)
			}
		}
		packer.Close()
	}()
	done, err := c.Deploy(t.Context(), DeployRequest{App: "chat", Archive: archive}, func(e Event) { seen <- e.Text })
	if done.Release != 1 || err != nil {
		t.Errorf("got %+v, %v", done, err)
	}
}

// echoParts answers each part of an upload with an event.
func echoParts(_ context.Context, req DeployRequest, emit func(Event)) (Deployed, error) {
	buffer := make([]byte, 100)
	for {
		n, err := req.Archive.Read(buffer)
		if n > 0 {
			emit(Event{Phase: PhaseUpload, Text: string(buffer[:n])})
		}
		if err == io.EOF {
			return Deployed{Release: 1}, nil
		}
		if err != nil {
			return Deployed{}, err
		}
	}
}

func TestEventsComeWhileTheUploadRuns(t *testing.T) {
	duplex(t, serve(t, &fakeNode{deploy: echoParts}))
}

func TestEventsComeWhileTheUploadRunsOverTLS(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		server := httptest.NewUnstartedServer(Handler(&fakeNode{deploy: echoParts}, []string{testToken}, nil, slog.New(slog.DiscardHandler)))
		server.EnableHTTP2 = http2
		server.StartTLS()
		duplex(t, &Client{URL: server.URL, Token: testToken, Transport: server.Client().Transport})
		server.Close()
	}
}

func TestRefusedUploadIsNotSent(t *testing.T) {
	node := &fakeNode{deploy: func(context.Context, DeployRequest, func(Event)) (Deployed, error) {
		t.Error("the node was asked")
		return Deployed{}, nil
	}}
	c := serve(t, node)
	unread := iotest.ErrReader(errors.New("it was read"))
	_, err := c.Deploy(t.Context(), DeployRequest{App: "Not_A_Name", Archive: unread}, ignore)
	wantKind(t, err, lull.KindInvalid)
	stranger := &Client{URL: c.URL, Token: "wrong"}
	_, err = stranger.Deploy(t.Context(), DeployRequest{App: "chat", Archive: unread}, ignore)
	wantKind(t, err, lull.KindUnauthorized)
	stranger.client().CloseIdleConnections()
}

// TestEarlyAnswerIsHeard ends deploys in the middle of uploads that do not end.
func TestEarlyAnswerIsHeard(t *testing.T) {
	for _, events := range []int{0, 2} {
		for _, size := range []int{0, 1, 100 << 10, 3 << 20} {
			node := &fakeNode{deploy: func(_ context.Context, req DeployRequest, emit func(Event)) (Deployed, error) {
				if _, err := io.CopyN(io.Discard, req.Archive, int64(size)); err != nil {
					t.Error(err)
				}
				for range events {
					emit(Event{Phase: PhaseUpload})
				}
				return Deployed{}, &lull.Error{Kind: lull.KindInvalid, Message: "not an archive"}
			}}
			_, err := serve(t, node).Deploy(t.Context(), DeployRequest{App: "chat", Archive: endless{}}, ignore)
			if lull.KindOf(err) != lull.KindInvalid {
				t.Errorf("after %d bytes and %d events: %v", size, events, err)
			}
		}
	}
}

func TestUploadThatIsTooLarge(t *testing.T) {
	var sawErr error
	node := &fakeNode{deploy: func(_ context.Context, req DeployRequest, _ func(Event)) (Deployed, error) {
		_, sawErr = io.Copy(io.Discard, req.Archive)
		return Deployed{}, errors.New("unpack the archive: it is broken")
	}}
	a := &api{node: node, tokens: []string{testToken}, log: slog.New(slog.DiscardHandler), maxUpload: 1 << 20}
	c := serveHandler(t, a.mux())
	_, err := c.Deploy(t.Context(), DeployRequest{App: "chat", Archive: endless{}}, ignore)
	wantKind(t, err, lull.KindTooLarge)
	if sawErr == nil {
		t.Error("the node took it for the end of the archive")
	}
	sawErr = nil
	status, _ := request(t, a.mux(), "POST", "/v1/releases", strings.Repeat("x", 1<<20+1), "Host", "localhost", "Authorization", "Bearer "+testToken)
	if status != http.StatusRequestEntityTooLarge || sawErr != nil {
		t.Errorf("one that says so in advance: %d, and the node saw %v", status, sawErr)
	}
}

// TestCancelReachesTheNode cancels in each phase; the archive ends with a byte that the node does not read, as an archive
// with padding does.
func TestCancelReachesTheNode(t *testing.T) {
	for _, phase := range []string{PhaseUpload, PhaseBuild, PhaseSwitch} {
		t.Run(phase, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			saw := make(chan error, 1)
			node := &fakeNode{deploy: func(ctx context.Context, req DeployRequest, emit func(Event)) (Deployed, error) {
				if _, err := io.CopyN(io.Discard, req.Archive, 1<<20); err != nil {
					t.Error(err)
				}
				emit(Event{Phase: phase})
				if phase == PhaseUpload {
					_, err := io.Copy(io.Discard, req.Archive)
					saw <- err
					return Deployed{}, err
				}
				<-ctx.Done()
				saw <- ctx.Err()
				return Deployed{}, ctx.Err()
			}}
			archive := io.Reader(bytes.NewReader(make([]byte, 1<<20+1)))
			if phase == PhaseUpload {
				pipe, packer := io.Pipe()
				defer packer.Close()
				archive = io.MultiReader(archive, pipe)
			}
			_, err := serve(t, node).Deploy(ctx, DeployRequest{App: "chat", Archive: archive}, func(Event) { cancel() })
			if !errors.Is(err, context.Canceled) {
				t.Errorf("the caller got %v", err)
			}
			if err := <-saw; err == nil {
				t.Error("the node took it for the end of the archive")
			}
		})
	}
}

func TestArchiveThatCannotBeReadIsNotDeployed(t *testing.T) {
	for _, size := range []int{0, 10, 3 << 20} {
		saw := make(chan error, 1)
		node := &fakeNode{deploy: func(_ context.Context, req DeployRequest, emit func(Event)) (Deployed, error) {
			emit(Event{Phase: PhaseUpload})
			_, err := io.Copy(io.Discard, req.Archive)
			saw <- err
			return Deployed{}, err
		}}
		broken := errors.New("server.js: permission denied")
		archive := io.MultiReader(bytes.NewReader(make([]byte, size)), iotest.ErrReader(broken))
		c := serve(t, node)
		_, err := c.Deploy(t.Context(), DeployRequest{App: "chat", Archive: archive}, ignore)
		if !errors.Is(err, broken) {
			t.Errorf("after %d bytes: got %v", size, err)
		}
		select {
		case err := <-saw:
			if err == nil {
				t.Errorf("after %d bytes: the node took it for the end of the archive", size)
			}
		default: // it had not even begun
		}
	}
}

func TestNodeThatDiesInTheMiddle(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", contentStream)
		io.WriteString(w, `{"event":{"phase":"build"}}`+"\n")
		if r.URL.Query().Get("app") == "clean" {
			return // an answer that just ends says as little as one that is cut off
		}
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}))
	defer server.Close()
	for _, app := range []string{"clean", "cut"} {
		_, err := (&Client{URL: server.URL}).Deploy(t.Context(), DeployRequest{App: app, Archive: strings.NewReader("x")}, ignore)
		wantKind(t, err, lull.KindRefused)
		if !strings.Contains(lull.HintOf(err), "lull releases") {
			t.Errorf("hint %q", lull.HintOf(err))
		}
	}
}

func TestDeploySendsTheManifest(t *testing.T) {
	want := lull.DefaultManifest()
	want.Name, want.Dir, want.Build = "chat", "/tmp/package", strings.Repeat("x", maxHeader)
	want.Function = lull.Function{Runtime: "nodejs20.x", Handler: "index.handler", Limits: lull.FunctionLimits{Request: 6*lull.MB + 1}}
	want.Schedules = []lull.Schedule{{Cron: "* * * * *", Path: "/tick"}}
	want.Env = map[string]string{"A": "\x01\u2028<"}
	node := &fakeNode{deploy: func(_ context.Context, req DeployRequest, _ func(Event)) (Deployed, error) {
		if req.Manifest == nil {
			return Deployed{}, errors.New("no manifest came")
		}
		if diff := cmp.Diff(want, *req.Manifest); diff != "" {
			t.Error(diff)
		}
		got, err := readAll(req)
		if string(got) != "files" {
			t.Errorf("archive %q", got)
		}
		return Deployed{App: req.App, Release: 1}, err
	}}
	c := serve(t, node)
	done, err := c.Deploy(t.Context(), DeployRequest{App: "chat", Manifest: &want, Archive: iotest.OneByteReader(strings.NewReader("files"))}, ignore)
	if err != nil || done.Release != 1 {
		t.Errorf("got %+v, %v", done, err)
	}
	want.Build = strings.Repeat("x", maxManifest)
	_, err = c.Deploy(t.Context(), DeployRequest{App: "chat", Manifest: &want, Archive: strings.NewReader("files")}, ignore)
	wantKind(t, err, lull.KindTooLarge)
}

func TestManifestThatIsNoneIsRefused(t *testing.T) {
	c := serve(t, &fakeNode{deploy: func(context.Context, DeployRequest, func(Event)) (Deployed, error) {
		t.Error("the node was asked")
		return Deployed{}, nil
	}})
	for _, upload := range []struct {
		length, body string
		kind         lull.Kind
	}{
		{"x", "{}", lull.KindInvalid}, {"-1", "{}", lull.KindInvalid}, {"3", "{}", lull.KindInvalid}, {"2", "[]", lull.KindInvalid}, {"4", "{}{}", lull.KindInvalid},
		{"13", `{"unheard":1}`, lull.KindInvalid}, {"9999999", "{}", lull.KindTooLarge},
	} {
		answer, err := c.call(t.Context(), call{method: http.MethodPost, path: "/v1/releases", query: map[string][]string{"manifest": {upload.length}},
			body: strings.NewReader(upload.body), header: http.Header{}})
		if err == nil {
			answer.Body.Close()
		}
		wantKind(t, err, upload.kind)
	}
}
