package gateway

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// plainSocket is a connection without anything of Go's: what is measured beside it is the gateway's.
type plainSocket int

func listenPlain(t *testing.T) (plainSocket, string) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 1024); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	local := name.(*syscall.SockaddrInet4)
	return plainSocket(fd), netip.AddrPortFrom(netip.AddrFrom4(local.Addr), uint16(local.Port)).String()
}

func (s plainSocket) accept(t *testing.T) plainSocket {
	fd, _, err := syscall.Accept4(int(s), syscall.SOCK_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	return plainSocket(fd).limit(t)
}

func dialPlain(t *testing.T, address string) plainSocket {
	to := netip.MustParseAddrPort(address)
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Connect(fd, &syscall.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}); err != nil {
		t.Fatal(err)
	}
	return plainSocket(fd).limit(t)
}

func (s plainSocket) limit(t *testing.T) plainSocket {
	t.Cleanup(func() { syscall.Close(int(s)) })
	wait := syscall.NsecToTimeval(int64(10 * time.Second))
	if err := syscall.SetsockoptTimeval(int(s), syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &wait); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s plainSocket) send(t *testing.T, text string) {
	if _, err := syscall.Write(int(s), []byte(text)); err != nil {
		t.Fatal(err)
	}
}

// await reads until text ends what came.
func (s plainSocket) await(t *testing.T, text string) {
	var got []byte
	buf := make([]byte, 1024)
	for !strings.HasSuffix(string(got), text) {
		n, err := syscall.Read(int(s), buf)
		if err == syscall.EINTR {
			continue
		}
		if n <= 0 || err != nil {
			t.Fatalf("after %q: %d, %v", got, n, err)
		}
		got = append(got, buf[:n]...)
	}
}

// memory is what the process holds for live objects and stacks.
func memory() uint64 {
	for range 4 { // stacks shrink by half at each collection
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

// TestQuietStreamsAreSmall measures what a quiet stream costs the node, with what the fakes of fleet need.
func TestQuietStreamsAreSmall(t *testing.T) {
	if raceEnabled {
		t.Log("the race detector's own memory would be measured: a few streams only")
	}
	for _, test := range []struct{ name, request, answer string }{
		{"websocket", "GET / HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
			"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x01a"},
		{"held websocket", "GET /?EIO=4 HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
			"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" +
				"\x81\x260{\"sid\":\"abcdefgh\",\"pingInterval\":500}"},
		{"events", "GET / HTTP/1.1\r\nHost: app.test\r\n\r\n",
			"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n"},
		{"idle connection", "GET / HTTP/1.1\r\nHost: app.test\r\n\r\n",
			"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\na\r\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			count, limit := 1000, 8<<10
			if raceEnabled {
				count, limit = 50, 1<<30
			}
			app, address := listenPlain(t)
			d := open(t, Config{LinkIdle: time.Millisecond}, dialer(address))
			var clients []plainSocket
			one := func() {
				client := dialPlain(t, d.addr)
				clients = append(clients, client)
				client.send(t, test.request)
				link := app.accept(t)
				link.await(t, "\r\n\r\n")
				link.send(t, test.answer)
				client.await(t, test.answer[len(test.answer)-3:])
				if test.name == "idle connection" {
					eventually(t, func() error { return d.linksLeft() })
				}
			}
			one()
			before := memory()
			for range count {
				one()
			}
			if test.name != "idle connection" {
				d.env.awaitCounts(t, counts{Streams: count + 1})
				awaitParking(t)
			}
			if test.name == "held websocket" { // every client hears a heartbeat and answers it
				d.env.pause()
				for _, client := range clients {
					client.await(t, "\x81\x012")
					client.send(t, "\x81\x81\x00\x00\x00\x003")
				}
				awaitParking(t)
			}
			each := (int(memory()) - int(before)) / count
			t.Logf("%d bytes each", each)
			if each > limit {
				t.Errorf("%d bytes each, want at most %d", each, limit)
			}
		})
	}
}

// awaitParking waits until no stream has a goroutine.
func awaitParking(t *testing.T) {
	t.Helper()
	eventually(t, func() error {
		if n := runtime.NumGoroutine(); n > 30 {
			return fmt.Errorf("%d goroutines", n)
		}
		return nil
	})
}

// linksLeft says whether there are connections to the app.
func (d *door) linksLeft() error {
	d.environments.mu.RLock()
	defer d.environments.mu.RUnlock()
	for _, e := range d.environments.byID {
		e.mu.Lock()
		defer e.mu.Unlock()
		if len(e.links) > 0 {
			return net.ErrClosed
		}
	}
	return nil
}
