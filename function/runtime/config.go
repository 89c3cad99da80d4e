package runtime

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Variable is the name of the environment variable that holds the encoded Config. The function's process does not get it.
const Variable = "LULL_FUNCTION"

// Config is what the node tells the runtime about the function. It travels in the environment variable LULL_FUNCTION; the
// directories travel in variables of their own (LAMBDA_TASK_ROOT, LULL_LAYERS, LAMBDA_RUNTIME_DIR), because a sandbox driver
// rewrites values that are paths.
type Config struct {
	Name        string `json:"name"`               // of the app, which is the function's name
	Version     string `json:"version"`            // number of the release
	Handler     string `json:"handler"`            // such as index.handler
	Runtime     string `json:"runtime"`            // AWS's identifier: nodejs22.x, python3.13, provided.al2023
	Payload     string `json:"payload"`            // format of HTTP events: 2.0, 1.0, alb
	Concurrency int    `json:"concurrency"`        // invocations at a time; 0 is 1
	Timeout     int64  `json:"timeout"`            // of one invocation, in ms
	Memory      int64  `json:"memory"`             // in bytes
	Request     int64  `json:"request,omitempty"`  // bytes of an event; 0 is 6 MB
	Response    int64  `json:"response,omitempty"` // bytes of an answer in one piece; 0 is 6 MB
	Streamed    int64  `json:"streamed,omitempty"` // bytes of a streamed answer; 0 is 200 MB
	HTTP        int    `json:"http,omitempty"`     // port on which our own client for Node.js takes requests itself; 0: none
	Key         string `json:"key,omitempty"`      // proves that a direct invocation comes from the node; "": there are none
}

// Limits where Config says nothing: those of AWS.
const (
	defaultTimeout  = 3000
	defaultPayload  = 6 << 20
	defaultStreamed = 200 << 20
)

// Encode returns c as the value of the environment variable LULL_FUNCTION.
func (c Config) Encode() string {
	text, err := json.Marshal(c)
	if err != nil { // strings and numbers only
		panic(err)
	}
	return string(text)
}

// direct is what a client has to know that takes requests itself, in JSON.
func (c Config) direct(arn string) string {
	text, _ := json.Marshal(map[string]any{
		"port": c.HTTP, "arn": arn, "timeout": c.Timeout, "request": c.Request, "response": c.Response,
	})
	return string(text)
}

// Parse reads what Encode wrote, and completes what it leaves out.
func Parse(text string) (Config, error) {
	var c Config
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&c); err != nil {
		return Config{}, fmt.Errorf("read %s: %w", Variable, err)
	}
	if c.Name == "" || c.Runtime == "" {
		return Config{}, fmt.Errorf("read %s: name and runtime must be given", Variable)
	}
	return c.complete(), nil
}

// complete gives what is left out its default.
func (c Config) complete() Config {
	orElse := func(value *int64, otherwise int64) {
		if *value <= 0 {
			*value = otherwise
		}
	}
	orElse(&c.Timeout, defaultTimeout)
	orElse(&c.Request, defaultPayload)
	orElse(&c.Response, defaultPayload)
	orElse(&c.Streamed, defaultStreamed)
	c.Concurrency = max(c.Concurrency, 1)
	if c.Payload == "" {
		c.Payload = "2.0"
	}
	if c.Version == "" {
		c.Version = "$LATEST"
	}
	return c
}

func (c Config) timeout() time.Duration { return time.Duration(c.Timeout) * time.Millisecond }
