package fleet

import (
	"context"
	"net"
	"time"

	"github.com/lull-dev/lull"
)

// Want describes the connection that wants a place.
type Want struct {
	Why    string // what it is, for the wake log: "GET /rooms"
	Stream bool   // it will become a stream (an upgrade, an event stream): it needs room among the streams as well
}

// How says what it took to give a place; it is the desc of the Server-Timing header.
type How string

const (
	Warm    How = "warm"   // a running environment had room
	Resumed How = "resume" // a paused one was resumed
	Woken   How = "wake"   // a hibernated one was restored
	Started How = "start"  // one was started cold
	Queued  How = "queue"  // it waited until somebody gave a place back
)

// Place is a claim on an environment: one exchange that may run there. The environment stays running until Release.
// A Place is used by one exchange; its methods may be called concurrently.
type Place interface {
	Environment() string   // id of the environment
	Release() lull.Release // what it runs
	How() How              // what it took
	Waited() time.Duration // from asking to getting it

	// Dial connects to the port the app listens on.
	Dial(ctx context.Context) (net.Conn, error)

	// Done is closed when the environment has ended, whatever the reason; Err then says why, as a *lull.Error.
	Done() <-chan struct{}
	Err() error

	// Stream turns the exchange into a stream: it gives the exchange's share of the concurrency back and counts as a
	// stream until Stream.Close. The Place must still be given back (Free), before or after.
	Stream() Stream

	// Free gives the place back. Only the first call counts.
	Free()
}

// Stream is an open stream as its environment sees it. It keeps the environment up while data moves and for
// stream.quiet after that. Methods may be called concurrently.
type Stream interface {
	// Hold waits until the environment is running and keeps it so until the returned function is called (once). Bytes
	// may be written to the environment only in between. why is for the wake log. It fails if the environment has ended
	// or ctx is done.
	Hold(ctx context.Context, why string) (release func(), err error)

	// Moved notes that the environment has sent data, which counts as activity.
	Moved()

	// Closing is closed when the environment is being stopped or replaced and wants the stream to end (1001 for a
	// WebSocket); the gateway then has a short moment to close it.
	Closing() <-chan struct{}

	// Close ends the stream's claim. Only the first call counts.
	Close()
}
