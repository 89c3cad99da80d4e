package runtime

import (
	"encoding/json"
	"io"
	stdlog "log"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The api is the Lambda Runtime API, version 2018-06-01, for one process.
type api struct {
	desk    *desk
	process *process
}

const (
	apiPath  = "/2018-06-01/runtime/"
	nextPath = apiPath + "invocation/next"
	initPath = apiPath + "init/error"
	invoked  = apiPath + "invocation/"

	// initBody bounds what a process may say about its initialisation.
	initBody = 256 << 10
)

// quiet is for servers whose complaints are about connections that broke.
var quiet = stdlog.New(io.Discard, "", 0)

// newAPI returns a server without a time limit on polls. A connection that has begun a request has to finish its head.
func newAPI(d *desk, p *process) *http.Server {
	return &http.Server{
		Handler:           &api{desk: d, process: p},
		ReadHeaderTimeout: 10 * time.Second,
		MaxHeaderBytes:    1 << 20, // X-Ray causes are headers of up to that size
		ErrorLog:          quiet,
	}
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path, get := r.URL.Path, r.Method == http.MethodGet
	switch {
	case path == nextPath && get:
		a.next(w, r)
		return
	case path == nextPath && r.Method != http.MethodPost, path == initPath && r.Method != http.MethodPost:
		refuseCall(w, http.StatusMethodNotAllowed, "InvalidMethod", "the method is not allowed here")
		return
	case path == initPath:
		a.initError(w, r)
		return
	}
	id, what, ok := strings.Cut(strings.TrimPrefix(path, invoked), "/")
	switch {
	case !ok || !strings.HasPrefix(path, invoked) || what != "response" && what != "error":
		refuseCall(w, http.StatusNotFound, "NotFound", "there is nothing of this name in this runtime API")
	case r.Method != http.MethodPost:
		refuseCall(w, http.StatusMethodNotAllowed, "InvalidMethod", "the method is not allowed here")
	default:
		a.answer(w, r, id, what == "error")
	}
}

// next answers a poll once there is an invocation.
func (a *api) next(w http.ResponseWriter, r *http.Request) {
	a.process.asked()
	conn := http.NewResponseController(w)
	i, err := a.desk.next(r.Context(), a.process, conn)
	if err != nil {
		refuseCall(w, http.StatusForbidden, "InvalidStateTransition", err.Error())
		return
	}
	h := w.Header()
	h["Content-Type"] = []string{"application/json"}
	h["Content-Length"] = []string{strconv.Itoa(len(i.event))}
	h["Lambda-Runtime-Aws-Request-Id"] = []string{i.id}
	h["Lambda-Runtime-Deadline-Ms"] = []string{strconv.FormatInt(i.deadline.UnixMilli(), 10)}
	h["Lambda-Runtime-Invoked-Function-Arn"] = []string{a.desk.arn}
	h["Lambda-Runtime-Trace-Id"] = []string{i.trace}
	if i.clientContext != "" {
		h["Lambda-Runtime-Client-Context"] = []string{i.clientContext}
	}
	_, err = w.Write(i.event)
	if err == nil {
		err = conn.Flush()
	}
	if err != nil {
		a.desk.back(i)
		return
	}
	a.desk.delivered(i)
}

// initError takes the report of a process that cannot initialise itself.
func (a *api) initError(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, initBody))
	if err != nil {
		refuseCall(w, http.StatusBadRequest, "InvalidRequest", "the body ended early")
		return
	}
	if !a.process.fail(reported(r.Header.Get(headerErrorType), body)) {
		refuseCall(w, http.StatusForbidden, "InvalidStateTransition", "the function is initialised, or has said why it is not")
		return
	}
	accept(w)
}

var accepted = []byte("{\"status\":\"OK\"}\n")

// accept says that the call has been taken.
func accept(w http.ResponseWriter) {
	h := w.Header()
	h["Content-Type"] = []string{"application/json"}
	h["Content-Length"] = []string{strconv.Itoa(len(accepted))}
	w.WriteHeader(http.StatusAccepted)
	w.Write(accepted)
}

// refuseCall says that the call has not been taken, and why.
func refuseCall(w http.ResponseWriter, status int, kind, message string) {
	body, _ := json.Marshal(told{Type: kind, Message: message})
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(body)
}
