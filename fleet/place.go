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

	Upgrade bool // it asks for an upgrade; a fleet does not care

	// Environment, if not empty, is the id of the environment that the connection belongs to (affinity). It waits for a
	// place there while that environment can still serve, and takes any other place if it cannot.
	Environment string
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

	// Awake returns since when the environment has been up without a break. A connection to it that was idle before may
	// have had its day: the app's timers have seen the time pass.
	Awake() time.Time

	// Dial connects to the port on which the app takes requests.
	Dial(ctx context.Context) (net.Conn, error)

	// Late says that the app has not answered in time. A function that takes requests itself, and so sees to its time
	// itself, is beyond that then: its environment is ended.
	Late()

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
	// may be written to the environment only in between. It counts as data. why is for the wake log. It fails if the
	// environment has ended or ctx is done.
	Hold(ctx context.Context, why string) (release func(), err error)

	// HoldIfUp is Hold for what is no data, a heartbeat: it neither waits nor wakes nor keeps the environment up, and ok
	// is false if the environment is not running, or about to be put to sleep.
	HoldIfUp() (release func(), ok bool)

	// HoldIfThere is HoldIfUp for an answer that the app waits for, and allows writing to a paused environment as well: it
	// is then what the app finds first when it goes on. If it came later, the app's timer would have found it missing.
	HoldIfThere() (release func(), ok bool)

	// WhenUp calls do, once, as soon as the environment is up for another reason (at once if it is), held like Hold does,
	// in a goroutine of its own; or not at all if the environment ends before. It is for what the app may learn late:
	// that a client has died.
	WhenUp(do func())

	// Moved notes that the client has got data of the environment's, which counts as activity, and wakes one that has
	// fallen asleep before its client took it. Heartbeats do not.
	Moved()

	// Unsettled says whether sleep would fall into something half done: the rest of a frame is still to come, or a ping
	// of the app's is unanswered. It puts each step down the ladder off, for a short time. A stream begins settled.
	Unsettled(on bool)

	// Sleep returns which of the environment's sleeps this is, from 1: it is paused or hibernated, and the gateway keeps the
	// client company. It returns 0 while the environment runs. It is cheap.
	Sleep() uint32

	// Closing is closed when the stream is to end: the environment is being stopped or replaced, or has ended. The gateway
	// then has a short moment to close it, with CloseCode.
	Closing() <-chan struct{}

	// CloseCode is the WebSocket close code that tells the client why: 1001 if the environment was stopped or replaced,
	// 1012 if it could not come back. It is valid once Closing is closed.
	CloseCode() uint16

	// Close ends the stream's claim. Only the first call counts.
	Close()
}
