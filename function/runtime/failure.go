package runtime

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/lull-dev/lull/function/event"
)

// The error types are Lambda's. Package event has those that the node uses, too.
const (
	tooLarge        = "Function.ResponseSizeTooLarge"
	requestTooLarge = "RequestTooLargeException"
	tooMany         = "TooManyRequestsException"
	unknownError    = "Runtime.UnknownReason"
	invalidAnswer   = "Runtime.InvalidResponse"
)

// fail makes a failure that the runtime found.
func fail(status int, kind, format string, args ...any) *failure {
	f := &failure{kind: kind, message: fmt.Sprintf(format, args...), status: status, notice: true}
	f.body, _ = json.Marshal(told{Type: f.kind, Message: f.message})
	return f
}

func exited(id, how string) *failure {
	return fail(http.StatusBadGateway, event.ExitError, "RequestId: %s Error: Runtime exited %s", id, how)
}

func late(id string, after time.Duration) *failure {
	return fail(http.StatusGatewayTimeout, event.TimedOut, "%s Task timed out after %.2f seconds", id, after.Seconds())
}

// Told is what a function tells of an error.
type told struct {
	Type    string `json:"errorType"`
	Message string `json:"errorMessage"`
}

// reported makes a failure of what the function said went wrong. A body that is no JSON becomes the message.
func reported(kind string, body []byte) *failure {
	f := &failure{status: http.StatusBadGateway, body: bytes.TrimSpace(body)}
	var said told
	if err := json.Unmarshal(f.body, &said); err != nil {
		if !json.Valid(f.body) {
			said.Message = strings.ToValidUTF8(string(f.body), "\uFFFD")
			f.body = nil
		}
	}
	f.kind, f.message = said.Type, said.Message
	if f.kind == "" {
		f.kind = kind
	}
	if f.kind == "" {
		f.kind = unknownError
	}
	if len(f.body) == 0 {
		f.body, _ = json.Marshal(told{Type: f.kind, Message: f.message})
	}
	return f
}

// trailed returns the failure that the trailers of an answer tell, nil if they tell none.
func trailed(trailer http.Header) *failure {
	kind := trailer.Get("Lambda-Runtime-Function-Error-Type")
	if kind == "" {
		return nil
	}
	body, err := base64.StdEncoding.DecodeString(trailer.Get("Lambda-Runtime-Function-Error-Body"))
	if err != nil {
		body = nil
	}
	return reported(kind, body)
}

// line is the failure on one line, for the log.
func (f *failure) line() string {
	text := []rune(f.Error())
	if len(text) > 2000 {
		text = append(text[:2000], '…')
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, string(text))
}

// beforehand says that the function has not been asked: the caller may try again.
func (f *failure) beforehand() *failure {
	f.refused = true
	return f
}
