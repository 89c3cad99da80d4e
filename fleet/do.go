package fleet

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/lull-dev/lull"
)

// readBuffer is for trailers: net/http takes none that do not fit into its buffer. Those of a function's streamed answer
// are up to 10 KB: the end of its log and an error, both in base64.
const readBuffer = 16 << 10

// Do sends a request of the node's own, one that no client has made, to an environment and returns its answer. It waits for
// a place as a client does, and gives it back when the answer's body is closed, which the caller must do. req.Host is up to
// the caller; the URL's host has no meaning. The request is sent once at most: an error after it was sent does not say
// whether the app has seen it. Errors are those of Acquire and of Place, or the cause of ctx.
func (f *Fleet) Do(ctx context.Context, why string, req *http.Request) (*http.Response, error) {
	claim, err := f.Acquire(ctx, Want{Why: why})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	// Ends with ctx, which release sees to and then waits for it.
	go func() {
		defer close(watched)
		select {
		case <-claim.Done():
			cancel(claim.Err())
		case <-ctx.Done():
		}
	}()
	transport := &http.Transport{
		DisableKeepAlives: true, DisableCompression: true, ReadBufferSize: readBuffer,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return claim.(*place).dialRuntime(ctx) },
	}
	release := sync.OnceFunc(func() {
		cancel(context.Canceled)
		<-watched
		claim.Free()
	})
	resp, err := transport.RoundTrip(req.WithContext(ctx))
	if err != nil {
		err = doError(ctx, claim, err)
		release()
		return nil, err
	}
	resp.Body = &doBody{ReadCloser: resp.Body, place: claim, ctx: ctx, release: release}
	return resp, nil
}

// endMoment is how long it is waited for news of an environment whose connection broke.
const endMoment = 200 * time.Millisecond

// doError says why a request got no answer, or not all of it: what ended it, rather than how that looked on the wire.
func doError(ctx context.Context, place Place, err error) error {
	var known *lull.Error
	if errors.As(err, &known) {
		return known
	}
	// A connection breaks a moment before the fleet knows that the environment has ended.
	moment := time.NewTimer(endMoment)
	defer moment.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-moment.C:
	}
	return &lull.Error{Kind: lull.KindRefused, Err: err, Message: "the app of environment " + place.Environment() + " gave no proper answer: " + err.Error()}
}

// doBody is the body of an answer, with the place that it keeps.
type doBody struct {
	io.ReadCloser
	place   Place
	ctx     context.Context
	release func()
}

func (b *doBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = doError(b.ctx, b.place, err)
	}
	return n, err
}

func (b *doBody) Close() error {
	err := b.ReadCloser.Close()
	b.release()
	return err
}
