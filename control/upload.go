package control

import (
	"bufio"
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
	// An answer that is sent before the upload has ended must still reach the client, which it does not if the connection
	// is closed on data that nobody has read: so much of the rest is taken and thrown away.
	drainBytes = 256 << 20
	drainTime  = 10 * time.Second
	// finishBytes is how much may follow the end of an archive: padding.
	finishBytes = 1 << 20
)

// upload is the body of a deploy, read while the answer is already being written.
type upload struct {
	conn  *http.ResponseController
	limit int64

	mu    sync.Mutex // held while the body is read
	body  *bufio.Reader
	size  int64 // read so far
	err   error // what the node gets from now on
	ended bool  // there is no more of the body
}

// openUpload begins to read the body. An upload that is too large is refused before a byte of it is sent, if the client
// says how large it is.
func openUpload(w *answer, r *http.Request, limit int64) (*upload, error) {
	if r.ContentLength > limit {
		return nil, uploadTooLarge(limit)
	}
	u := &upload{conn: w.conn, limit: limit, body: bufio.NewReaderSize(r.Body, 64<<10)}
	if err := u.conn.EnableFullDuplex(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return nil, fmt.Errorf("read and answer at once: %w", err)
	}
	// The first read asks a waiting client (Expect: 100-continue) to send. It must come before any part of the answer: a
	// client that is answered before it is asked sends nothing.
	u.allowTime()
	if _, err := u.body.Peek(1); err != nil && err != io.EOF {
		u.end(err)
		return nil, u.explain(fmt.Errorf("read the upload: %w", err))
	}
	return u, nil
}

func uploadTooLarge(limit int64) error {
	return &lull.Error{Kind: lull.KindTooLarge, Message: fmt.Sprintf("the upload is larger than %s", lull.Size(limit)),
		Hint: "leave out with .lullignore what the app does not need"}
}

// Read is for the node.
func (u *upload) Read(p []byte) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.err != nil {
		return 0, u.err
	}
	u.allowTime()
	n, err := u.body.Read(p)
	u.size += int64(n)
	switch {
	case u.size > u.limit:
		u.err = uploadTooLarge(u.limit)
		return 0, u.err
	case err != nil:
		u.end(err)
	}
	return n, err
}

// allowTime gives the client a while for its next bytes.
func (u *upload) allowTime() { _ = u.conn.SetReadDeadline(time.Now().Add(readTimeout)) }

// end is called with mu held. From the end of the body on the server itself reads from the connection, to notice when the
// client goes, and has all the time it wants.
func (u *upload) end(err error) {
	u.err, u.ended = err, true
	_ = u.conn.SetReadDeadline(time.Time{})
}

// finish reads to the end of the body: a node that knows the archive to be complete may not have come so far, and only
// then does the server notice when the client goes.
func (u *upload) finish() {
	u.mu.Lock()
	ended := u.err != nil
	u.mu.Unlock()
	if !ended {
		_, _ = io.CopyN(io.Discard, u, finishBytes)
	}
}

// drain takes what the client is still sending, for a while. The node gets nothing any more.
func (u *upload) drain() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.err = errors.New("read the upload: the deploy has ended")
	if u.ended {
		return
	}
	_ = u.conn.SetReadDeadline(time.Now().Add(drainTime))
	_, err := io.CopyN(io.Discard, u.body, drainBytes)
	if err != nil {
		u.end(u.err)
	}
}

// explain replaces an error of the node by what is behind it, if it comes from the upload.
func (u *upload) explain(err error) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.err != nil && lull.KindOf(u.err) == lull.KindTooLarge:
		return u.err
	case errors.Is(u.err, os.ErrDeadlineExceeded):
		return &lull.Error{Kind: lull.KindTimeout, Message: fmt.Sprintf("nothing more of the upload came for %s", lull.Duration(readTimeout)),
			Hint: "try again"}
	}
	return err
}
