// Package function invokes the functions on a node: it takes an event to an environment of the function and brings back what
// the function answered. What makes it a function, once there, is package function/runtime.
package function

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/function/event"
)

// Functions finds the functions on a node.
type Functions interface {
	// Function returns the current release of a function. Errors have kind not-found, or invalid for an app that is none.
	Function(name string) (Target, error)
}

// Target is a function as it can be reached.
type Target struct {
	Do       func(ctx context.Context, why string, req *http.Request) (*http.Response, error) // as fleet.Fleet.Do
	Key      string                                                                           // proves to its runtime that the node asks
	Manifest lull.Manifest
	Version  int // number of the release
}

// Invoker invokes functions. It may be used concurrently.
type Invoker struct {
	Functions Functions
}

// Invocation is an event for a function.
type Invocation struct {
	App           string
	RequestID     string    // "": one is made
	Payload       io.Reader // JSON; nil is an empty object. Closed if it can be
	ClientContext []byte    // JSON
	Tail          bool      // the end of the log is wanted
	Stream        bool      // an answer that is streamed is wanted as it comes
	Why           string    // for the wake log
}

// Answer is what a function answered. The caller closes Payload, which gives the environment back.
type Answer struct {
	Payload       io.ReadCloser
	FunctionError string // Unhandled, if the function failed: the payload is an error object then
	Log           string // the end of the log, in base64, if it was asked for and the answer is not streamed
	Streamed      bool   // the payload comes as the function sends it
	ContentType   string
	Version       string
	RequestID     string

	trailer http.Header
}

// StreamError says, at the end of a streamed payload, how the function failed in the middle of it: the error object; nil if it
// did not.
func (a *Answer) StreamError() (failed string, object []byte) {
	failed = a.trailer.Get(event.HeaderFunctionError)
	object, _ = base64.StdEncoding.DecodeString(a.trailer.Get(event.HeaderFunctionErrorBody))
	return failed, object
}

// StreamLog is Log for a streamed answer, once it has ended.
func (a *Answer) StreamLog() string { return a.trailer.Get(event.HeaderLogResult) }

// Invoke invokes a function and returns when it has answered, or begun to stream. Errors are *lull.Error: of Functions, those of a
// fleet that has no place, or what the runtime says of an event it does not take. The function has not been asked then,
// unless the kind is crashed or refused, or ctx ended.
func (v *Invoker) Invoke(ctx context.Context, in Invocation) (*Answer, error) {
	target, err := v.Functions.Function(in.App)
	if err != nil {
		return nil, err
	}
	payload := in.Payload
	if payload == nil {
		payload = bytes.NewReader([]byte("{}"))
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+in.App+"/", payload)
	if err != nil {
		return nil, err
	}
	h := req.Header
	h.Set("Content-Type", "application/json")
	h.Set(event.HeaderInvoke, target.Key)
	for name, value := range map[string]string{event.HeaderRequestID: in.RequestID, event.HeaderClientContext: base64.StdEncoding.EncodeToString(in.ClientContext)} {
		if value != "" {
			h.Set(name, value)
		}
	}
	if in.Tail {
		h.Set(event.HeaderLog, "Tail")
	}
	if in.Stream {
		h.Set(event.HeaderStreaming, "1")
	}
	resp, err := target.Do(ctx, in.Why, req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		return nil, refusal(in.App, resp)
	}
	return &Answer{
		Payload: resp.Body, FunctionError: resp.Header.Get(event.HeaderFunctionError), Log: resp.Header.Get(event.HeaderLogResult),
		Streamed: in.Stream && resp.ContentLength < 0, ContentType: resp.Header.Get("Content-Type"),
		Version: strconv.Itoa(target.Version), RequestID: in.RequestID, trailer: resp.Trailer,
	}, nil
}

// refusal is the error of an invocation that the function has not been asked.
func refusal(app string, resp *http.Response) error {
	var said struct {
		Message string `json:"errorMessage"`
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if json.Unmarshal(body, &said) != nil || said.Message == "" {
		said.Message = "its runtime answers " + resp.Status
	}
	kinds := map[int]lull.Kind{
		http.StatusBadRequest: lull.KindInvalid, http.StatusRequestEntityTooLarge: lull.KindTooLarge, http.StatusConflict: lull.KindConflict,
		http.StatusServiceUnavailable: lull.KindQueueFull,
	}
	kind := kinds[resp.StatusCode]
	if kind == "" {
		kind = lull.KindInternal
	}
	return &lull.Error{Kind: kind, Message: fmt.Sprintf("invoke %s: %s", app, said.Message)}
}

// Name reads how AWS's clients name a function: by its name, by a full or partial ARN, with a version or without. The
// qualifier is "" for the current release, else what was said.
func Name(text string) (app, qualifier string, err error) {
	invalid := &lull.Error{Kind: lull.KindInvalid, Message: fmt.Sprintf("%.200q does not name a function", text),
		Hint: "give its name, such as my-function, or its ARN"}
	if len(text) > 200 {
		return "", "", invalid
	}
	app = text
	if _, rest, isARN := strings.Cut(text, ":function:"); isARN {
		app = rest
	}
	app, qualifier, _ = strings.Cut(app, ":")
	if qualifier == "$LATEST" {
		qualifier = ""
	}
	if !lull.ValidName(app) || strings.Contains(qualifier, ":") {
		return "", "", invalid
	}
	return app, qualifier, nil
}
