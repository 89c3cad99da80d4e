package runtime

import (
	"fmt"
	"io"
	"net/http"
	"time"
)

// State is where an invocation stands.
//
//	waiting ──▶ handed ──▶ answering ──▶ done
//	   │  ▲_______│ │ │         │ │
//	   │            │ └▶ overdue◀┘ │
//	   ▼            ▼       ▼      ▼
//	abandoned     failed ◀──┴──────┘
//
// An overdue invocation has been answered for: its caller was told that it timed out, but the function still works at it.
type State uint8

// The states of an invocation.
const (
	Waiting   State = iota // for the function to ask for it
	Handed                 // the function has it
	Answering              // the function sends its answer
	Overdue                // its time is up and the function has not answered
	Done                   // answered
	Failed                 // it failed, or came to nothing after it was overdue
	Abandoned              // its caller left before the function got it
)

var moves = map[State][]State{
	Waiting:   {Handed, Failed, Abandoned},
	Handed:    {Waiting, Answering, Failed, Overdue}, // back to waiting if it could not be written
	Answering: {Done, Failed, Overdue},
	Overdue:   {Failed},
}

func (s State) String() string {
	return [...]string{"waiting", "handed", "answering", "overdue", "done", "failed", "abandoned"}[s]
}

// ended reports whether there is nothing more to come.
func (s State) ended() bool { return s >= Done }

// Invocation is one event on its way through the function. What the caller gives is set before it is submitted and never
// changes; the rest belongs to the desk and is guarded by its lock.
type invocation struct {
	id            string
	event         []byte
	trace         string // X-Ray header
	clientContext string // JSON, as the caller gave it

	answers chan answer // holds one; exactly one is sent, unless the invocation is refused or abandoned

	state    State
	told     bool        // answers got its answer
	process  *process    // which has been handed it
	timer    *time.Timer // fires when its time is up
	started  time.Time   // when it was handed over
	deadline time.Time
	logged   int64       // how much the function had logged then
	conn     interrupter // the connection that the event or the answer is on right now
}

// Interrupter ends reading and writing on a connection. It is what an http.ResponseController has.
type interrupter interface {
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// Answer is what became of an invocation: a failure, a stream, or a body.
type answer struct {
	failure *failure
	stream  *stream
	body    []byte
}

// Failure is an error of the function, or of the runtime on its behalf, as the Lambda API tells it to the caller.
type failure struct {
	kind    string // errorType
	message string // errorMessage
	body    []byte // JSON with both, and what else the function told
	status  int    // for an HTTP caller
	notice  bool   // the function's log does not say it yet
	refused bool   // the function has not been asked
}

func (f *failure) Error() string { return f.kind + ": " + f.message }

// Stream is an answer that is being sent. Whoever gets it reads body to its end, or until it has enough, and then calls close
// once: the function's request is not answered before.
type stream struct {
	body        io.Reader   // fails once the invocation's time is up, or its process ends
	trailer     http.Header // filled at the end of body
	contentType string
	closed      chan error // holds one: what was wrong with the answer, nil if nothing
}

// close says that the answer has been taken.
func (s *stream) close(wrong error) { s.closed <- wrong }

// become moves the invocation to another state. It is the only function that sets one; the desk's lock is held.
func (i *invocation) become(next State) error {
	for _, legal := range moves[i.state] {
		if legal == next {
			i.state = next
			return nil
		}
	}
	return fmt.Errorf("invocation %s cannot become %s: it is %s", i.id, next, i.state)
}

// tell gives the caller its answer, unless it has one. The desk's lock is held.
func (i *invocation) tell(a answer) {
	if !i.told {
		i.told = true
		i.answers <- a
	}
}
