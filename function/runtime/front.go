package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"time"

	"github.com/lull-dev/lull/function/event"
)

// The front is where requests come in: HTTP ones, which become events, and direct invocations, which are events.
type front struct {
	desk   *desk
	config Config
	pumps  pumps
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if f.isDirect(r) {
		f.direct(w, r)
		return
	}
	body, fault := f.body(r)
	if fault != nil {
		f.refuse(w, fault)
		return
	}
	now := time.Now()
	i := &invocation{id: event.NewRequestID(), trace: traceOf(r, now)}
	i.event = event.Encode(event.Format(f.config.Payload), r, body, event.Info{App: f.config.Name, RequestID: i.id, Time: now})
	switch a := f.invoke(r.Context(), i); {
	case a.failure != nil:
		f.refuse(w, a.failure)
	case a.stream != nil:
		f.stream(w, a.stream)
	default:
		f.whole(w, i, a)
	}
}

// body reads the body of a request.
func (f *front) body(r *http.Request) ([]byte, *failure) {
	if r.ContentLength == 0 {
		return nil, nil
	}
	body, err := readBody(r, f.config.Request)
	switch {
	case errors.Is(err, errTooLarge):
		return nil, fail(http.StatusRequestEntityTooLarge, requestTooLarge, "the request is larger than %d bytes", f.config.Request).beforehand()
	case err != nil:
		return nil, fail(http.StatusBadRequest, "InvalidRequest", "the request ended early: %v", err).beforehand()
	}
	return body, nil
}

var errLeft = errors.New("the caller has left")

// invoke hands an invocation in and waits for its answer. If the caller leaves the function goes on with what it has begun, and
// what it answers is dropped.
func (f *front) invoke(ctx context.Context, i *invocation) answer {
	if refusal := f.desk.submit(i); refusal != nil {
		return answer{failure: refusal}
	}
	select {
	case a := <-i.answers:
		return a
	case <-ctx.Done():
	}
	left := answer{failure: fail(499, "ClientClosedRequest", "%v", errLeft).beforehand()}
	if f.desk.abandon(i) {
		return left
	}
	if a := <-i.answers; a.stream != nil {
		_, err := io.Copy(io.Discard, a.stream.body)
		a.stream.close(err)
	}
	return left
}

// whole writes an answer that came in one piece.
func (f *front) whole(w http.ResponseWriter, i *invocation, a answer) {
	decoded, err := event.Decode(event.Format(f.config.Payload), a.body)
	if err != nil {
		f.refuse(w, fail(http.StatusBadGateway, invalidAnswer, "RequestId: %s Error: the function's answer cannot be sent: %v", i.id, err))
		return
	}
	f.part(w)
	writeHead(w, decoded)
	if bodyAllowed(decoded.Status) {
		w.Header()["Content-Length"] = []string{strconv.Itoa(len(decoded.Body))}
		w.WriteHeader(decoded.Status)
		w.Write(decoded.Body)
		return
	}
	w.WriteHeader(decoded.Status)
}

func bodyAllowed(status int) bool {
	return status != http.StatusNoContent && status != http.StatusNotModified
}

// part ends the connection with this answer if the process takes requests itself by now, so that the next finds the shorter way.
func (f *front) part(w http.ResponseWriter) {
	if f.desk.isBypassed() {
		w.Header().Set("Connection", "close")
	}
}

func writeHead(w http.ResponseWriter, a *event.Answer) {
	h := w.Header()
	for name, values := range a.Header {
		h[name] = values
	}
	if _, there := h["Content-Type"]; !there {
		h["Content-Type"] = nil // do not guess
	}
}

// stream writes an answer as it comes.
func (f *front) stream(w http.ResponseWriter, s *stream) {
	begun, err := f.pass(w, s)
	if err == nil {
		if fault := trailed(s.trailer); fault != nil {
			err = fault
			fault.notice = false // the function has reported it: it knows
		}
	}
	s.close(streamError(err))
	if err == nil {
		return
	}
	if !begun {
		f.refuse(w, asFailure(err))
		return
	}
	f.note(asFailure(err))
	panic(http.ErrAbortHandler) // the client must not take what it has for the whole
}

// streamError is what the function is told: that its client has gone is not its fault.
func streamError(err error) error {
	if errors.Is(err, errLeft) {
		return nil
	}
	return err
}

// pass carries the body over, and reports whether the client has been sent anything.
func (f *front) pass(w http.ResponseWriter, s *stream) (begun bool, err error) {
	kind, _, _ := mime.ParseMediaType(s.contentType)
	var prelude *event.Prelude
	if kind == event.PreludeType {
		prelude = &event.Prelude{}
	} else {
		if s.contentType == "" {
			s.contentType = "application/octet-stream"
		}
		w.Header().Set("Content-Type", s.contentType)
	}
	client := http.NewResponseController(w)
	buffer := make([]byte, 32<<10)
	gone := false
	for {
		n, err := s.body.Read(buffer)
		piece := buffer[:n]
		if prelude != nil && n > 0 {
			head, rest, wrong := prelude.Take(piece)
			if wrong != nil {
				return begun, fail(http.StatusBadGateway, invalidAnswer, "the function's answer cannot be sent: %v", wrong)
			}
			if head == nil {
				piece = nil
			} else {
				writeHead(w, head)
				w.WriteHeader(head.Status)
				prelude, begun, piece = nil, true, rest
				gone = client.Flush() != nil
			}
		}
		if len(piece) > 0 && !gone {
			begun = true
			if _, wrong := w.Write(piece); wrong != nil {
				gone = true
			} else {
				gone = client.Flush() != nil
			}
		}
		switch {
		case err == io.EOF && prelude != nil:
			return begun, fail(http.StatusBadGateway, invalidAnswer, "the function's answer cannot be sent: its prelude has no end")
		case err == io.EOF && gone:
			return begun, errLeft
		case err == io.EOF:
			return begun, nil
		case err != nil:
			return begun, err
		}
	}
}

// refuse answers an HTTP client that gets no answer of the function. What was wrong is for the log only.
func (f *front) refuse(w http.ResponseWriter, fault *failure) {
	f.note(fault)
	messages := map[int]string{
		http.StatusBadGateway: "Internal Server Error", http.StatusGatewayTimeout: "Endpoint request timed out",
		http.StatusRequestEntityTooLarge: "Request Too Long", http.StatusServiceUnavailable: "Service Unavailable",
	}
	message := messages[fault.status]
	if message == "" {
		message = http.StatusText(fault.status)
	}
	h := w.Header()
	for name := range h {
		delete(h, name)
	}
	f.part(w)
	h.Set("Content-Type", "application/json")
	h.Set("X-Amzn-Errortype", fault.kind)
	if fault.status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1")
	}
	w.WriteHeader(fault.status)
	fmt.Fprintf(w, "{\"message\":%q}\n", message)
}

// note writes a failure to the log, if it is not there.
func (f *front) note(fault *failure) {
	if fault.notice && !errors.Is(fault, errLeft) && fault.status != 499 {
		f.desk.log.say("%s", fault.line())
	}
}

// traceOf is the X-Ray header of a request; one without is given one.
func traceOf(r *http.Request, now time.Time) string {
	if trace := r.Header.Get("X-Amzn-Trace-Id"); trace != "" && len(trace) < 512 {
		return trace
	}
	return newTrace(now)
}

func newTrace(now time.Time) string {
	return fmt.Sprintf("Root=1-%08x-%s;Parent=%s;Sampled=0", uint32(now.Unix()), randomHex(12), randomHex(8))
}
