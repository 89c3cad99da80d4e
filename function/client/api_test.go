package client_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lull-dev/lull/function/client"
)

// patience is how long a test waits for what must happen.
const patience = 30 * time.Second

// lambda is a function's process and the Runtime API that it asks: the part that package function/runtime plays in a sandbox,
// reduced to what shows every byte that the client sends.
type lambda struct {
	t       *testing.T
	events  chan event
	init    chan answer   // what was posted to init/error
	ended   chan struct{} // closed when the process has ended
	process *exec.Cmd
	timeout time.Duration

	mu      sync.Mutex
	output  bytes.Buffer
	running map[string]chan answer
	last    int
}

type event struct {
	id, body string
	headers  http.Header
}

// answer is what the client posted for an invocation.
type answer struct {
	Status    string // response, error or exit
	ErrorType string
	Mode      string
	Type      string
	Body      string
	Chunks    <-chan string // of a streamed answer, as they come; Body is empty
	Trailer   func() http.Header
}

// start runs a handler with a runtime client. Files are put beside each other; dir, if there is one, is where they go.
func start(t *testing.T, command []string, dir, handler string, files map[string]string, env ...string) *lambda {
	t.Helper()
	runtimeDir := filepath.Join(t.TempDir(), "runtime")
	if err := client.Write(runtimeDir); err != nil {
		t.Fatal(err)
	}
	if dir == "" {
		dir = t.TempDir()
	}
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	l := &lambda{t: t, events: make(chan event), init: make(chan answer, 1), ended: make(chan struct{}), running: map[string]chan answer{}, timeout: time.Minute}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: l.handler(), ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(listener) }()

	l.process = exec.Command(command[0], append(slices.Clone(command[1:]), filepath.Join(runtimeDir, clientOf(command[0])))...)
	l.process.Dir = dir
	l.process.Env = append(os.Environ(), "AWS_LAMBDA_RUNTIME_API="+listener.Addr().String(), "_HANDLER="+handler, "LAMBDA_TASK_ROOT="+dir,
		"AWS_LAMBDA_FUNCTION_NAME=greet", "AWS_LAMBDA_FUNCTION_VERSION=3", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE=256", "PYTHONDONTWRITEBYTECODE=1")
	l.process.Env = append(l.process.Env, env...)
	l.process.Stdout, l.process.Stderr = (*log)(l), (*log)(l)
	if err := l.process.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = l.process.Wait()
		close(l.ended)
	}()
	t.Cleanup(func() {
		_ = l.process.Process.Kill()
		<-l.ended
		_ = server.Close()
		if t.Failed() {
			t.Logf("the function said:\n%s", l.log())
		}
	})
	return l
}

func clientOf(interpreter string) string {
	if strings.Contains(interpreter, "python") {
		return "python/client.py"
	}
	return "node/client.mjs"
}

// log collects what a lambda's process writes.
type log lambda

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.output.Write(p)
}

func (l *lambda) log() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.output.String()
}

func (l *lambda) handler() http.Handler {
	mux := http.NewServeMux()
	const root = "/2018-06-01/runtime"
	mux.HandleFunc("GET "+root+"/invocation/next", func(w http.ResponseWriter, r *http.Request) {
		select {
		case e := <-l.events:
			maps.Copy(w.Header(), e.headers)
			_, _ = io.WriteString(w, e.body)
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("POST "+root+"/init/error", func(w http.ResponseWriter, r *http.Request) {
		l.init <- read(r, "init")
		w.WriteHeader(http.StatusAccepted)
	})
	mux.HandleFunc("POST "+root+"/invocation/{id}/{status}", func(w http.ResponseWriter, r *http.Request) {
		l.mu.Lock()
		waiting := l.running[r.PathValue("id")]
		delete(l.running, r.PathValue("id"))
		l.mu.Unlock()
		if waiting == nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		if r.Header.Get("Lambda-Runtime-Function-Response-Mode") == "streaming" {
			chunks := make(chan string)
			a := answer{Status: "response", Mode: "streaming", Type: r.Header.Get("Content-Type"), Chunks: chunks, Trailer: func() http.Header { return r.Trailer }}
			waiting <- a
			pour(r.Body, chunks)
		} else {
			waiting <- read(r, r.PathValue("status"))
		}
		w.WriteHeader(http.StatusAccepted)
	})
	return mux
}

func pour(body io.Reader, chunks chan<- string) {
	defer close(chunks)
	buffer := make([]byte, 1<<16)
	for {
		n, err := body.Read(buffer)
		if n > 0 {
			chunks <- string(buffer[:n])
		}
		if err != nil {
			return
		}
	}
}

func read(r *http.Request, status string) answer {
	body, _ := io.ReadAll(r.Body)
	return answer{Status: status, ErrorType: r.Header.Get("Lambda-Runtime-Function-Error-Type"), Type: r.Header.Get("Content-Type"), Body: string(body)}
}

// begin starts an invocation; the channel gives its answer.
func (l *lambda) begin(body string, headers ...string) <-chan answer {
	l.t.Helper()
	l.mu.Lock()
	l.last++
	e := event{id: fmt.Sprintf("request-%d", l.last), body: body, headers: http.Header{}}
	waiting := make(chan answer, 1)
	l.running[e.id] = waiting
	l.mu.Unlock()
	e.headers.Set("Lambda-Runtime-Aws-Request-Id", e.id)
	e.headers.Set("Lambda-Runtime-Deadline-Ms", fmt.Sprint(time.Now().Add(l.timeout).UnixMilli()))
	e.headers.Set("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:us-east-1:000000000000:function:greet")
	for i := 0; i < len(headers); i += 2 {
		e.headers.Set(headers[i], headers[i+1])
	}
	select {
	case l.events <- e:
	case <-l.ended:
		l.t.Fatal("the process has ended; nothing takes the event")
	case <-time.After(patience):
		l.t.Fatal("nothing takes the event")
	}
	return waiting
}

func (l *lambda) wait(waiting <-chan answer) answer {
	l.t.Helper()
	select {
	case a := <-waiting:
		return a
	case <-time.After(patience):
		l.t.Fatal("no answer")
		return answer{}
	}
}

// invoke is one invocation.
func (l *lambda) invoke(body string, headers ...string) answer {
	l.t.Helper()
	return l.wait(l.begin(body, headers...))
}

// exit waits for the end of the process and returns its code.
func (l *lambda) exit() int {
	l.t.Helper()
	select {
	case <-l.ended:
		return l.process.ProcessState.ExitCode()
	case <-time.After(patience):
		l.t.Fatal("the process does not end")
		return 0
	}
}

// said waits until the function's log has a text.
func (l *lambda) said(text string) {
	l.t.Helper()
	for deadline := time.Now().Add(patience); !strings.Contains(l.log(), text); {
		if time.Now().After(deadline) {
			l.t.Fatalf("the log does not have %q", text)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// want compares the answer with one in one piece.
func (l *lambda) want(a answer, body string) {
	l.t.Helper()
	if a.Status != "response" || a.Body != body {
		l.t.Errorf("answered %s %s; want response %s", a.Status, a.Body, body)
	}
}

// wantError compares an error that was reported.
func wantError(t *testing.T, a answer, kind, message string) map[string]any {
	t.Helper()
	var described map[string]any
	if err := json.Unmarshal([]byte(a.Body), &described); err != nil {
		t.Fatalf("answered %+v, which is no JSON: %v", a, err)
	}
	if a.Status == "response" || a.ErrorType != kind || described["errorType"] != kind || !strings.Contains(fmt.Sprint(described["errorMessage"]), message) {
		t.Errorf("answered %+v; want the error %s: %s", a, kind, message)
	}
	return described
}

// streamError is the error in the trailers of a streamed answer.
func streamError(t *testing.T, a answer) (kind, body string) {
	t.Helper()
	decoded, err := base64.StdEncoding.DecodeString(a.Trailer().Get("Lambda-Runtime-Function-Error-Body"))
	if err != nil {
		t.Error(err)
	}
	return a.Trailer().Get("Lambda-Runtime-Function-Error-Type"), string(decoded)
}
