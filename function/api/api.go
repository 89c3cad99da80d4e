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
type API struct {
	Config
	bodies budget // of the requests under way
}

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

// call is a request, as far as its head tells.
type call struct {
	path   string     // unescaped, without the scope
	only   string     // the one app it may be about; "": any
	signed *signature // which the body has yet to fit; nil: it is known who asks
}

// operation is what a call is for.
type operation struct {
	limit int64  // of the body, in bytes
	large string // what AWS calls a body that is larger
	run   func(w http.ResponseWriter, r *http.Request, body []byte) error
}

func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	allowTime(w, 0) // also for what the server itself reads of a request that is refused
	c, err := a.admit(r)
	if err == nil {
		err = a.carryOut(w, r, c)
	}
	if err != nil {
		a.refuse(w, r, c, err)
	}
}

// admit finds out who asks, from the head of a request.
func (a *API) admit(r *http.Request) (call, error) {
	rest, scoped := strings.CutPrefix(r.URL.Path, scopedPath)
	if !scoped {
		signed, err := a.authorise(r)
		return call{path: r.URL.Path, signed: signed}, err
	}
	app, rest, _ := strings.Cut(rest, "/")
	key, rest, _ := strings.Cut(rest, "/")
	c := call{path: "/" + rest, only: app}
	if subtle.ConstantTimeCompare([]byte(key), []byte(a.scope(app))) != 1 {
		return c, forbidden("UnrecognizedClientException", "The security token included in the request is invalid.")
	}
	return c, nil
}

// carryOut does what a call is for. Its body is read once it is known what may come.
func (a *API) carryOut(w http.ResponseWriter, r *http.Request, c call) error {
	do, err := a.operation(r, c)
	if err != nil {
		return err
	}
	body, err := a.receive(w, r, c, do)
	if err != nil {
		return err
	}
	defer a.bodies.give(c.only, int64(len(body)))
	if c.signed != nil {
		if err := c.signed.covers(r, body, a.Token); err != nil {
			return err
		}
	}
	return do.run(w, r, body)
}

// operation finds what a call is for, and refuses what the caller may not ask.
func (a *API) operation(r *http.Request, c call) (operation, error) {
	if _, id, is := strings.Cut(c.path, "/"+connections+"/"); is {
		return a.connection(r, c, id)
	}
	for prefix, do := range map[string]struct {
		suffix string
		run    func(http.ResponseWriter, *http.Request, invocation) error
	}{invokePath: {"/invocations", a.invoke}, streamPath: {"/response-streaming-invocations", a.stream}} {
		name, is := strings.CutPrefix(c.path, prefix)
		name, ends := strings.CutSuffix(name, do.suffix)
		if !is || !ends {
			continue
		}
		if r.Method != http.MethodPost {
			return operation{}, &problem{http.StatusMethodNotAllowed, "InvalidRequestContentException", "The method must be POST."}
		}
		in, err := a.invocation(r, c, name)
		return operation{bound(in.target.Manifest.Function.Limits.Request), "RequestTooLargeException",
			func(w http.ResponseWriter, r *http.Request, body []byte) error {
				if len(body) > 0 && !json.Valid(body) {
					return &problem{http.StatusBadRequest, "InvalidRequestContentException", "Could not parse request body into json"}
				}
				w.Header().Set("X-Amzn-Requestid", in.RequestID)
				in.body = body
				if len(body) > 0 {
					in.Payload = bytes.NewReader(body)
				}
				return do.run(w, r, in)
			}}, err
	}
	return operation{}, &problem{http.StatusNotFound, "UnknownOperationException", "There is no such operation here."}
}

// invocation is what is to be invoked, and how.
type invocation struct {
	function.Invocation
	target function.Target
	body   []byte // the payload; may be empty
}

// invocation reads all of one but the body.
func (a *API) invocation(r *http.Request, c call, name string) (invocation, error) {
	if plain, err := url.PathUnescape(name); err == nil {
		name = plain
	}
	app, qualifier, err := function.Name(name)
	if err != nil {
		return invocation{}, err
	}
	if asked := r.URL.Query().Get("Qualifier"); asked != "" && asked != "$LATEST" {
		qualifier = asked
	}
	if c.only != "" && c.only != app {
		return invocation{}, forbidden("AccessDeniedException", "A function may invoke itself only.")
	}
	target, err := a.Functions.Function(app)
	if err != nil {
		return invocation{}, err
	}
	if qualifier != "" && qualifier != strconv.Itoa(target.Version) {
		return invocation{}, &problem{http.StatusNotFound, "ResourceNotFoundException",
			fmt.Sprintf("Function not found: %s:%s. The current release is %d.", app, qualifier, target.Version)}
	}
	client, err := base64.StdEncoding.DecodeString(r.Header.Get("X-Amz-Client-Context"))
	if err != nil {
		return invocation{}, &problem{http.StatusBadRequest, "InvalidRequestContentException", "The client context is not base64."}
	}
	return invocation{target: target, Invocation: function.Invocation{
		App: app, RequestID: event.NewRequestID(), ClientContext: client, Tail: r.Header.Get("X-Amz-Log-Type") == "Tail", Why: "invoke " + app,
	}}, nil
}

// invoke is Invoke.
func (a *API) invoke(w http.ResponseWriter, r *http.Request, in invocation) error {
	switch kind := r.Header.Get("X-Amz-Invocation-Type"); kind {
	case "DryRun":
		w.WriteHeader(http.StatusNoContent)
		return nil
	case "Event":
		if len(in.body) == 0 {
			in.body = []byte("{}")
		}
		if err := a.Queue(r.Context(), in.App, in.RequestID, store.Payload{Event: in.body, ClientContext: in.ClientContext}); err != nil {
			return err
		}
		w.WriteHeader(http.StatusAccepted)
		return nil
	case "", "RequestResponse":
	default:
		return &problem{http.StatusBadRequest, "InvalidParameterValueException", fmt.Sprintf("There is no invocation type %.40q.", kind)}
	}
	answer, err := a.ask(r.Context(), in)
	if err != nil {
		return err
	}
	defer answer.Payload.Close()
	h := w.Header()
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

// ends are the kinds of errors after which a function may have had the event, and what Lambda calls them.
var ends = map[lull.Kind]struct{ kind, what string }{
	lull.KindCrashed: {event.ExitError, "Runtime exited with error"},
	lull.KindRefused: {event.ExitError, "Runtime exited with error"},
	lull.KindTimeout: {event.TimedOut, "Task timed out"},
}

// ask invokes a function. One that may have had the event and did not answer has failed: of an error of the node's AWS's
// clients would think that it had not been asked, and ask again.
func (a *API) ask(ctx context.Context, in invocation) (*function.Answer, error) {
	answer, err := a.Invoker.Invoke(ctx, in.Invocation)
	end, asked := ends[lull.KindOf(err)]
	if !asked {
		return answer, err
	}
	object := failure(end.kind, fmt.Sprintf("RequestId: %s Error: %s: %v", in.RequestID, end.what, err))
	return &function.Answer{
		Payload: io.NopCloser(bytes.NewReader(object)), FunctionError: "Unhandled", Version: strconv.Itoa(in.target.Version), RequestID: in.RequestID,
	}, nil
}

// failure is the error object of a function that could not make one itself.
func failure(kind, message string) []byte {
	object, _ := json.Marshal(map[string]string{"errorType": kind, "errorMessage": message})
	return object
}

// connection finds what is asked about a connection: it is the connections API of WebSocket APIs.
func (a *API) connection(r *http.Request, c call, id string) (operation, error) {
	app, open := a.Sockets.App(id)
	if !open || c.only != "" && c.only != app {
		return operation{}, errGone
	}
	const large = "PayloadTooLargeException"
	switch r.Method {
	case http.MethodPost:
		target, err := a.Functions.Function(app)
		return operation{bound(target.Manifest.Function.Limits.Response), large, func(w http.ResponseWriter, r *http.Request, body []byte) error {
			if err := a.Sockets.Post(r.Context(), app, id, body); err != nil {
				return gone(err)
			}
			w.WriteHeader(http.StatusOK)
			return nil
		}}, gone(err)
	case http.MethodDelete:
		return operation{0, large, func(w http.ResponseWriter, r *http.Request, _ []byte) error {
			if err := a.Sockets.Delete(r.Context(), app, id); err != nil {
				return gone(err)
			}
			w.WriteHeader(http.StatusNoContent)
			return nil
		}}, nil
	case http.MethodGet:
		return operation{0, large, func(w http.ResponseWriter, r *http.Request, _ []byte) error {
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
		}}, nil
	}
	return operation{}, &problem{http.StatusMethodNotAllowed, "ForbiddenException", "The method must be POST, GET or DELETE."}
}

var errGone = &problem{http.StatusGone, "GoneException", "The client of this connection has gone."}

func gone(err error) error {
	if lull.KindOf(err) == lull.KindNotFound {
		return errGone
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
	lull.KindNotReady:  {http.StatusBadGateway, "ResourceNotReadyException"},
}

// refuse answers with an error, in the form that AWS's clients know.
func (a *API) refuse(w http.ResponseWriter, r *http.Request, c call, err error) {
	var p *problem
	if !errors.As(err, &p) {
		if r.Context().Err() != nil {
			return // there is nobody to answer
		}
		as, known := kinds[lull.KindOf(err)]
		if !known {
			as.status, as.kind = http.StatusInternalServerError, "ServiceException"
			a.Log.Warn("call of a function's API failed", "path", c.path, "error", err)
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
