package e2e

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The addresses of a machine "on the local network", which is a network namespace. The public one is from a range that
// is kept for examples (RFC 5737).
const (
	lanHost         = "10.213.77.1" // the host's own address on that network
	lanAddress      = "10.213.77.2"
	private172      = "172.31.213.77"
	private192      = "192.168.213.77"
	metadataAddress = "169.254.169.254"
	publicAddress   = "203.0.113.77"
)

// outside is what an environment could reach if nothing stopped it.
type outside struct {
	port      int // at all addresses of the machine on the local network
	otherPort int // the same
	hostPort  int // at all addresses of the host
}

// openOutside makes a machine beside the host, with servers on both, until the test ends.
func openOutside(t *testing.T) outside {
	t.Helper()
	const namespace, wire = "e2e-outside", "e2e-wire"
	lock, err := os.Create(filepath.Join(os.TempDir(), namespace))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lock.Close() })
	// The addresses are the machine's only ones: another run waits, and one that was killed has left them.
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("/run/netns/" + namespace); err == nil {
		ip(t, "netns", "delete", namespace)
	}
	ip(t, "netns", "add", namespace)
	t.Cleanup(func() { ip(t, "netns", "delete", namespace) }) // and with it the wire and the routes over it
	ip(t, "link", "add", wire, "type", "veth", "peer", "name", "eth0", "netns", namespace)
	ip(t, "address", "add", lanHost+"/24", "dev", wire)
	ip(t, "link", "set", wire, "up")
	ip(t, "-n", namespace, "address", "add", lanAddress+"/24", "dev", "eth0")
	ip(t, "-n", namespace, "link", "set", "eth0", "up")
	ip(t, "-n", namespace, "link", "set", "lo", "up")
	for _, address := range []string{private172, private192, metadataAddress, publicAddress} {
		ip(t, "-n", namespace, "address", "add", address+"/32", "dev", "lo")
		ip(t, "route", "add", address+"/32", "via", lanAddress)
	}
	out := outside{
		port:      serveAt(t, namespace),
		otherPort: serveAt(t, namespace),
		hostPort:  serveAt(t, ""),
	}
	for _, address := range []string{lanAddress, private172, private192, metadataAddress, publicAddress} {
		checkReachable(t, address, out.port)
	}
	checkReachable(t, lanAddress, out.otherPort)
	checkReachable(t, lanHost, out.hostPort)
	return out
}

func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func checkReachable(t *testing.T, host string, port int) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", net.JoinHostPort(host, strconv.Itoa(port)), 5*time.Second)
	if err != nil {
		t.Fatalf("the host itself cannot reach what an environment must not reach: %v", err)
	}
	conn.Close()
}

// serveAt accepts and drops connections at all addresses of a network namespace ("" is the host's) until the test ends.
func serveAt(t *testing.T, namespace string) (port int) {
	t.Helper()
	listener, err := listenIn(namespace)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() { // ends with the listener
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	return listener.Addr().(*net.TCPAddr).Port
}

// listenIn opens a listener in a network namespace, where it stays.
func listenIn(namespace string) (net.Listener, error) {
	if namespace == "" {
		return net.Listen("tcp4", "0.0.0.0:0")
	}
	file, err := os.Open("/run/netns/" + namespace)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var listener net.Listener
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread, which is in another namespace now, ends with the goroutine.
		runtime.LockOSThread()
		err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET)
		if err == nil {
			listener, err = net.Listen("tcp4", "0.0.0.0:0")
		}
		done <- err
	}()
	if err := <-done; err != nil {
		return nil, errors.Join(errors.New("listen in "+namespace), err)
	}
	return listener, nil
}
