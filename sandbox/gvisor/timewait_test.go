package gvisor

import (
	"bufio"
	"context"
	"net"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lull-dev/lull/sandbox"
)

// A connection that the app has closed first, before it slept, does not stay in the way of a new one from the same port.
func TestOldConnectionsAreForgotten(t *testing.T) {
	d := newDriver(t)
	spec := helloSpec("forgets", helloDir(t))
	spec.Args = []string{"node", "-e", `require("net").createServer(c => c.end("hello\n")).listen(8080)`}
	sb := start(t, d, spec)
	port := hello(t, sb, 0, 3_000_000_000)
	dir := snapshotOf(t, sb)
	if err := sb.Vacate(); err != nil {
		t.Fatal(err)
	}
	sb, err := d.Restore(t.Context(), spec, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer sb.Close()
	hello(t, sb, port, 1_000_000_000) // not after the first, as far as the app's side can tell
}

// hello is greeted over a connection from a port, 0 for any, whose first sequence number is given, and which the app
// closes first. It returns the port.
func hello(t *testing.T, sb sandbox.Sandbox, port, sequence int) int {
	t.Helper()
	const sendQueue = 2 // TCP_SEND_QUEUE of linux/tcp.h
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{Port: port}, Control: func(_, _ string, raw syscall.RawConn) (err error) {
		failed := raw.Control(func(fd uintptr) {
			for _, opt := range [][3]int{
				{unix.SOL_SOCKET, unix.SO_REUSEADDR, 1},
				{unix.SOL_TCP, unix.TCP_REPAIR, 1},
				{unix.SOL_TCP, unix.TCP_REPAIR_QUEUE, sendQueue},
				{unix.SOL_TCP, unix.TCP_QUEUE_SEQ, sequence},
				{unix.SOL_TCP, unix.TCP_REPAIR, 0},
			} {
				if err == nil {
					err = unix.SetsockoptInt(int(fd), opt[0], opt[1], opt[2])
				}
			}
		})
		if err == nil {
			err = failed
		}
		return err
	}}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, err := dialer.DialContext(ctx, "tcp4", net.JoinHostPort(sb.(*box).link.Addr().String(), strconv.Itoa(8080)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	lines := bufio.NewScanner(conn)
	if !lines.Scan() || lines.Text() != "hello" || lines.Scan() {
		t.Fatalf("said %q, %v", lines.Text(), lines.Err())
	}
	return conn.LocalAddr().(*net.TCPAddr).Port
}
