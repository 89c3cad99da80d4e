package gvisor

import (
	"bytes"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/lull-dev/lull/sandbox"
)

// What apps that were written for a laptop do to listen on loopback, or where only root may.
var listeningPrograms = map[string]struct {
	args []string
	want []string // listeners; nil: whatever
}{
	"node-localhost":   {[]string{"node", "-e", `require("net").createServer(c => c.end("hi")).listen(3000, "localhost")`}, nil},
	"node-loopback-v6": {[]string{"node", "-e", `require("net").createServer(c => c.end("hi")).listen(3000, "::1")`}, []string{"[::1]:3000"}},
	"node-default":     {[]string{"node", "-e", `require("net").createServer(c => c.end("hi")).listen(3000)`}, []string{"[::]:3000"}},
	"asyncio-localhost": {[]string{"python3", "-c", `
import asyncio
async def talk(reader, writer):
    writer.write(b"hi")
    writer.close()
async def main():
    server = await asyncio.start_server(talk, "localhost", 3000)
    await server.serve_forever()
asyncio.run(main())`}, []string{"127.0.0.1:3000", "[::1]:3000"}},
	"both-one-by-one": {[]string{"python3", "-c", `
import socket
sockets = []
for family, host in (socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"):
    s = socket.socket(family)
    s.bind((host, 3000))
    s.listen()
    sockets.append(s)
while True:
    c, _ = sockets[0].accept()
    c.send(b"hi")
    c.close()`}, []string{"127.0.0.1:3000", "[::1]:3000"}},
	"low-port": {[]string{"python3", "-c", `
import socket
s = socket.create_server(("0.0.0.0", 80))
while True:
    c, _ = s.accept()
    c.send(b"hi")
    c.close()`}, []string{"0.0.0.0:80"}},
	"closed-and-wider": {[]string{"python3", "-c", `
import socket
socket.create_server(("127.0.0.1", 3000)).close()
s = socket.create_server(("0.0.0.0", 3000))
while True:
    c, _ = s.accept()
    c.send(b"hi")
    c.close()`}, []string{"0.0.0.0:3000"}},
}

// Each app must be reached, and see and say what it would anywhere else. If an update of gVisor undoes a patch, this
// fails.
func TestListensAnywhere(t *testing.T) {
	d := newDriver(t)
	for name, c := range listeningPrograms {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			spec := quietSpec(name)
			spec.Args, spec.Stderr, spec.Limits.Memory, spec.Limits.Processes = c.args, &out, 256<<20, 64
			spec.Env = []string{"PATH=/usr/bin"}
			sb, err := d.Start(t.Context(), spec)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				sb.Close()
				if t.Failed() {
					t.Logf("it printed %s", out.String())
				}
			}()
			awaitListeners(t, sb, c.want)
			port := 3000
			if name == "low-port" {
				port = 80
			}
			conn, err := sb.Dial(t.Context(), port)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			if said, err := io.ReadAll(conn); string(said) != "hi" {
				t.Errorf("said %q, %v", said, err)
			}
		})
	}
}

// awaitListeners waits until the app listens on these sockets; nil: on any.
func awaitListeners(t *testing.T, sb sandbox.Sandbox, want []string) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for {
		listeners, err := sb.Listeners(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var found []string
		for _, l := range listeners {
			found = append(found, l.Addr.String())
		}
		if len(found) > 0 && (want == nil || slices.Equal(found, want)) {
			return
		}
		select {
		case <-again.C:
		case <-deadline:
			t.Fatalf("listens on %v, want %v", found, want)
		}
	}
}
