package fleet

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/sandbox"
)

// tailLines is how many of an environment's last lines of output an error carries, strangerLines how many of them one that
// anybody may be told, who has nothing to do with the app but its address.
const (
	tailLines     = 10
	strangerLines = 5
)

// RetryAfter returns in how long it makes sense to ask again after err, which came from Acquire: 0 if that is not known.
func RetryAfter(err error) time.Duration {
	var later *laterError
	if errors.As(err, &later) {
		return later.after
	}
	return 0
}

// laterError is a failure of the past that is still the answer for some time.
type laterError struct {
	after time.Duration
	err   error // the cause, if there is one
}

func (e *laterError) Error() string { return fmt.Sprintf("the next try is in %s", round(e.after)) }
func (e *laterError) Unwrap() error { return e.err }

// failure is how an environment came to its end when nobody asked for it. Its parts become errors for those that wait
// for the start, for those in the queue, and for those that had a place.
type failure struct {
	class  string   // for metrics: exit, signal, memory, processes, disk, sandbox, not-ready
	what   string   // "exited with code 1", to be read after the app's name or "it"
	advice string   // what a person can do; may be empty
	lines  []string // the last lines of its output
	err    error    // the cause, if there is one

	// Noted by befall.
	app   string
	ready bool // the environment had been ready: it can start
	known bool // its release had, if not this environment of it: what it prints now may be about its users
}

// befall notes what the environment had been when it ended.
func (f *failure) befall(e *environment) {
	if f != nil {
		f.app, f.ready, f.known = e.fleet.config.App, !e.cameUp.IsZero(), e.generation.port != 0
	}
}

func crash(exit sandbox.Exit, limits lull.Resources) *failure {
	return &failure{class: classOf(exit), what: exit.Describe(limits), err: exit.Err}
}

func classOf(exit sandbox.Exit) string {
	switch {
	case exit.Limit != "":
		return string(exit.Limit)
	case exit.Err != nil:
		return "sandbox"
	case exit.Signal != "":
		return "signal"
	}
	return "exit"
}

// broken is a failure of ours or of the host's, not of the app's.
func broken(verb string, err error) *failure {
	return &failure{class: "sandbox", what: "could not be " + verb + ": " + err.Error(), err: err}
}

// hint joins the advice and the last lines of output, so many at most.
func (f *failure) hint(most int) string {
	lines := f.lines[max(0, len(f.lines)-most):]
	if len(lines) == 0 {
		return f.advice
	}
	text := "Its last output:\n    " + strings.Join(lines, "\n    ")
	if f.advice != "" {
		text = f.advice + " " + text
	}
	return text
}

// seeLogs says where the app's owner finds what it printed. It is not shown to its clients: once an app has served, that
// may be about any of them.
func (f *failure) seeLogs() string {
	text := fmt.Sprintf("`lull logs %s` shows what it printed.", f.app)
	if f.advice != "" {
		text = f.advice + " " + text
	}
	return text
}

// notReady is what a start that failed is to the one who deploys the release.
func (f *failure) notReady(rel lull.Release) error {
	return &lull.Error{Kind: lull.KindNotReady, Message: fmt.Sprintf("%s %s", rel, f.what), Hint: f.hint(tailLines), Err: f.err}
}

// crashed is what the death of a running environment is to the exchanges it had.
func (f *failure) crashed(id string) error {
	return &lull.Error{Kind: lull.KindCrashed, Message: fmt.Sprintf("environment %s %s", id, f.what), Hint: f.seeLogs(), Err: f.err}
}

// starting is what a connection is told while the app is left alone after the failure.
func (f *failure) starting(rel lull.Release, after time.Duration) error {
	trouble, hint := "does not start", f.hint(strangerLines)
	if f.ready {
		trouble = "keeps crashing"
	}
	if f.ready || f.known || hint == "" {
		hint = f.seeLogs()
	}
	message := fmt.Sprintf("%s %s: it %s; the next try is in %s", rel.App, trouble, f.what, round(after))
	return &lull.Error{Kind: lull.KindStarting, Message: message, Hint: hint, Err: &laterError{after, f.err}}
}

func errQueueFull(app string, waiting int) error {
	return &lull.Error{Kind: lull.KindQueueFull,
		Message: fmt.Sprintf("no environment of %s has room, and %d connections wait already", app, waiting),
		Hint:    "try again; if it happens often, raise scale.max, concurrency or queue"}
}

// waited is what a connection has waited for in vain.
type waited uint8

const (
	waitedRoom   waited = iota // in an environment
	waitedStart                // of one
	waitedMemory               // for one
)

func errTimedOut(app string, after time.Duration, why waited) error {
	message := fmt.Sprintf("no environment of %s had room within %s (timeout.queue)", app, round(after))
	switch why {
	case waitedStart:
		message = fmt.Sprintf("%s is still starting after %s (timeout.queue)", app, round(after))
	case waitedMemory:
		message = fmt.Sprintf("the node had no memory for an environment of %s within %s (timeout.queue)", app, round(after))
	}
	return &lull.Error{Kind: lull.KindStarting, Message: message, Hint: "try again in a moment"}
}

func errDraining(app string) error {
	return &lull.Error{Kind: lull.KindDraining, Message: app + " is being stopped", Hint: "try again in a moment"}
}

func errStopped(id, why string) error {
	return &lull.Error{Kind: lull.KindDraining, Message: fmt.Sprintf("environment %s was stopped: %s", id, why)}
}

func errNoRelease(app string) error {
	return &lull.Error{Kind: lull.KindNotFound, Message: app + " has no release yet", Hint: "deploy it with `lull deploy`"}
}

func errCancelled(rel lull.Release, cause error) error {
	return &lull.Error{Kind: lull.KindNotReady, Message: fmt.Sprintf("%s was not ready in time: %s", rel, cause), Err: cause}
}

// round cuts a duration to what a person wants to read.
func round(d time.Duration) lull.Duration {
	switch {
	case d >= 10*time.Second:
		d = d.Round(time.Second)
	case d >= time.Second:
		d = d.Round(100 * time.Millisecond)
	case d >= time.Millisecond:
		d = d.Round(time.Millisecond)
	}
	return lull.Duration(d)
}
