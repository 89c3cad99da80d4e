package lull

import (
	"errors"
	"net/http"
)

// Kind says what can be done about an error. HTTP statuses, exit codes and metric labels follow from it, in one table.
type Kind string

const (
	KindInvalid      Kind = "invalid"      // the caller's input is wrong
	KindNotFound     Kind = "not-found"    // what was named does not exist
	KindNoApp        Kind = "no-app"       // no app has this host name
	KindConflict     Kind = "conflict"     // something else is under way or already there
	KindUnauthorized Kind = "unauthorized" // no token, or a wrong one
	KindTooLarge     Kind = "too-large"    // over a stated size
	KindBuild        Kind = "build"        // the user's build did not succeed
	KindNotReady     Kind = "not-ready"    // the app did not come up
	KindCrashed      Kind = "crashed"      // the app died while it had the exchange
	KindRefused      Kind = "refused"      // the app does not accept the connection, or breaks the protocol
	KindQueueFull    Kind = "queue-full"   // no place, and no room to wait for one
	KindStarting     Kind = "starting"     // no place became free in time, or the app does not start
	KindDraining     Kind = "draining"     // the app or the node is going away
	KindTimeout      Kind = "timeout"      // the app did not answer in time
	KindUnsupported  Kind = "unsupported"  // this host or driver cannot do it
	KindInternal     Kind = "internal"     // our fault
)

var statuses = map[Kind]int{
	KindInvalid: http.StatusBadRequest, KindNotFound: http.StatusNotFound, KindNoApp: http.StatusNotFound,
	KindConflict: http.StatusConflict, KindUnauthorized: http.StatusUnauthorized,
	KindTooLarge: http.StatusRequestEntityTooLarge, KindBuild: http.StatusUnprocessableEntity,
	KindNotReady: http.StatusUnprocessableEntity, KindCrashed: http.StatusBadGateway, KindRefused: http.StatusBadGateway,
	KindQueueFull: http.StatusServiceUnavailable, KindStarting: http.StatusServiceUnavailable,
	KindDraining: http.StatusServiceUnavailable, KindTimeout: http.StatusGatewayTimeout,
	KindUnsupported: http.StatusNotImplemented, KindInternal: http.StatusInternalServerError,
}

// Status returns the HTTP status that goes with the kind.
func (k Kind) Status() int {
	if status, ok := statuses[k]; ok {
		return status
	}
	return http.StatusInternalServerError
}

// Error is an error that has reached an edge: it has a kind, says what happened in one sentence that makes sense to a
// user, and may say what a person can do next.
type Error struct {
	Kind    Kind
	Message string
	Hint    string // what a person can do next; may be empty
	Err     error  // the cause, if there is one; it is not part of Error()
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// KindOf returns the kind of the outermost *Error in err's chain: KindInternal if there is none, "" for nil.
func KindOf(err error) Kind {
	var e *Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return e.Kind
	}
	return KindInternal
}

// HintOf returns the hint of the outermost *Error in err's chain that has one.
func HintOf(err error) string {
	for err != nil {
		var e *Error
		if !errors.As(err, &e) {
			return ""
		}
		if e.Hint != "" {
			return e.Hint
		}
		err = e.Err
	}
	return ""
}
