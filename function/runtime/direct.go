package runtime

import (
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/lull-dev/lull/function/event"
)

// isDirect reports whether a request is an invocation of the node's. Anybody can send the header, but not the key.
func (f *front) isDirect(r *http.Request) bool {
	keys := r.Header[event.HeaderInvoke]
	return len(keys) == 1 && f.config.Key != "" && subtle.ConstantTimeCompare([]byte(keys[0]), []byte(f.config.Key)) == 1
}

// direct invokes the function with an event as it is.
func (f *front) direct(w http.ResponseWriter, r *http.Request) {
	i, fault := f.directInvocation(r)
	if fault != nil {
		refuseDirect(w, fault)
		return
	}
	a := f.invoke(r.Context(), i)
	switch {
	case a.failure != nil && a.failure.refused:
		refuseDirect(w, a.failure)
		return
	case a.failure != nil:
		f.note(a.failure)
	case a.stream != nil && r.Header.Get(event.HeaderStreaming) != "":
		f.directStream(w, i, a.stream, f.wantsLog(r))
		return
	case a.stream != nil:
		a = f.gather(a.stream)
	}
	h := w.Header()
	if f.wantsLog(r) {
		h[event.HeaderLogResult] = []string{f.tail(i)}
	}
	body := a.body
	if a.failure != nil {
		h[event.HeaderFunctionError] = []string{"Unhandled"}
		body = a.failure.body
	}
	h["Content-Type"] = []string{"application/json"}
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.Write(body)
}

func (f *front) wantsLog(r *http.Request) bool { return r.Header.Get(event.HeaderLog) == "Tail" }

func (f *front) directInvocation(r *http.Request) (*invocation, *failure) {
	body, fault := f.body(r)
	if fault != nil {
		return nil, fault
	}
	if len(body) == 0 {
		body = []byte("{}")
	}
	if !json.Valid(body) {
		return nil, fail(http.StatusBadRequest, "InvalidRequestContentException", "Could not parse request body into json").beforehand()
	}
	client, err := base64.StdEncoding.DecodeString(r.Header.Get(event.HeaderClientContext))
	if err != nil || len(client) > 0 && !json.Valid(client) {
		return nil, fail(http.StatusBadRequest, "InvalidRequestContentException", "the client context is not JSON in base64").beforehand()
	}
	i := &invocation{id: r.Header.Get(event.HeaderRequestID), event: body, trace: traceOf(r, time.Now()), clientContext: string(client)}
	if i.id == "" || len(i.id) > 128 {
		i.id = event.NewRequestID()
	}
	return i, nil
}

// refuseDirect answers for an invocation that the function has not been asked.
func refuseDirect(w http.ResponseWriter, fault *failure) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(fault.status)
	w.Write(fault.body)
}

// gather makes one piece of a streamed answer, for a caller who wants that.
func (f *front) gather(s *stream) answer {
	body, err := io.ReadAll(io.LimitReader(s.body, f.config.Response+1))
	if err == nil && int64(len(body)) > f.config.Response {
		err = errTooLarge
	}
	fault := trailed(s.trailer)
	s.close(err)
	switch {
	case err == errTooLarge:
		return answer{failure: fail(http.StatusBadGateway, tooLarge, "Response payload size exceeded maximum allowed payload size (%d bytes).", f.config.Response)}
	case err != nil:
		return answer{failure: asFailure(err)}
	case fault != nil:
		return answer{failure: fault}
	}
	return answer{body: body}
}

// directStream passes a streamed answer on, with what went wrong at its end.
func (f *front) directStream(w http.ResponseWriter, i *invocation, s *stream, log bool) {
	h := w.Header()
	h.Set("Trailer", event.HeaderFunctionError+", "+event.HeaderFunctionErrorBody+", "+event.HeaderLogResult)
	if s.contentType == "" {
		s.contentType = "application/octet-stream"
	}
	h.Set("Content-Type", s.contentType)
	client := http.NewResponseController(w)
	_, err := io.Copy(flushing{w, client}, s.body)
	fault := trailed(s.trailer)
	s.close(err)
	if fault == nil && err != nil {
		fault = asFailure(err)
		f.note(fault)
	}
	if fault != nil {
		h.Set(event.HeaderFunctionError, "Unhandled")
		h.Set(event.HeaderFunctionErrorBody, base64.StdEncoding.EncodeToString(fault.body))
	}
	if log {
		h.Set(event.HeaderLogResult, f.tail(i))
	}
}

// flushing sends each piece as it comes.
type flushing struct {
	w      io.Writer
	client *http.ResponseController
}

func (f flushing) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	if err == nil {
		err = f.client.Flush()
	}
	return n, err
}

// tail is the end of the log of an invocation, with the lines that Lambda puts around it.
func (f *front) tail(i *invocation) string {
	f.pumps.settle()
	took := time.Since(i.started)
	head := fmt.Sprintf("START RequestId: %s Version: %s\n", i.id, f.config.Version)
	foot := fmt.Sprintf("END RequestId: %s\nREPORT RequestId: %s\tDuration: %.2f ms\tBilled Duration: %d ms\tMemory Size: %d MB\n",
		i.id, i.id, float64(took.Microseconds())/1000, took.Milliseconds()+1, f.config.megabytes())
	said := f.desk.log.since(i.logged)
	if over := len(head) + len(said) + len(foot) - tailSize; over > 0 {
		said = said[min(over, len(said)):]
	}
	return base64.StdEncoding.EncodeToString([]byte(head + string(said) + foot))
}
