// Package event has the shapes of what goes into a function and comes out of it, without any input or output: HTTP requests
// as events, answers as HTTP, the events of WebSocket connections, errors. They are those of AWS, as documented in
//
//   - "Invoking Lambda function URLs", request and response payload format
//     https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html
//   - "Create AWS Lambda proxy integrations for HTTP APIs", payload format versions 2.0 and 1.0
//     https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
//   - "Lambda functions as targets" of an Application Load Balancer
//     https://docs.aws.amazon.com/elasticloadbalancing/latest/application/lambda-functions.html
//
// It imports the standard library only and does nothing at its start: it is part of the program in each function's sandbox.
package event

import (
	"crypto/rand"
	"encoding/hex"
	"time"
)

// Format says how an HTTP request is written as an event.
type Format string

const (
	V2  Format = "2.0" // function URLs and HTTP APIs
	V1  Format = "1.0" // REST APIs
	ALB Format = "alb" // load balancers
)

// Info is what an event says besides the request itself.
type Info struct {
	App       string // name of the app, in place of the API's id
	RequestID string
	Time      time.Time
}

// Headers of a direct invocation: a request of the node to the function runtime that is an event already, rather than to be
// made one. Its body is the event.
const (
	HeaderInvoke        = "Lull-Invoke"         // proves that it comes from the node
	HeaderRequestID     = "Lull-Request-Id"     // of the invocation
	HeaderClientContext = "Lull-Client-Context" // JSON, in base64
	HeaderLog           = "Lull-Log"            // Tail: the answer is to have HeaderLogResult
	HeaderStreaming     = "Lull-Streaming"      // 1: the caller takes an answer that is streamed
)

// Headers of its answer. A streamed answer has the first two as trailers.
const (
	HeaderFunctionError     = "Lull-Function-Error"      // Handled or Unhandled: the body is an error object
	HeaderFunctionErrorBody = "Lull-Function-Error-Body" // of an error in the middle of a stream: that object, in base64
	HeaderLogResult         = "Lull-Log-Result"          // the end of the log, in base64
)

// Types of errors that a function's runtime finds, or the node when the runtime says nothing. They are Lambda's.
const (
	ExitError         = "Runtime.ExitError"         // the process has ended
	TimedOut          = "Sandbox.Timedout"          // the function's time is up
	TruncatedResponse = "Runtime.TruncatedResponse" // the answer has no end
)

// NewRequestID returns a random UUID (RFC 9562, version 4), which is what Lambda's request ids are.
func NewRequestID() string {
	var id [16]byte
	rand.Read(id[:])
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	text := hex.EncodeToString(id[:])
	return text[:8] + "-" + text[8:12] + "-" + text[12:16] + "-" + text[16:20] + "-" + text[20:]
}
