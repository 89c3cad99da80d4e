package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream"
	"github.com/coder/websocket"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/function"
	"github.com/lull-dev/lull/function/socket"
)

// functions are those of a node, by name. Each has limits of 1 KB.
type functions map[string]do

// do takes the place of an environment: it answers for it.
type do func(ctx context.Context, req *http.Request) (*http.Response, error)

func (f functions) Function(name string) (function.Target, error) {
	answer := f[name]
	if answer == nil {
		return function.Target{}, &lull.Error{Kind: lull.KindNotFound, Message: "there is no " + name}
	}
	target := function.Target{Version: 3, Do: func(ctx context.Context, _ string, req *http.Request) (*http.Response, error) {
		return answer(ctx, req)
	}}
	target.Manifest.Function.Limits = lull.FunctionLimits{Request: lull.KB, Response: lull.KB}
	return target, nil
}

// echo answers with the event.
func echo(_ context.Context, req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body))}, err
}

// newAPI is the API of a node with these functions and without connections.
func newAPI(t *testing.T, f functions) *API {
	t.Helper()
	sockets := socket.New(socket.Config{
		Invoke:   func(context.Context, socket.Invocation) (io.ReadCloser, string, error) { return http.NoBody, "", nil },
		Settings: func(string) (socket.Settings, bool) { return socket.Settings{MaxMessage: lull.KB, Streams: 10}, true },
	})
	t.Cleanup(sockets.Close)
	return &API{Config: Config{Token: token, Functions: f, Invoker: &function.Invoker{Functions: f}, Sockets: sockets, Log: slog.New(slog.DiscardHandler)}}
}

// connect makes a connection to an app and returns its id.
func connect(t *testing.T, a *API, app string) string {
	t.Helper()
	ids := make(chan string, 10)
	config := socket.Config{
		Invoke: func(_ context.Context, in socket.Invocation) (io.ReadCloser, string, error) {
			var said struct {
				Context struct {
					ID string `json:"connectionId"`
				} `json:"requestContext"`
			}
			err := json.Unmarshal(in.Event, &said)
			ids <- said.Context.ID
			return http.NoBody, "", err
		},
		Settings: func(string) (socket.Settings, bool) { return socket.Settings{MaxMessage: lull.KB, Streams: 10}, true },
	}
	a.Sockets = socket.New(config)
	server := httptest.NewServer(a.Sockets.Handler(app))
	t.Cleanup(func() {
		a.Sockets.Close()
		server.Close()
	})
	conn, _, err := websocket.Dial(t.Context(), "ws"+strings.TrimPrefix(server.URL, "http"), nil)
	if err != nil {
		t.Fatal(err)
	}
	go func() { // ends with the connection
		for err == nil {
			_, _, err = conn.Read(context.Background())
		}
	}()
	t.Cleanup(func() { _ = conn.CloseNow() })
	return <-ids
}

const invokeShop = "/2015-03-31/functions/shop/invocations"

// call sends a request to the API and returns its answer.
func (a *API) call(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	a.ServeHTTP(w, r)
	return w
}

// post is a request of the app's own environments.
func (a *API) post(app, path string, body io.Reader) *http.Request {
	return httptest.NewRequest(http.MethodPost, a.Scoped(app)+path, body)
}

// What is logged of a call of an environment does not have its key.
func TestKeyIsNotLogged(t *testing.T) {
	a := newAPI(t, functions{"shop": func(context.Context, *http.Request) (*http.Response, error) { return nil, errors.New("it broke") }})
	var log bytes.Buffer
	a.Log = slog.New(slog.NewTextHandler(&log, nil))
	if w := a.call(a.post("shop", invokeShop, nil)); w.Code != 500 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if text := log.String(); strings.Contains(text, a.scope("shop")) || !strings.Contains(text, "path="+invokeShop) {
		t.Errorf("logged: %s", text)
	}
}

// A function that may have had the event and did not answer has failed. It must not look as if it had not been asked: AWS's
// clients ask again then.
func TestEndsWithoutAnAnswer(t *testing.T) {
	for kind, c := range map[lull.Kind]struct {
		status int
		errs   string // the errorType of a function that failed; else the kind of problem
	}{
		lull.KindCrashed:   {200, "Runtime.ExitError"},
		lull.KindRefused:   {200, "Runtime.ExitError"},
		lull.KindTimeout:   {200, "Sandbox.Timedout"},
		lull.KindQueueFull: {429, "TooManyRequestsException"},
		lull.KindStarting:  {429, "TooManyRequestsException"},
		lull.KindNotReady:  {502, "ResourceNotReadyException"},
		lull.KindDraining:  {503, "ServiceException"},
	} {
		a := newAPI(t, functions{"shop": func(context.Context, *http.Request) (*http.Response, error) {
			return nil, &lull.Error{Kind: kind, Message: "environment x exited with code 1"}
		}})
		w := a.call(a.post("shop", invokeShop, nil))
		s := a.call(a.post("shop", "/2021-11-15/functions/shop/response-streaming-invocations", nil))
		if w.Code != c.status || s.Code != c.status {
			t.Errorf("%s: %d %s, streamed %d %s", kind, w.Code, w.Body, s.Code, s.Body)
			continue
		}
		if c.status != 200 {
			if got := w.Header().Get("X-Amzn-Errortype"); got != c.errs || s.Header().Get("X-Amzn-Errortype") != c.errs {
				t.Errorf("%s: %s, streamed %s", kind, got, s.Header().Get("X-Amzn-Errortype"))
			}
			continue
		}
		var said struct{ ErrorType, ErrorMessage string }
		if err := json.Unmarshal(w.Body.Bytes(), &said); err != nil || said.ErrorType != c.errs || !strings.HasSuffix(said.ErrorMessage, ": environment x exited with code 1") ||
			!strings.HasPrefix(said.ErrorMessage, "RequestId: "+w.Header().Get("X-Amzn-Requestid")+" Error: ") {
			t.Errorf("%s: %+v, %v", kind, said, err)
		}
		if w.Header().Get("X-Amz-Function-Error") != "Unhandled" || w.Header().Get("X-Amz-Executed-Version") != "3" {
			t.Errorf("%s: %v", kind, w.Header())
		}
		var ended struct{ ErrorCode, ErrorDetails string }
		message, err := eventstream.NewDecoder().Decode(s.Body, nil)
		if err == nil {
			err = json.Unmarshal(message.Payload, &ended)
		}
		if err != nil || ended.ErrorCode != c.errs || !strings.Contains(ended.ErrorDetails, "environment x exited with code 1") || s.Body.Len() > 0 {
			t.Errorf("%s, streamed: %+v, %v, and %d bytes more", kind, ended, err, s.Body.Len())
		}
	}
}
