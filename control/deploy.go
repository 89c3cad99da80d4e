package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/lull-dev/lull"
)

const (
	// expectTimeout is how long an upload waits to be asked for. A node asks, or refuses, at once.
	expectTimeout = 3 * time.Second
	// maxLine bounds one line of a stream.
	maxLine = 4 << 20
)

// Deploy is Node.Deploy. The archive is sent as it is read; nothing is sent to a node that refuses it at once. When Deploy
// has returned the archive is not read from again, but for one Read that may be under way.
func (c *Client) Deploy(ctx context.Context, req DeployRequest, emit func(Event)) (Deployed, error) {
	archive := &outgoing{archive: req.Archive}
	defer archive.Close()
	query := url.Values{}
	if req.App != "" {
		query.Set("app", req.App)
	}
	body := io.Reader(archive)
	if req.Manifest != nil {
		text, err := json.Marshal(req.Manifest)
		if err != nil {
			return Deployed{}, fmt.Errorf("send the manifest: %w", err)
		}
		if len(text) > maxManifest {
			return Deployed{}, manifestTooLarge()
		}
		query.Set("manifest", strconv.Itoa(len(text)))
		body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(text), archive), archive}
	}
	answer, err := c.call(ctx, call{
		method: http.MethodPost, path: "/v1/releases", query: query, body: body,
		header: http.Header{"Expect": {"100-continue"}, "Content-Type": {"application/octet-stream"}},
	})
	var done Deployed
	if err == nil {
		done, err = c.follow(ctx, answer, emit)
	}
	if cause := archive.failed(); err != nil && cause != nil && ctx.Err() == nil {
		return Deployed{}, fmt.Errorf("send the files: %w", cause) // whatever happened after that follows from it
	}
	return done, err
}

// maxManifest bounds a manifest that is sent along. Its text has at most a fourth of that; JSON may need more.
const maxManifest = 1 << 20

func manifestTooLarge() error {
	return &lull.Error{Kind: lull.KindTooLarge, Message: fmt.Sprintf("the manifest is larger than %s", lull.Size(maxManifest))}
}

// readManifest reads the manifest that stands before an archive; length is how many bytes it has. What it leaves out has its
// default; what it names and this node does not know must not be passed over.
func readManifest(r io.Reader, length string) (*lull.Manifest, error) {
	n, err := strconv.Atoi(length)
	switch {
	case err != nil || n < 2:
		return nil, &lull.Error{Kind: lull.KindInvalid, Message: fmt.Sprintf("manifest=%q is not a number of bytes", length)}
	case n > maxManifest:
		return nil, manifestTooLarge()
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(r, text); err != nil {
		return nil, &lull.Error{Kind: lull.KindInvalid, Message: fmt.Sprintf("the upload ends before its manifest does: %v", err), Err: err}
	}
	m := lull.DefaultManifest()
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&m); err != nil {
		return nil, &lull.Error{Kind: lull.KindInvalid, Err: err, Message: fmt.Sprintf("the manifest is not the JSON it should be: %v", err),
			Hint: "is the command older or newer than the node?"}
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, &lull.Error{Kind: lull.KindInvalid, Message: "the manifest is not the JSON it should be: there is more behind it"}
	}
	return &m, nil
}

// follow passes on the events of a deploy or rollback until it ends.
func (c *Client) follow(ctx context.Context, answer *http.Response, emit func(Event)) (Deployed, error) {
	defer answer.Body.Close()
	done, err := readEvents(answer.Body, emit)
	if errors.Is(err, errBroken) && ctx.Err() == nil {
		return done, &lull.Error{Kind: lull.KindRefused, Err: err,
			Message: fmt.Sprintf("the connection to the node at %s broke before the deploy ended: %v", c.URL, err),
			Hint:    "`lull releases` shows whether it has come through"}
	}
	return done, c.broken(ctx, err)
}

// outgoing is the body of a deploy: an archive that remembers why it could not be read, and that is not read once it is
// closed.
type outgoing struct {
	archive io.Reader

	mu     sync.Mutex
	err    error
	closed bool
}

func (o *outgoing) Read(p []byte) (int, error) {
	o.mu.Lock()
	closed := o.closed
	o.mu.Unlock()
	if closed {
		return 0, io.ErrClosedPipe
	}
	n, err := o.archive.Read(p)
	if err != nil && err != io.EOF {
		o.mu.Lock()
		o.err = err
		o.mu.Unlock()
	}
	return n, err
}

func (o *outgoing) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	return nil
}

func (o *outgoing) failed() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// errBroken is wrapped by errors of a stream that does not end as it should.
var errBroken = errors.New("the answer is cut off")

// readEvents reads the answer to a deploy or rollback.
func readEvents(r io.Reader, emit func(Event)) (Deployed, error) {
	var done *Deployed
	err := readLines(r, func(l line) error {
		switch {
		case l.Event != nil:
			emit(*l.Event)
		case l.Done != nil:
			done = l.Done
			return errEnd
		case l.Error != nil:
			return l.Error.err()
		}
		return nil
	})
	switch {
	case err != nil:
		return Deployed{}, err
	case done == nil:
		return Deployed{}, errBroken
	}
	return *done, nil
}

// readLogs reads the answer to a question for logs.
func readLogs(r io.Reader, fn func(LogEntry) error) error {
	return readLines(r, func(l logLine) error {
		switch {
		case l.Error != nil:
			return l.Error.err()
		case l.Entry != nil:
			return fn(*l.Entry)
		}
		return nil
	})
}

// errEnd ends readLines without an error.
var errEnd = errors.New("that was all")

// readLines calls fn for each line of a stream, to its end or until fn returns an error. Fields that are not known are
// passed over: the node may be newer.
func readLines[L any](r io.Reader, fn func(L) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	for lines.Scan() {
		var l L
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return fmt.Errorf("%w: %w", errBroken, err)
		}
		if err := fn(l); errors.Is(err, errEnd) {
			return nil
		} else if err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%w: %w", errBroken, err)
	}
	return nil
}
