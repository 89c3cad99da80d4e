package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/lull-dev/lull"
)

const (
	contentStream = "application/x-ndjson" // an answer that comes line by line
	contentJSON   = "application/json"

	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	maxHeader     = 32 << 10
	// writeTimeout is how long a client may take to accept one line; readTimeout how long it may pause an upload.
	writeTimeout = 30 * time.Second
	readTimeout  = 2 * time.Minute
	// maxBody bounds a request that is not an upload.
	maxBody = 64 << 10
	// maxUpload bounds an upload. What it unpacks to has bounds of its own.
	maxUpload = 8 << 30
)

// NewServer returns a server for the handler with the limits an API needs. It has no limit on the length of an answer: one
// may follow logs for days.
func NewServer(handler http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler: handler, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// Handler serves a node. Callers must have one of the tokens, and must call it by an address, by "localhost" or by one of
// hosts: a page in a browser on this machine could otherwise reach it through a name of its own. metrics answers
// /metrics; it may be nil.
func Handler(node Node, tokens []string, metrics http.Handler, log *slog.Logger, hosts ...string) http.Handler {
	if metrics == nil {
		metrics = http.NotFoundHandler()
	}
	a := &api{node: node, tokens: tokens, metrics: metrics, hosts: hosts, log: log, maxUpload: maxUpload}
	return a.mux()
}

func (a *api) mux() http.Handler {
	mux := http.NewServeMux()
	for pattern, handle := range map[string]handler{
		"GET /healthz":                          a.health,
		"GET /metrics":                          a.withToken(a.serveMetrics),
		"GET /v1/node":                          a.withToken(a.info),
		"GET /v1/apps":                          a.withToken(a.apps),
		"DELETE /v1/apps/{app}":                 a.withToken(a.remove),
		"GET /v1/apps/{app}/releases":           a.withToken(a.releases),
		"GET /v1/apps/{app}/logs":               a.withToken(a.logs),
		"POST /v1/apps/{app}/rollback":          a.withToken(a.rollback),
		"POST /v1/releases":                     a.withToken(a.deploy),
		"GET /v1/environments":                  a.withToken(a.environments),
		"GET /v1/schedules":                     a.withToken(a.schedules),
		"GET /v1/events":                        a.withToken(a.events),
		"GET /v1/apps/{app}/events/{id}":        a.withToken(a.eventPayload),
		"POST /v1/apps/{app}/events/{id}/retry": a.withToken(a.retryEvent),
		"DELETE /v1/apps/{app}/events/{id}":     a.withToken(a.removeEvent),
		"/":                                     a.withToken(a.unknown),
	} {
		mux.Handle(pattern, a.respond(a.knownHost(handle)))
	}
	return mux
}

// api is what the handlers share.
type api struct {
	node    Node
	tokens  []string
	metrics http.Handler
	hosts   []string
	log     *slog.Logger

	maxUpload int64
}

// handler answers a request, or returns the error to answer it with.
type handler func(w *answer, r *http.Request) error

// respond is where every request begins and ends: errors and panics become answers here and nowhere else.
func (a *api) respond(handle handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		answer := &answer{ResponseWriter: w, conn: http.NewResponseController(w), after: func() {}}
		err := a.guard(handle, answer, r)
		if err != nil {
			a.refuse(answer, r, err)
		}
		answer.after()
		_ = answer.conn.SetWriteDeadline(time.Time{}) // the connection may be used again
		a.log.Debug("api call answered", "method", r.Method, "path", r.URL.Path, "took", time.Since(began), "error", err)
	})
}

// answer is a response that knows whether it has begun, and does not wait long for a client that does not read.
type answer struct {
	http.ResponseWriter
	conn  *http.ResponseController
	begun bool
	after func() // what is to be done when everything has been written
}

func (a *answer) WriteHeader(status int) {
	a.begun = true
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(p []byte) (int, error) {
	a.begun = true
	_ = a.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	return a.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// guard turns a panic into an error.
func (a *api) guard(handle handler, w *answer, r *http.Request) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			a.log.Error("api call panicked", "path", r.URL.Path, "panic", cause, "stack", string(debug.Stack()))
			err = fmt.Errorf("the node made a mistake: %v", cause)
		}
	}()
	return handle(w, r)
}

// refuse answers with an error. In an answer that has begun, which is a stream, it becomes the last line.
func (a *api) refuse(w *answer, r *http.Request, err error) {
	if r.Context().Err() != nil || errors.Is(err, errUnsent) {
		return // there is nobody to answer
	}
	failure := newFailure(err)
	if failure.Kind == lull.KindInternal {
		a.log.Error("api call failed", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	if failure.Kind == lull.KindUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="lull"`)
	}
	if w.begun {
		err = writeLine(w, failed{failure})
	} else {
		err = writeJSON(w, failure.Kind.Status(), failed{failure})
	}
	if err != nil {
		a.log.Debug("api answer not sent", "path", r.URL.Path, "error", err)
	}
}

// errUnsent is wrapped by errors of writing an answer.
var errUnsent = errors.New("the client does not take the answer")

// writeJSON writes a whole answer.
func writeJSON(w *answer, status int, body any) error {
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", contentJSON)
	w.Header().Set("Content-Length", strconv.Itoa(len(data)+1))
	w.WriteHeader(status)
	return write(w, data)
}

// writeLine writes one line of a stream.
func writeLine(w *answer, line any) error {
	data, err := json.Marshal(line)
	if err != nil {
		return err
	}
	return write(w, data)
}

func write(w *answer, data []byte) error {
	_, err := w.Write(append(data, '\n'))
	if err == nil {
		err = w.conn.Flush()
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errUnsent, err)
	}
	return nil
}

// knownHost refuses requests to a name that is none of ours.
func (a *api) knownHost(next handler) handler {
	return func(w *answer, r *http.Request) error {
		if name := hostName(r.Host); !ownHost(name, a.hosts) {
			return &lull.Error{Kind: lull.KindUnauthorized, Message: fmt.Sprintf("the API is not known as %q", name),
				Hint: "call it by its address or as localhost"}
		}
		return next(w, r)
	}
}

// hostName is the Host header without its port, in lower case.
func hostName(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if inner, ok := strings.CutPrefix(host, "["); ok && strings.HasSuffix(inner, "]") {
		host = strings.TrimSuffix(inner, "]")
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// ownHost reports whether a name can only mean this node: nobody else can make an address or localhost lead here.
func ownHost(name string, hosts []string) bool {
	if _, err := netip.ParseAddr(name); err == nil || name == "localhost" {
		return true
	}
	for _, host := range hosts {
		if strings.EqualFold(name, host) {
			return true
		}
	}
	return false
}

// withToken refuses callers that have no token.
func (a *api) withToken(next handler) handler {
	return func(w *answer, r *http.Request) error {
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return &lull.Error{Kind: lull.KindUnauthorized, Message: "the API wants a token",
				Hint: "set LULL_TOKEN to what is in the file `token` in the node's data directory"}
		}
		if !sameToken(strings.TrimSpace(token), a.tokens) {
			return &lull.Error{Kind: lull.KindUnauthorized, Message: "the node does not know this token",
				Hint: "set LULL_TOKEN to what is in the file `token` in the node's data directory"}
		}
		return next(w, r)
	}
}

func (a *api) unknown(_ *answer, r *http.Request) error {
	return &lull.Error{Kind: lull.KindNotFound, Message: fmt.Sprintf("the API has no %s %s", r.Method, r.URL.Path),
		Hint: "is the command older or newer than the node?"}
}
