package runtime

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	goruntime "runtime"
	"strings"
	"time"

	"github.com/lull-dev/lull/function/event"
)

const (
	headerErrorType = "Lambda-Runtime-Function-Error-Type"
	headerMode      = "Lambda-Runtime-Function-Response-Mode"

	// drained is how many times the limit of a call that is too large is read, so that the process gets our refusal
	// instead of a broken connection, which is all that most clients tell of otherwise.
	drained = 8

	// headerNext is for our own clients: what answers the call is the next invocation, so that the process is not woken
	// twice. A client that asks for it does not hear whether its answer was taken.
	headerNext = "Lull-Next"

	// exitMoment is how long after its connection a process may be seen to have ended, which then is what broke it.
	exitMoment = 200 * time.Millisecond
)

var errTooLarge = errors.New("the answer is too large")

// answer takes what the function sends for an invocation, its answer or an error.
func (a *api) answer(w http.ResponseWriter, r *http.Request, id string, isError bool) {
	limit := a.desk.config.Response
	i, err := a.desk.begin(a.process, id, http.NewResponseController(w))
	if err != nil {
		io.CopyN(io.Discard, r.Body, drained*limit)
		a.refuseAnswer(w, r, http.StatusBadRequest, "InvalidRequestID", err.Error())
		return
	}
	switch {
	case isError:
		a.failed(w, r, i)
	case streams(r.Header):
		a.streamed(w, r, i)
	default:
		a.whole(w, r, i)
	}
}

// streams reports whether the function asks for its answer to be passed on as it comes.
func streams(h http.Header) bool {
	if strings.EqualFold(h.Get(headerMode), "streaming") {
		return true
	}
	kind, _, _ := mime.ParseMediaType(h.Get("Content-Type"))
	return kind == event.PreludeType
}

// failed takes an error.
func (a *api) failed(w http.ResponseWriter, r *http.Request, i *invocation) {
	body, err := readBody(r, a.desk.config.Response)
	f := reported(r.Header.Get(headerErrorType), body)
	if err != nil { // what has come says enough, or nothing
		f = reported(r.Header.Get(headerErrorType), nil)
	}
	a.finish(w, r, i, answer{failure: f}, err)
}

// whole takes an answer in one piece.
func (a *api) whole(w http.ResponseWriter, r *http.Request, i *invocation) {
	body, err := readBody(r, a.desk.config.Response)
	result := answer{body: body}
	if err != nil {
		result = answer{failure: a.broken(i, err, a.desk.config.Response)}
	} else if f := trailed(r.Trailer); f != nil {
		result = answer{failure: f}
	}
	a.finish(w, r, i, result, err)
}

// streamed hands an answer to the caller while it is sent.
func (a *api) streamed(w http.ResponseWriter, r *http.Request, i *invocation) {
	s := &stream{
		body:        &streamBody{api: a, invocation: i, from: r.Body, left: a.desk.config.Streamed},
		trailer:     r.Trailer,
		contentType: r.Header.Get("Content-Type"),
		closed:      make(chan error, 1),
	}
	err := a.desk.stream(i, s)
	var result answer
	if err == nil {
		err = <-s.closed
	}
	if err != nil {
		result.failure = a.broken(i, err, a.desk.config.Streamed)
	}
	a.finish(w, r, i, result, err)
}

// finish ends the invocation and answers the process. Wrong is what was wrong with its answer, nil if nothing.
func (a *api) finish(w http.ResponseWriter, r *http.Request, i *invocation, result answer, wrong error) {
	err := a.desk.finish(i, result)
	goruntime.Gosched() // the caller first: it waits for the answer, the process for nothing
	switch {
	case err != nil:
		a.refuseAnswer(w, r, http.StatusBadRequest, "InvalidRequestID", err.Error())
	case wrong != nil && result.failure.kind == tooLarge:
		a.refuseAnswer(w, r, http.StatusRequestEntityTooLarge, "RequestEntityTooLarge",
			fmt.Sprintf("Exceeded maximum allowed payload size (%d bytes).", a.desk.config.Response))
	case wrong != nil:
		a.refuseAnswer(w, r, http.StatusBadRequest, "InvalidResponse", wrong.Error())
	case wantsNext(r):
		a.next(w, r)
	default:
		accept(w)
	}
}

func wantsNext(r *http.Request) bool { return r.Header.Get(headerNext) != "" }

// refuseAnswer says that what the function sent has not been taken.
func (a *api) refuseAnswer(w http.ResponseWriter, r *http.Request, status int, kind, message string) {
	if wantsNext(r) {
		a.next(w, r)
		return
	}
	refuseCall(w, status, kind, message)
}

// broken says why an answer did not arrive as it should.
func (a *api) broken(i *invocation, err error, limit int64) *failure {
	var f *failure
	switch {
	case errors.As(err, &f):
		return f
	case errors.Is(err, errTooLarge):
		return fail(http.StatusBadGateway, tooLarge, "Response payload size exceeded maximum allowed payload size (%d bytes).", limit)
	case a.desk.isLate(i):
		return late(i.id, a.desk.config.timeout())
	}
	select {
	case <-a.process.ended:
		return exited(i.id, a.process.how)
	case <-time.After(exitMoment):
	}
	return fail(http.StatusBadGateway, event.TruncatedResponse, "RequestId: %s Error: the response ended early: %v", i.id, err)
}

// readBody reads a body of at most limit bytes, and throws away a while what is more.
func readBody(r *http.Request, limit int64) ([]byte, error) {
	if size := r.ContentLength; size >= 0 && size <= limit {
		body := make([]byte, size)
		_, err := io.ReadFull(r.Body, body)
		if err == nil {
			_, err = io.ReadFull(r.Body, make([]byte, 1)) // the end, and with it the trailers
			if err == io.EOF {
				err = nil
			}
		}
		return body, err
	}
	var body []byte
	var err error
	if r.ContentLength < 0 {
		body, err = io.ReadAll(io.LimitReader(r.Body, limit+1))
		if err != nil || int64(len(body)) <= limit {
			return body, err
		}
	}
	io.CopyN(io.Discard, r.Body, drained*limit)
	return nil, errTooLarge
}

// A streamBody is the body of a streamed answer, with what can be wrong with one as failures.
type streamBody struct {
	api        *api
	invocation *invocation
	from       io.Reader
	left       int64
	err        error
}

func (s *streamBody) Read(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	n, err := s.from.Read(p)
	if int64(n) > s.left {
		n, err = int(s.left), errTooLarge
	}
	s.left -= int64(n)
	if err != nil && err != io.EOF {
		err = s.api.broken(s.invocation, err, s.api.desk.config.Streamed)
	}
	s.err = err
	return n, err
}
