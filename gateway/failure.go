package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/fleet"
	"github.com/lull-dev/lull/gateway/http1"
)

// Causes that end an exchange. They tell apart whose doing it was.
var (
	errClientGone = errors.New("the client has gone")
	errStreamOver = errors.New("the stream was asked to end")
	errCutOff     = &lull.Error{Kind: lull.KindDraining, Message: "This node is shutting down.", Hint: "Try again in a moment."}
)

// failure is an answer made by Lull, never by the app.
type failure struct {
	status  int
	kind    lull.Kind
	message string
	hint    string
	later   time.Duration // when it makes sense to try again; 0 if that is not known
}

// failureOf turns the error that ended an exchange into what the client is told. The insides of an error that has no kind
// are not shown.
func failureOf(err error) failure {
	var known *lull.Error
	if errors.As(err, &known) {
		return failure{known.Kind.Status(), known.Kind, known.Message, lull.HintOf(err), fleet.RetryAfter(err)}
	}
	var refused *http1.Error
	if errors.As(err, &refused) {
		hint := "Send it in a valid form."
		if refused.Status == http.StatusRequestTimeout {
			hint = "Send it again, without so long a pause."
		}
		return failure{refused.Status, lull.KindInvalid, "This request was refused: " + refused.Reason + ".", hint, 0}
	}
	return failure{http.StatusInternalServerError, lull.KindInternal, "Lull could not carry this request.",
		"Try again; if it stays, the node's log says more.", 0}
}

// retryAfter is how many seconds a client should wait; 0 says nothing.
func (f failure) retryAfter() int {
	switch {
	case f.status != http.StatusServiceUnavailable:
		return 0
	case f.later > 0:
		return int(math.Ceil(f.later.Seconds()))
	case f.kind == lull.KindStarting:
		return 5
	}
	return 1
}

// body returns the page or the JSON that tells it.
func (f failure) body(page bool) (contentType string, body []byte) {
	if !page {
		body, _ = json.Marshal(struct {
			Error   lull.Kind `json:"error"`
			Message string    `json:"message"`
			Hint    string    `json:"hint,omitempty"`
		}{f.kind, f.message, f.hint})
		return "application/json", append(body, '\n')
	}
	title := strconv.Itoa(f.status) + " " + string(f.kind)
	return "text/html; charset=utf-8", fmt.Appendf(nil, pageForm, html.EscapeString(title), html.EscapeString(title),
		html.EscapeString(f.message), html.EscapeString(f.hint))
}

const pageForm = `<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>%s</title>
<style>body{font:17px/1.5 system-ui,sans-serif;max-width:36em;margin:20vh auto;padding:0 1em;color:#333}
h1{font-size:1em;color:#888}@media(prefers-color-scheme:dark){body{background:#111;color:#ddd}}</style>
<h1>%s</h1><p>%s</p><p>%s</p></html>
`

// headers calls add for each header of the failure.
func (f failure) headers(place fleet.Place, quiet bool, add func(key, value string)) {
	add("Lull-Error", string(f.kind))
	add("Cache-Control", "no-store")
	if seconds := f.retryAfter(); seconds > 0 {
		add("Retry-After", strconv.Itoa(seconds))
	}
	if place != nil && !quiet {
		add("Lull-Environment", place.Environment())
		add("Server-Timing", string(appendTiming(nil, place)))
	}
}

// overCrowded is sent to a connection over the limit.
var overCrowded = []byte("HTTP/1.1 503 Service Unavailable\r\nLull-Error: queue-full\r\nRetry-After: 1\r\n" +
	"Content-Length: 0\r\nConnection: close\r\n\r\n")

// noApp says that no app has the host.
func noApp(host, domain string) error {
	e := &lull.Error{Kind: lull.KindNoApp, Message: fmt.Sprintf("There is no app at %q.", host)}
	if domain != "" {
		e.Hint = fmt.Sprintf("An app is reached at its name followed by .%s; \"lull apps\" lists them.", domain)
	}
	return e
}

func timedOut(after fmt.Stringer) error {
	return &lull.Error{Kind: lull.KindTimeout, Message: fmt.Sprintf("The app did not begin to answer within %s.", after),
		Hint: "Raise timeout.request in lull.yaml if it needs longer."}
}

func unreachable(place fleet.Place, err error) error {
	return &lull.Error{Kind: lull.KindRefused, Message: "The app does not accept connections.", Hint: seeLogs(place), Err: err}
}

// seeLogs says where its owner finds what the app prints, which is not for whoever asks it something.
func seeLogs(place fleet.Place) string {
	return fmt.Sprintf("\"lull logs %s\" shows what it prints.", place.Release().App)
}

func brokenAnswer(reason string, err error) error {
	return &lull.Error{Kind: lull.KindRefused, Message: "The app's answer is not valid HTTP: " + reason + ".", Err: err}
}

// hungUp is for an app whose environment goes on. One that has ended says how itself: endOf.
func hungUp(place fleet.Place, err error) error {
	return &lull.Error{Kind: lull.KindRefused, Message: "The app closed the connection without an answer.",
		Hint: seeLogs(place), Err: err}
}

// endOf returns why the environment of a place has ended. Its Done must be closed.
func endOf(place fleet.Place) error {
	err := place.Err()
	if lull.KindOf(err) == lull.KindInternal || err == nil {
		return &lull.Error{Kind: lull.KindCrashed, Message: "The app has ended while it had the request.",
			Hint: seeLogs(place), Err: err}
	}
	return err
}
