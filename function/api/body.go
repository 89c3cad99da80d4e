package api

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/lull-dev/lull"
)

const (
	// maxBodies is what the bodies of all requests under way may take of the node's memory. One caller may have a quarter of
	// it, an app or those with the token, so that no app can lock the others out.
	maxBodies = 256 << 20
	maxBody   = maxBodies / 4

	// A body has bodyTime to come, and a second more for every bodyRate bytes.
	bodyTime = 10 * time.Second
	bodyRate = 128 << 10
)

// bound is the limit of a body of which an app says that it may be that large.
func bound(limit lull.Size) int64 { return min(int64(limit), maxBody) }

// receive reads the body of a call. It takes as many bytes as the body has of the budget, for the caller to give back.
func (a *API) receive(w http.ResponseWriter, r *http.Request, c call, do operation) ([]byte, error) {
	size := r.ContentLength
	if size < 0 {
		size = do.limit
	}
	large := &problem{http.StatusRequestEntityTooLarge, do.large, fmt.Sprintf("The body is larger than the limit of %d bytes.", do.limit)}
	if size > do.limit {
		discard(r)
		return nil, large
	}
	if !a.bodies.take(c.only, size) {
		discard(r)
		return nil, &problem{http.StatusTooManyRequests, "TooManyRequestsException", "The node has no memory for this request beside those under way."}
	}
	allowTime(w, size)
	body := bytes.NewBuffer(make([]byte, 0, max(r.ContentLength, 0)+bytes.MinRead))
	_, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, do.limit))
	if err == nil {
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // the server reads on, to notice when the caller leaves
		a.bodies.give(c.only, size-int64(body.Len()))
		return body.Bytes(), nil
	}
	a.bodies.give(c.only, size)
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		discard(r)
		return nil, large
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, &problem{http.StatusRequestTimeout, "RequestTimeoutException", "The body did not come in time."}
	}
	return nil, &problem{http.StatusBadRequest, "InvalidRequestContentException", "The request ended early."}
}

// allowTime gives the caller the time that a body of so many bytes may take from now on.
func allowTime(w http.ResponseWriter, size int64) {
	allowed := bodyTime + time.Duration(size/bodyRate)*time.Second
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(allowed))
}

// discard takes what a caller still sends, within the time that it has: otherwise it would find its connection broken, rather
// than our answer.
func discard(r *http.Request) { _, _ = io.CopyN(io.Discard, r.Body, maxBody) }

// budget counts the bytes of the bodies that are held in memory. The zero value has counted nothing.
type budget struct {
	mu    sync.Mutex // guards what follows
	taken int64
	by    map[string]int64 // the app whose environments call; "": callers with the token
}

// take reports whether there is room for n bytes more, and counts them if so.
func (b *budget) take(app string, n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.taken+n > maxBodies || b.by[app]+n > maxBody {
		return false
	}
	if b.by == nil {
		b.by = map[string]int64{}
	}
	b.taken += n
	b.by[app] += n
	return true
}

// give gives n bytes back.
func (b *budget) give(app string, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.taken -= n
	if b.by[app] -= n; b.by[app] == 0 {
		delete(b.by, app)
	}
}
