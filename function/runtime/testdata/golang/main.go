// Command golang is a function as programs for aws-lambda-go are written: AWS's own client of the Runtime API judges ours.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
)

// order is an event of our own.
type order struct {
	Do string `json:"do"`
	N  int    `json:"n"`
}

func handle(ctx context.Context, o order) (any, error) {
	switch o.Do {
	case "fail":
		return nil, errors.New("it cannot be done")
	case "panic":
		panic("it is broken")
	case "exit":
		os.Exit(3)
	case "hang":
		<-context.Background().Done()
	case "log":
		fmt.Println("a line of the log")
	case "large":
		return strings.Repeat("x", o.N), nil
	case "context":
		lc, _ := lambdacontext.FromContext(ctx)
		deadline, _ := ctx.Deadline()
		return map[string]any{"id": lc.AwsRequestID, "arn": lc.InvokedFunctionArn, "client": lc.ClientContext.Custom["k"],
			"name": lambdacontext.FunctionName, "memory": lambdacontext.MemoryLimitInMB, "left": time.Until(deadline) > 0}, nil
	}
	return o.N + 1, nil
}

func url(_ context.Context, r events.LambdaFunctionURLRequest) (any, error) {
	switch r.RawPath {
	case "/stream":
		body := io.MultiReader(strings.NewReader("first,"), &after{path: r.QueryStringParameters["wait"]}, strings.NewReader("second"))
		return &events.LambdaFunctionURLStreamingResponse{StatusCode: http.StatusAccepted, Headers: map[string]string{"X-Kind": "stream"}, Body: body}, nil
	case "/broken":
		return map[string]any{"statusCode": 1000}, nil
	}
	return events.LambdaFunctionURLResponse{StatusCode: http.StatusTeapot, Headers: map[string]string{"X-Path": r.RawPath}, Cookies: []string{"a=b"}, Body: r.Body}, nil
}

// after is empty, but its end comes only when a file is there.
type after struct{ path string }

func (a *after) Read([]byte) (int, error) {
	for {
		if _, err := os.Stat(a.path); err == nil {
			return 0, io.EOF
		}
		time.Sleep(time.Millisecond)
	}
}

func main() {
	if os.Getenv("_HANDLER") == "url" {
		lambda.Start(url)
	}
	lambda.Start(handle)
}
