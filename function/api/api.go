// Package api is the part of AWS's HTTP APIs that calls functions: Invoke and InvokeWithResponseStream of Lambda, and the
// connections API of API Gateway's WebSocket APIs. AWS's SDKs and command line use it when they are given the node's address as
// endpoint URL.
//
//   - https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html
//   - https://docs.aws.amazon.com/lambda/latest/api/API_InvokeWithResponseStream.html
//   - https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-how-to-call-websocket-api-connections.html
package api

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/function"
	"github.com/lull-dev/lull/function/event"
	"github.com/lull-dev/lull/function/socket"
	"github.com/lull-dev/lull/store"
)

// Config is what the API works with.
type Config struct {
	Token     string // who has it may call everything: as a bearer token, or as the secret key of a signature
	Functions function.Functions
	Invoker   *function.Invoker
	Queue     func(ctx context.Context, app, id string, payload store.Payload) error // takes an asynchronous event
	Sockets   *socket.Hub
	Log       *slog.Logger
}

// API is an http.Handler.
type API struct{ Config }

// Paths of the API begin with one of these.
const (
	invokePath  = "/2015-03-31/functions/"
	streamPath  = "/2021-11-15/functions/"
	scopedPath  = "/f/"
	connections = "@connections"
)

// Serves reports whether a path is this API's.
func Serves(path string) bool {
	return strings.HasPrefix(path, invokePath) || strings.HasPrefix(path, streamPath) || strings.HasPrefix(path, scopedPath) ||
		strings.Contains(path, "/"+connections+"/")
}

// IsScoped reports whether a path is below one that Scoped has returned, or looks like it.
func IsScoped(path string) bool { return strings.HasPrefix(path, scopedPath) }

// Scoped returns the path below which an app's own environments call the API: for itself only, and without a signature, as
// nobody else can know the path.
func (a *API) Scoped(app string) string { return scopedPath + app + "/" + a.scope(app) }

func (a *API) scope(app string) string {
	sum := hmac.New(sha256.New, []byte(a.Token))
	fmt.Fprintf(sum, "functions of %s", app)
	return hex.EncodeToString(sum.Sum(nil))[:40]
}

// call is a request that may be carried out.
type call struct {
	path string // unescaped, without the scope
	only string // the one app it may be about; "": any
	body []byte
}

func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	c, err := a.admit(r)
	if err == nil {
		err = a.carryOut(w, r, c)
	}
	if err != nil {
		a.refuse(w, r, err)
	}
}

// maxBody bounds a request before it is known what it is for; a function's own limit may be lower.
const maxBody = 64 << 20

// admit reads a request and finds out who asks.
func (a *API) admit(r *http.Request) (call, error) {
	c := call{path: r.URL.Path}
	if rest, scoped := strings.CutPrefix(c.path, scopedPath); scoped {
		app, rest, _ := strings.Cut(rest, "/")
		key, rest, _ := strings.Cut(rest, "/")
		if subtle.ConstantTimeCompare([]byte(key), []byte(a.scope(app))) != 1 {
			return c, &problem{http.StatusForbidden, "UnrecognizedClientException", "The security token included in the request is invalid."}
		}
		c.path, c.only = "/"+rest, app
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	switch {
	case err != nil:
		return c, &problem{http.StatusBadRequest, "InvalidRequestContentException", "The request ended early."}
	case len(body) > maxBody:
		return c, &problem{http.StatusRequestEntityTooLarge, "RequestTooLargeException", "The request is too large."}
	}
	c.body = body
	if c.only == "" {
		err = a.authorise(r, body)
	}
	return c, err
}

// carryOut finds what a call is for.
func (a *API) carryOut(w http.ResponseWriter, r *http.Request, c call) error {
	if _, id, is := strings.Cut(c.path, "/"+connections+"/"); is {
		return a.connection(w, r, c, id)
	}
	for prefix, do := range map[string]struct {
		suffix string
		run    func(http.ResponseWriter, *http.Request, call, string) error
	}{invokePath: {"/invocations", a.invoke}, streamPath: {"/response-streaming-invocations", a.stream}} {
		name, is := strings.CutPrefix(c.path, prefix)
		name, ends := strings.CutSuffix(name, do.suffix)
		if !is || !ends {
			continue
		}
		if r.Method != http.MethodPost {
			return &problem{http.StatusMethodNotAllowed, "InvalidRequestContentException", "The method must be POST."}
		}
		return do.run(w, r, c, name)
	}
	return &problem{http.StatusNotFound, "UnknownOperationException", "There is no such operation here."}
}

// invocation reads what is to be invoked, and how.
func (a *API) invocation(r *http.Request, c call, name string) (function.Invocation, error) {
	if plain, err := url.PathUnescape(name); err == nil {
		name = plain
	}
	app, qualifier, err := function.Name(name)
	if err != nil {
		return function.Invocation{}, err
	}
	if asked := r.URL.Query().Get("Qualifier"); asked != "" && asked != "$LATEST" {
		qualifier = asked
	}
	if c.only != "" && c.only != app {
		return function.Invocation{}, &problem{http.StatusForbidden, "AccessDeniedException", "A function may invoke itself only."}
	}
	target, err := a.Functions.Function(app)
	if err != nil {
		return function.Invocation{}, err
	}
	if qualifier != "" && qualifier != strconv.Itoa(target.Version) {
		return function.Invocation{}, &problem{http.StatusNotFound, "ResourceNotFoundException",
			fmt.Sprintf("Function not found: %s:%s. The current release is %d.", app, qualifier, target.Version)}
	}
	if lull.Size(len(c.body)) > target.Manifest.Function.Limits.Request {
		return function.Invocation{}, &problem{http.StatusRequestEntityTooLarge, "RequestTooLargeException",
			fmt.Sprintf("%d byte payload is too large for the function's limit of %d bytes", len(c.body), int64(target.Manifest.Function.Limits.Request))}
	}
	client, err := base64.StdEncoding.DecodeString(r.Header.Get("X-Amz-Client-Context"))
	if err != nil {
		return function.Invocation{}, &problem{http.StatusBadRequest, "InvalidRequestContentException", "The client context is not base64."}
	}
	if len(c.body) > 0 && !json.Valid(c.body) {
		return function.Invocation{}, &problem{http.StatusBadRequest, "InvalidRequestContentException", "Could not parse request body into json"}
	}
	in := function.Invocation{App: app, RequestID: event.NewRequestID(), ClientContext: client, Tail: r.Header.Get("X-Amz-Log-Type") == "Tail", Why: "invoke " + app}
	if len(c.body) > 0 {
		in.Payload = bytes.NewReader(c.body)
	}
	return in, nil
}

// invoke is Invoke.
func (a *API) invoke(w http.ResponseWriter, r *http.Request, c call, name string) error {
	in, err := a.invocation(r, c, name)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("X-Amzn-Requestid", in.RequestID)
	switch kind := r.Header.Get("X-Amz-Invocation-Type"); kind {
	case "DryRun":
		w.WriteHeader(http.StatusNoContent)
		return nil
	case "Event":
		body := c.body
		if len(body) == 0 {
			body = []byte("{}")
		}
		if err := a.Queue(r.Context(), in.App, in.RequestID, store.Payload{Event: body, ClientContext: in.ClientContext}); err != nil {
			return err
		}
		w.WriteHeader(http.StatusAccepted)
		return nil
	case "", "RequestResponse":
	default:
		return &problem{http.StatusBadRequest, "InvalidParameterValueException", fmt.Sprintf("There is no invocation type %.40q.", kind)}
	}
	answer, err := a.Invoker.Invoke(r.Context(), in)
	if err != nil {
		return err
	}
	defer answer.Payload.Close()
	h.Set("X-Amz-Executed-Version", answer.Version)
	if answer.FunctionError != "" {
		h.Set("X-Amz-Function-Error", answer.FunctionError)
	}
	if answer.Log != "" {
		h.Set("X-Amz-Log-Result", answer.Log)
	}
	h.Set("Content-Type", "application/json")
	if _, err := io.Copy(w, answer.Payload); err != nil {
		a.Log.Warn("answer of a function not sent to who invoked it", "app", in.App, "error", err)
		panic(http.ErrAbortHandler)
	}
	return nil
}

// connection is the connections API of WebSocket APIs.
func (a *API) connection(w http.ResponseWriter, r *http.Request, c call, id string) error {
	app := c.only
	if app == "" {
		app, _ = a.Sockets.App(id)
	}
	switch r.Method {
	case http.MethodPost:
		if err := a.Sockets.Post(r.Context(), app, id, c.body); err != nil {
			return gone(err)
		}
		w.WriteHeader(http.StatusOK)
	case http.MethodDelete:
		if err := a.Sockets.Delete(r.Context(), app, id); err != nil {
			return gone(err)
		}
		w.WriteHeader(http.StatusNoContent)
	case http.MethodGet:
		info, err := a.Sockets.Get(r.Context(), app, id)
		if err != nil {
			return gone(err)
		}
		const form = "2006-01-02T15:04:05.000Z"
		w.Header().Set("Content-Type", "application/json")
		return json.NewEncoder(w).Encode(map[string]any{
			"connectedAt": info.ConnectedAt.UTC().Format(form), "lastActiveAt": info.LastActiveAt.UTC().Format(form),
			"identity": map[string]string{"sourceIp": info.SourceIP, "userAgent": info.UserAgent},
		})
	default:
		return &problem{http.StatusMethodNotAllowed, "ForbiddenException", "The method must be POST, GET or DELETE."}
	}
	return nil
}

func gone(err error) error {
	if lull.KindOf(err) == lull.KindNotFound {
		return &problem{http.StatusGone, "GoneException", "The client of this connection has gone."}
	}
	return err
}

// problem is an error in AWS's words.
type problem struct {
	status  int
	kind    string
	message string
}

func (p *problem) Error() string { return p.kind + ": " + p.message }

// kinds says what AWS calls our errors.
var kinds = map[lull.Kind]struct {
	status int
	kind   string
}{
	lull.KindNotFound:  {http.StatusNotFound, "ResourceNotFoundException"},
	lull.KindInvalid:   {http.StatusBadRequest, "InvalidRequestContentException"},
	lull.KindTooLarge:  {http.StatusRequestEntityTooLarge, "RequestTooLargeException"},
	lull.KindQueueFull: {http.StatusTooManyRequests, "TooManyRequestsException"},
	lull.KindStarting:  {http.StatusTooManyRequests, "TooManyRequestsException"},
	lull.KindDraining:  {http.StatusServiceUnavailable, "ServiceException"},
}

// refuse answers with an error, in the form that AWS's clients know.
func (a *API) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		return // there is nobody to answer
	}
	var p *problem
	if !errors.As(err, &p) {
		as, known := kinds[lull.KindOf(err)]
		if !known {
			as.status, as.kind = http.StatusInternalServerError, "ServiceException"
			a.Log.Warn("call of a function's API failed", "path", r.URL.Path, "error", err)
		}
		p = &problem{as.status, as.kind, err.Error()}
	}
	body, _ := json.Marshal(map[string]string{"Type": "User", "message": p.message, "Message": p.message})
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Amzn-Errortype", p.kind)
	w.WriteHeader(p.status)
	_, _ = w.Write(append(body, '\n'))
}
