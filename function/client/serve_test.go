package client_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/lull-dev/lull/function/client"
)

// An app is served whatever it is made of. Flask, FastAPI and uvicorn are Debian's.
func TestServe(t *testing.T) {
	for _, test := range []struct{ name, file, object, code string }{
		{"WSGI", "main.py", "app", "def app(environ, start):\n    start('200 OK', [('Content-Type', 'text/plain')])\n    return [b'served']"},
		{"WSGI without a server", "main.py", "app", "import sys\nsys.modules['waitress'] = None\ndef app(environ, start):\n    start('200 OK', [])\n    return [b'served']"},
		{"factory", "main.py", "make", "def make():\n    def app(environ, start):\n        start('200 OK', [])\n        return [b'served']\n    return app"},
		{"Flask", "web/main.py", "app", "from flask import Flask\napp = Flask(__name__)\n@app.get('/')\ndef home(): return 'served'"},
		{"FastAPI", "main.py", "app", "from fastapi import FastAPI\nfrom fastapi.responses import PlainTextResponse\napp = FastAPI()\n@app.get('/')\ndef home(): return PlainTextResponse('served')"},
		{"script", "main.py", "app", "import http.server, os\nclass H(http.server.BaseHTTPRequestHandler):\n    def do_GET(self):\n        self.send_response(200)\n        self.end_headers()\n        self.wfile.write(b'served')\nif __name__ == '__main__':\n    http.server.HTTPServer(('', int(os.environ['PORT'])), H).serve_forever()"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir, tools := t.TempDir(), t.TempDir()
			if err := client.Write(tools); err != nil {
				t.Fatal(err)
			}
			_ = os.MkdirAll(filepath.Dir(filepath.Join(dir, test.file)), 0o755)
			if err := os.WriteFile(filepath.Join(dir, test.file), []byte(test.code), 0o644); err != nil {
				t.Fatal(err)
			}
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			port := listener.Addr().(*net.TCPAddr).Port
			listener.Close()
			cmd := exec.Command(python, filepath.Join(tools, "python/serve.py"), test.file, test.object)
			cmd.Dir, cmd.Stderr = dir, os.Stderr
			cmd.Env = append(os.Environ(), fmt.Sprint("PORT=", port))
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				_ = cmd.Process.Signal(syscall.SIGTERM)
				_ = cmd.Wait()
			})
			var last error
			for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-time.After(20 * time.Millisecond) {
				var resp *http.Response
				if resp, last = http.Get(fmt.Sprintf("http://127.0.0.1:%d/", port)); last == nil {
					body, _ := io.ReadAll(resp.Body)
					resp.Body.Close()
					if string(body) != "served" {
						t.Errorf("answered %s %q", resp.Status, body)
					}
					return
				}
			}
			t.Fatal(last)
		})
	}
}
