package runtime

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lull-dev/lull/function/event"
)

// runner is a runtime that runs a function.
type runner struct {
	t      *testing.T
	url    string
	log    *output
	config Config
	cancel context.CancelFunc
	done   chan error
}

// output is what a function and its runtime say.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

const key = "the node's key"

// run starts a function with files in task and waits until it is initialised. It is stopped when the test ends.
func run(t *testing.T, config Config, task string) *runner {
	t.Helper()
	r := begin(t, config, task)
	deadline := time.After(20 * time.Second)
	for {
		conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
		if err == nil {
			conn.Close()
			return r
		}
		select {
		case err := <-r.done:
			t.Fatalf("it ended: %v\n%s", err, r.log)
		case <-deadline:
			t.Fatalf("it does not listen: %v\n%s", err, r.log)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func begin(t *testing.T, config Config, task string) *runner {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	config.Name, config.Version, config.Key = "app", "7", key
	if config.Runtime == "" {
		config.Runtime = "provided.al2023"
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &runner{t: t, url: fmt.Sprintf("http://127.0.0.1:%d", port), log: &output{}, config: config, cancel: cancel, done: make(chan error, 1)}
	env := append(os.Environ(), fmt.Sprintf("PORT=%d", port), "LAMBDA_TASK_ROOT="+task, "LULL_LAYERS="+t.TempDir())
	go func() { r.done <- Run(ctx, config, env, r.log, r.log); close(r.done) }() // ends with ctx; the cleanup waits for it
	t.Cleanup(func() {
		cancel()
		select {
		case <-r.done:
		case <-time.After(20 * time.Second):
			t.Error("it does not end")
		}
		if t.Failed() {
			t.Logf("the function says:\n%s", r.log)
		}
	})
	return r
}

// golang builds the Go function and returns its directory.
var golang = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "lull-function-")
	if err != nil {
		return "", err
	}
	out, err := exec.Command("go", "build", "-o", filepath.Join(dir, "bootstrap"), "./testdata/golang").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return dir, nil
})

func goFunction(t *testing.T) string {
	t.Helper()
	dir, err := golang()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, err := golang(); err == nil {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// script is a directory with a bootstrap that is a script.
func script(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "bootstrap"), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// invoke sends a direct invocation.
func (r *runner) invoke(payload string, header ...string) (*http.Response, string) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, r.url, strings.NewReader(payload))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set(event.HeaderInvoke, key)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp, string(body)
}

// works checks that the function still does what it should.
func (r *runner) works() {
	r.t.Helper()
	if resp, body := r.invoke(`{"n": 1}`); resp.StatusCode != 200 || body != "2" {
		r.t.Errorf("afterwards: %d %s", resp.StatusCode, body)
	}
}

func TestGoFunction(t *testing.T) {
	t.Parallel()
	r := run(t, Config{Timeout: 5000, Memory: 256 << 20}, goFunction(t))
	r.works()

	client := base64.StdEncoding.EncodeToString([]byte(`{"custom": {"k": "v"}}`))
	_, body := r.invoke(`{"do": "context"}`, event.HeaderRequestID, "id-1", event.HeaderClientContext, client)
	want := `{"arn":"arn:aws:lambda:us-east-1:000000000000:function:app","client":"v","id":"id-1","left":true,"memory":256,"name":"app"}`
	if body != want {
		t.Errorf("context %s", body)
	}
	resp, body := r.invoke(`{"do": "fail"}`)
	if resp.StatusCode != 200 || resp.Header.Get(event.HeaderFunctionError) != "Unhandled" || !strings.Contains(body, `"errorMessage":"it cannot be done"`) {
		t.Errorf("error: %v %s", resp.Header, body)
	}
	resp, body = r.invoke(`{"do": "log"}`, event.HeaderLog, "Tail", event.HeaderRequestID, "id-2")
	tail, err := base64.StdEncoding.DecodeString(resp.Header.Get(event.HeaderLogResult))
	if err != nil || !strings.Contains(string(tail), "a line of the log\n") || !strings.HasPrefix(string(tail), "START RequestId: id-2 Version: 7\n") || body != "1" {
		t.Errorf("log %q %v, %s", tail, err, body)
	}
	for _, do := range []string{"panic", "exit"} { // the process ends; another one is there for the next
		resp, body = r.invoke(`{"do": "` + do + `"}`)
		if resp.Header.Get(event.HeaderFunctionError) == "" {
			t.Errorf("%s: %s", do, body)
		}
		r.works()
	}
	if resp, body = r.invoke(`not JSON`); resp.StatusCode != 400 || !strings.Contains(body, "InvalidRequestContentException") {
		t.Errorf("an event that is not JSON: %d %s", resp.StatusCode, body)
	}
	if resp, body = r.invoke(strings.Repeat(" ", 7<<20)); resp.StatusCode != 413 {
		t.Errorf("an event that is too large: %d %s", resp.StatusCode, body)
	}
	resp, body = r.invoke(`{"do": "large", "n": 7000000}`)
	if resp.Header.Get(event.HeaderFunctionError) == "" || !strings.Contains(body, "Function.ResponseSizeTooLarge") {
		t.Errorf("an answer that is too large: %v %.200s", resp.Header, body)
	}
	r.works()
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	r := run(t, Config{Timeout: 300}, goFunction(t))
	resp, body := r.invoke(`{"do": "hang"}`, event.HeaderRequestID, "id-1")
	if resp.Header.Get(event.HeaderFunctionError) == "" || !strings.Contains(body, "id-1 Task timed out after 0.30 seconds") {
		t.Errorf("%v %s", resp.Header, body)
	}
	r.works()
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	r := run(t, Config{Handler: "url", Timeout: 10000}, goFunction(t))
	req, err := http.NewRequest(http.MethodPost, r.url+"/a%20b?c=d", strings.NewReader("the body"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "text/plain")
	req.Header.Set(event.HeaderInvoke, "a wrong key") // makes an ordinary request of it
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != 418 || string(body) != "the body" || resp.Header.Get("X-Path") != "/a%20b" || resp.Header.Get("Set-Cookie") != "a=b" {
		t.Errorf("%d %q %v", resp.StatusCode, body, resp.Header)
	}

	resp, err = http.Get(r.url + "/broken")
	if err != nil {
		t.Fatal(err)
	}
	body, _ = io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != 502 || !strings.Contains(string(body), "Internal Server Error") || !strings.Contains(r.log.String(), "statusCode is 1000") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}

	// The second half of a streamed answer is not sent before the first has arrived.
	gate := filepath.Join(t.TempDir(), "go")
	resp, err = http.Get(r.url + "/stream?wait=" + gate)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	first := make([]byte, len("first,"))
	if _, err := io.ReadFull(resp.Body, first); err != nil || string(first) != "first," || resp.StatusCode != 202 || resp.Header.Get("X-Kind") != "stream" {
		t.Errorf("%d %q %v", resp.StatusCode, first, err)
	}
	if err := os.WriteFile(gate, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(resp.Body); err != nil || string(rest) != "second" {
		t.Errorf("%q %v", rest, err)
	}
}

// The bootstrap of AWS's tutorial "Building a custom runtime", but for its function.
func TestShellBootstrap(t *testing.T) {
	t.Parallel()
	r := run(t, Config{}, script(t, `#!/bin/sh
set -eu
while true; do
  HEADERS=$(mktemp)
  EVENT=$(curl -sS -LD "$HEADERS" "http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation/next")
  ID=$(grep -Fi Lambda-Runtime-Aws-Request-Id "$HEADERS" | tr -d '[:space:]' | cut -d: -f2)
  curl -sS "http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation/$ID/response" -d "{\"echo\": $EVENT}" > /dev/null
done
`))
	for range 3 {
		if _, body := r.invoke(`{"a": 1}`); body != `{"echo": {"a": 1}}` {
			t.Errorf("%s", body)
		}
	}
}

func TestFailedInit(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ script, want string }{
		"exits":    {"#!/bin/sh\necho no database >&2\nexit 4\n", "exit status 4"},
		"says why": {"#!/bin/sh\ncurl -sS \"http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/init/error\" -d '{\"errorType\": \"Runtime.NoModule\", \"errorMessage\": \"no such module\"}' >/dev/null\nsleep 60\n", "no such module"},
	} {
		t.Run(name, func(t *testing.T) {
			r := begin(t, Config{}, script(t, c.script))
			select {
			case err := <-r.done:
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%v\n%s", err, r.log)
				}
			case <-time.After(20 * time.Second):
				t.Error("it does not end")
			}
		})
	}
	if err := Run(t.Context(), Config{Runtime: "provided"}, []string{"LAMBDA_TASK_ROOT=" + t.TempDir(), "LULL_LAYERS=/nowhere"}, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), "bootstrap") {
		t.Errorf("without a bootstrap: %v", err)
	}
}

// function is a function that the test itself plays, over the Runtime API.
type function struct {
	t   *testing.T
	api string
}

// play runs a function that does nothing by itself: the test polls for it.
func play(t *testing.T, config Config) (*runner, *function) {
	t.Helper()
	dir := script(t, "#!/bin/sh\necho $AWS_LAMBDA_RUNTIME_API > \"$LAMBDA_TASK_ROOT/api.new\"\nmv \"$LAMBDA_TASK_ROOT/api.new\" \"$LAMBDA_TASK_ROOT/api\"\nexec sleep 600\n")
	r := begin(t, config, dir)
	deadline := time.Now().Add(10 * time.Second)
	for {
		text, err := os.ReadFile(filepath.Join(dir, "api"))
		if err == nil {
			return r, &function{t, "http://" + strings.TrimSpace(string(text)) + "/2018-06-01/runtime/"}
		}
		if time.Now().After(deadline) {
			t.Fatalf("it was not started: %v\n%s", err, r.log)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// next asks for an invocation.
func (f *function) next() (id, payload string) {
	resp, err := http.Get(f.api + "invocation/next")
	if err != nil {
		f.t.Error(err)
		return "", ""
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		f.t.Errorf("next: %d %s %v", resp.StatusCode, body, err)
	}
	return resp.Header.Get("Lambda-Runtime-Aws-Request-Id"), string(body)
}

// post sends an answer and returns the status that it was taken with, 0 if the connection broke.
func (f *function) post(path string, body io.Reader, header ...string) int {
	req, err := http.NewRequest(http.MethodPost, f.api+"invocation/"+path, body)
	if err != nil {
		f.t.Error(err)
		return 0
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// outcome is how a direct invocation or request ended.
type outcome struct {
	status int
	failed bool
	body   string
	err    error
}

// ask sends a request in the background, which is a direct invocation if payload is not empty.
func (r *runner) ask(path, payload string) <-chan outcome {
	outcomes := make(chan outcome, 1)
	go func() { // ends with the answer
		req, err := http.NewRequest(http.MethodPost, r.url+path, strings.NewReader(payload))
		if err != nil {
			outcomes <- outcome{err: err}
			return
		}
		if payload != "" {
			req.Header.Set(event.HeaderInvoke, key)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			outcomes <- outcome{err: err}
			return
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		outcomes <- outcome{resp.StatusCode, resp.Header.Get(event.HeaderFunctionError) != "", string(body), err}
	}()
	return outcomes
}

func await(t *testing.T, outcomes <-chan outcome) outcome {
	t.Helper()
	select {
	case o := <-outcomes:
		return o
	case <-time.After(20 * time.Second):
		t.Fatal("no answer")
		return outcome{}
	}
}

// ready waits until the runtime listens, which it does once it has been polled.
func (r *runner) ready() {
	deadline := time.Now().Add(10 * time.Second)
	for {
		conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("it does not listen: %v", err)
		}
		<-time.After(time.Millisecond)
	}
}

// endless never ends.
type endless struct{ chunk []byte }

func (e endless) Read(p []byte) (int, error) { return copy(p, e.chunk), nil }

// Whatever a function answers harms its own invocation only.
func TestHostileAnswers(t *testing.T) {
	t.Parallel()
	r, f := play(t, Config{Concurrency: 2, Timeout: 5000, Response: 1 << 20, Streamed: 4 << 20})
	streaming := []string{"Lambda-Runtime-Function-Response-Mode", "streaming", "Content-Type", event.PreludeType, "Transfer-Encoding", "chunked"}
	type take struct{ id, payload string }
	taken := make(chan take, 1)
	poll := func() {
		id, payload := f.next()
		taken <- take{id, payload}
	}
	go poll()
	r.ready()
	for _, c := range []struct {
		name   string
		answer func(id string)
		status int // of the request; 0: its connection breaks
		says   string
	}{
		{"a gigabyte", func(id string) { f.post(id+"/response", io.LimitReader(endless{make([]byte, 64<<10)}, 1<<30)) }, 502, "ResponseSizeTooLarge"},
		{"CR LF in a header", func(id string) {
			f.post(id+"/response", strings.NewReader(`{"statusCode": 200, "headers": {"a": "b\r\nSet-Cookie: c"}}`))
		}, 502, "no header may have"},
		{"invalid UTF-8", func(id string) { f.post(id+"/response", strings.NewReader("\xff\xfe{")) }, 502, "not JSON"},
		{"a prelude without an end", func(id string) {
			f.post(id+"/response", io.LimitReader(endless{[]byte("{")}, 2<<20), streaming...)
		}, 502, "no end within"},
		{"a prelude that is cut off", func(id string) { f.post(id+"/response", strings.NewReader(`{"statusCode": 200}`), streaming...) }, 502, "no end"},
		{"a stream that is too long", func(id string) {
			f.post(id+"/response", io.MultiReader(strings.NewReader("{}\x00\x00\x00\x00\x00\x00\x00\x00"), io.LimitReader(endless{make([]byte, 64<<10)}, 8<<20)), streaming...)
		}, 0, "ResponseSizeTooLarge"},
		{"an error that is no JSON", func(id string) { f.post(id+"/error", strings.NewReader("\x00\xff oh")) }, 502, ""},
		{"an answer twice", func(id string) {
			if status := f.post(id+"/response", strings.NewReader(`"first"`)); status != 202 {
				t.Errorf("the first answer was taken with %d", status)
			}
			for _, again := range []string{id + "/response", id + "/error"} {
				if status := f.post(again, strings.NewReader(`"second"`)); status != 400 {
					t.Errorf("%s was taken with %d", again, status)
				}
			}
		}, 200, ""},
		{"an answer to nothing", func(id string) {
			if status := f.post("11111111-1111-4111-8111-111111111111/response", strings.NewReader(`1`)); status != 400 {
				t.Errorf("it was taken with %d", status)
			}
			f.post(id+"/response", strings.NewReader(`1`))
		}, 200, ""},
	} {
		got := r.ask("/", "")
		given := <-taken
		c.answer(given.id)
		o := await(t, got)
		if o.status != c.status && !(c.status == 0 && o.err != nil) {
			t.Errorf("%s: %+v", c.name, outcome{o.status, o.failed, fmt.Sprintf("%.200s", o.body), o.err})
		}
		if !strings.Contains(r.log.String(), c.says) {
			t.Errorf("%s: the log does not say %q", c.name, c.says)
		}
		go poll()
		fine := r.ask("/", `"fine"`)
		given = <-taken
		if status := f.post(given.id+"/response", strings.NewReader(given.payload)); status != 202 {
			t.Errorf("after %s: taken with %d", c.name, status)
		}
		if o := await(t, fine); o.body != `"fine"` {
			t.Errorf("after %s: %+v", c.name, o)
		}
		go poll()
	}
	last := r.ask("/", `"last"`)
	given := <-taken
	f.post(given.id+"/response", strings.NewReader("1"))
	await(t, last)
}

// An answer that comes too late is refused; another invocation beside it is not disturbed.
func TestLateAnswer(t *testing.T) {
	t.Parallel()
	r, f := play(t, Config{Concurrency: 3, Timeout: 200})
	first := make(chan string, 1)
	go func() {
		id, _ := f.next()
		first <- id
	}()
	r.ready()
	late := r.ask("/", `"late"`)
	id := <-first
	if o := await(t, late); !o.failed || !strings.Contains(o.body, "timed out") {
		t.Errorf("%+v", o)
	}
	if status := f.post(id+"/response", strings.NewReader(`1`)); status != 400 {
		t.Errorf("the late answer was taken with %d", status)
	}
	go func() {
		id, payload := f.next()
		f.post(id+"/response", strings.NewReader(payload))
	}()
	if o := await(t, r.ask("/", `"next"`)); o.body != `"next"` {
		t.Errorf("%+v", o)
	}
}

func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	r, f := play(t, Config{Concurrency: 10, Timeout: 20000})
	for range 10 {
		go func() { // ends with the runtime
			for {
				resp, err := http.Get(f.api + "invocation/next")
				if err != nil {
					return
				}
				body, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				if resp.StatusCode != 200 {
					return
				}
				f.post(resp.Header.Get("Lambda-Runtime-Aws-Request-Id")+"/response", bytes.NewReader(body))
			}
		}()
	}
	r.ready()
	var all sync.WaitGroup
	for worker := range 10 {
		all.Go(func() {
			for n := range 100 {
				payload := fmt.Sprintf(`{"n":%d}`, worker*1000+n)
				if o := await(t, r.ask("/", payload)); o.body != payload {
					t.Errorf("%s: %+v", payload, o)
				}
			}
		})
	}
	all.Wait()
}

func TestConfigSurvivesTheTrip(t *testing.T) {
	want := Config{Name: "a", Version: "3", Handler: "index.handler", Runtime: "nodejs20.x", Payload: "1.0", Concurrency: 5, Timeout: 1, Memory: 2,
		Request: 3, Response: 4, Streamed: 5, Key: "k"}
	got, err := Parse(want.Encode())
	if err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := Parse(`{"name": "a", "runtime": "x", "more": 1}`); err == nil {
		t.Error("an unknown field was taken")
	}
	if !json.Valid([]byte(want.Encode())) {
		t.Error("not JSON")
	}
}
