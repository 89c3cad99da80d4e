package runtime

import (
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lull-dev/lull/function/client"
)

// A request whose turn does not come in a process that ends waits at the runtime for the next one, when it is sent again.
func TestRequestThatTheProcessHasNotBegun(t *testing.T) {
	tools, task := t.TempDir(), t.TempDir()
	if err := client.Write(tools); err != nil {
		t.Fatal(err)
	}
	code := `exports.handler = async (event) => {
		if (event.rawPath === "/never") { console.log("begun"); await new Promise(() => setTimeout(() => {}, 60000)); }
		return { statusCode: 200, body: event.body };
	};`
	if err := os.WriteFile(filepath.Join(task, "index.js"), []byte(code), 0o644); err != nil {
		t.Fatal(err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free.Close()
	direct := free.Addr().(*net.TCPAddr)
	t.Setenv("LAMBDA_RUNTIME_DIR", tools)
	r := run(t, Config{Runtime: "nodejs20.x", Handler: "index.handler", Timeout: 3000, HTTP: direct.Port}, task)

	left, err := net.Dial("tcp", direct.String())
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(left, "GET /never HTTP/1.1\r\nHost: a\r\n\r\n")
	r.says("begun")
	left.Close()
	post := func(url string) (*http.Response, string) {
		resp, err := http.Post(url, "text/plain", strings.NewReader("hello"))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, string(body)
	}
	if resp, _ := post("http://127.0.0.1:" + strconv.Itoa(direct.Port)); resp.StatusCode != 503 || resp.Header.Get("Lull-Error") != "not-begun" {
		t.Fatalf("answered %d %v", resp.StatusCode, resp.Header)
	}
	if conn, err := net.Dial("tcp", direct.String()); err == nil { // the gateway would come here again
		conn.Close()
		t.Error("the process still listens")
	}
	if resp, body := post(r.url); resp.StatusCode != 200 || body != "hello" {
		t.Errorf("sent again: %d %q", resp.StatusCode, body)
	}
}

// says waits until the function has said something.
func (r *runner) says(text string) {
	r.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for !strings.Contains(r.log.String(), text) {
		if <-again.C; time.Now().After(deadline) {
			r.t.Fatalf("it does not say %q", text)
		}
	}
}
