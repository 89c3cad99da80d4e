package network

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/lull-dev/lull"
)

// TestSpoofedSourcesAreDropped sends raw packets, as a process that has taken over its sandbox could. They go over the
// same wire in order, so that once the last one, which is honest, has arrived, the others would have.
func TestSpoofedSourcesAreDropped(t *testing.T) {
	world := newWorld(t)
	n, _ := openNetwork(t, Options{})
	link, other := attach(t, n, lull.EgressInternet), attach(t, n, lull.EgressInternet)
	inbox := listenUDP(t, world.namespace, endpoint(internetAddr, 0))
	to := inbox.LocalAddr().(*net.UDPAddr).AddrPort()

	spoofed := []netip.Addr{other.Addr(), other.Gateway(), link.Gateway(), uplinkAddr, privateAddr, internetAlso}
	must(t, inside(namespaceOf(t, link), func() error {
		for _, from := range append(spoofed, link.Addr()) {
			if err := sendRaw(from, to, "I am "+from.String()); err != nil {
				return err
			}
		}
		return nil
	}))
	if got := receive(t, inbox); got != "I am "+link.Addr().String() {
		t.Errorf("a spoofed packet arrived: %q", got)
	}
}

// TestForgedAnswersDoNotPassAsAnother is about an environment that answers in the name of another one which the host
// talks to.
func TestForgedAnswersDoNotPassAsAnother(t *testing.T) {
	n, _ := openNetwork(t, Options{})
	link, victim := attach(t, n, lull.EgressInternet), attach(t, n, lull.EgressInternet)
	asked := listenUDP(t, namespaceOf(t, victim), endpoint(victim.Addr(), 0))
	to := asked.LocalAddr().(*net.UDPAddr).AddrPort()
	host, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(to))
	must(t, err)
	defer func() { _ = host.Close() }()
	_, err = host.Write([]byte("question"))
	must(t, err)
	if got := receive(t, asked); got != "question" {
		t.Fatalf("the environment got %q", got)
	}
	back := host.LocalAddr().(*net.UDPAddr).AddrPort()
	must(t, inside(namespaceOf(t, link), func() error { return sendRawFrom(to, back, "forged") }))
	must(t, inside(namespaceOf(t, victim), func() error { return sendRawFrom(to, back, "honest") }))
	if got := receive(t, host); got != "honest" {
		t.Errorf("the host got %q", got)
	}
}

func TestNoIPv6(t *testing.T) {
	n, _ := openNetwork(t, Options{})
	link := attach(t, n, lull.EgressInternet)
	data, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + link.wire.name + "/disable_ipv6")
	must(t, err)
	if strings.TrimSpace(string(data)) != "1" {
		t.Errorf("IPv6 is on at the host's end")
	}
	must(t, inside(namespaceOf(t, link), func() error {
		for name, want := range map[string]int{insideName: 0, "lo": 1} {
			iface, err := netlink.LinkByName(name)
			if err != nil {
				return err
			}
			addrs, err := netlink.AddrList(iface, netlink.FAMILY_V6)
			if err != nil {
				return err
			}
			if len(addrs) != want {
				t.Errorf("%s has the IPv6 addresses %v, want %d", name, addrs, want)
			}
		}
		return nil
	}))
}

func TestRulesComeBackWhenFlushed(t *testing.T) {
	world := newWorld(t)
	n, _ := openNetwork(t, Options{})
	port := serve(t, world.namespace, ":0").Port()
	link, listed, closed := attach(t, n, lull.EgressInternet), attach(t, n, "10.97.0.0/16", endpoint(internetAlso, port).String()), attach(t, n, lull.EgressInternet)
	var late *Link
	flush(t, n,
		func() { must(t, closed.Close()) }, // there is nothing to remove, and that is fine
		func() { late = attach(t, n, lull.EgressInternet) })
	mustReach(t, late, endpoint(internetAddr, port))
	mustReach(t, link, endpoint(internetAddr, port))
	mustNotReach(t, link, endpoint(privateAddr, port))
	mustReach(t, listed, endpoint(privateAddr, port))
	mustReach(t, listed, endpoint(internetAlso, port))
	mustNotReach(t, listed, endpoint(internetAddr, port))
}

// TestReusedAddressForgetsConnections gives an address with an open connection to an environment that may not have it.
func TestReusedAddressForgetsConnections(t *testing.T) {
	world := newWorld(t)
	n, _ := openNetwork(t, Options{Ready: -1, Pool: netip.MustParsePrefix("198.18.0.0/24")}) // one address
	inbox := listenUDP(t, world.namespace, endpoint(internetAddr, 0))
	to := inbox.LocalAddr().(*net.UDPAddr).AddrPort()
	first := attach(t, n, lull.EgressInternet)
	if _, err := n.Attach("one-too-many", lull.Egress{lull.EgressNone}); lull.KindOf(err) != lull.KindUnsupported {
		t.Errorf("attach of one too many: %v, want %s", err, lull.KindUnsupported)
	}
	from := endpoint(first.Addr(), 4000)
	must(t, inside(namespaceOf(t, first), func() error { return sendRawFrom(from, to, "first") }))
	if got := answer(t, inbox); got != "first" {
		t.Fatalf("got %q", got)
	}
	must(t, first.Close())

	second := attach(t, n, lull.EgressNone)
	if second.Addr() != first.Addr() {
		t.Fatalf("second has %s, the test is about %s", second.Addr(), first.Addr())
	}
	must(t, inside(namespaceOf(t, second), func() error { return sendRawFrom(from, to, "second") }))
	must(t, second.Close())
	third := attach(t, n, lull.EgressInternet)
	must(t, inside(namespaceOf(t, third), func() error { return sendRawFrom(from, to, "third") }))
	if got := receive(t, inbox); got != "third" {
		t.Errorf("got %q from an environment without egress", got)
	}
}

// One environment cannot fill the kernel's table of connections.
func TestConnectionsAreCounted(t *testing.T) {
	world := newWorld(t)
	n, _ := openNetwork(t, Options{})
	n.rules.mu.Lock()
	n.rules.most = 3
	n.rules.mu.Unlock()
	flush(t, n)
	to := endpoint(internetAddr, serve(t, world.namespace, ":0").Port())
	link, other := attach(t, n, lull.EgressInternet), attach(t, n, lull.EgressInternet)
	var open []net.Conn
	must(t, inside(namespaceOf(t, link), func() error {
		for len(open) < 10 {
			conn, err := net.DialTimeout("tcp4", to.String(), wait)
			if err != nil {
				break
			}
			open = append(open, conn)
		}
		return nil
	}))
	if len(open) != int(n.rules.most) {
		t.Errorf("%d connections at once, want %d", len(open), n.rules.most)
	}
	mustNotReach(t, link, to)
	mustReach(t, other, to) // has its own count
	for _, conn := range open {
		must(t, conn.(*net.TCPConn).SetLinger(0))
		must(t, conn.Close())
	}
	waitFor(t, "room for a connection", func() bool {
		_, err := reach(t, link, to, wait)
		return err == nil
	})
}

// flush removes the table, as reloading a firewall does, does what is to be done without it, and waits until it is back.
func flush(t *testing.T, n *Network, meanwhile ...func()) {
	t.Helper()
	must(t, sweepTable(n.name))
	for _, do := range meanwhile {
		do()
	}
	waitFor(t, "the table", func() bool {
		exists, err := tableExists(n.name)
		return exists && err == nil
	})
}

func sendRaw(from netip.Addr, to netip.AddrPort, text string) error {
	return sendRawFrom(netip.AddrPortFrom(from, 4000), to, text)
}

// sendRawFrom sends a UDP packet with any source from the namespace of the calling thread.
func sendRawFrom(from, to netip.AddrPort, text string) error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(socket) }()
	const ipHeader, udpHeader = 20, 8
	packet := make([]byte, ipHeader+udpHeader, ipHeader+udpHeader+len(text))
	packet[0], packet[8], packet[9] = 4<<4|ipHeader/4, 64, unix.IPPROTO_UDP // version and length, TTL
	copy(packet[12:], from.Addr().AsSlice())
	copy(packet[16:], to.Addr().AsSlice())
	binary.BigEndian.PutUint16(packet[20:], from.Port())
	binary.BigEndian.PutUint16(packet[22:], to.Port())
	binary.BigEndian.PutUint16(packet[24:], uint16(udpHeader+len(text))) // the checksum may be left out
	packet = append(packet, text...)
	if err := unix.Sendto(socket, packet, 0, &unix.SockaddrInet4{Addr: to.Addr().As4()}); err != nil {
		return fmt.Errorf("send from %s: %w", from, err)
	}
	return nil
}

func listenUDP(t *testing.T, namespace *os.File, addr netip.AddrPort) *net.UDPConn {
	t.Helper()
	var conn *net.UDPConn
	must(t, inside(namespace, func() (err error) {
		conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(addr))
		return err
	}))
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func receive(t *testing.T, conn *net.UDPConn) string {
	t.Helper()
	must(t, conn.SetReadDeadline(time.Now().Add(wait)))
	packet := make([]byte, 2048)
	length, err := conn.Read(packet)
	must(t, err)
	return string(packet[:length])
}

// answer receives a packet and sends it back, which makes a connection of it.
func answer(t *testing.T, conn *net.UDPConn) string {
	t.Helper()
	must(t, conn.SetReadDeadline(time.Now().Add(wait)))
	packet := make([]byte, 2048)
	length, from, err := conn.ReadFromUDPAddrPort(packet)
	must(t, err)
	_, err = conn.WriteToUDPAddrPort(packet[:length], from)
	must(t, err)
	return string(packet[:length])
}

func waitFor(t *testing.T, what string, happened func() bool) {
	t.Helper()
	deadline := time.After(wait)
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for !happened() {
		select {
		case <-deadline:
			t.Fatalf("waited %s for %s", wait, what)
		case <-again.C:
		}
	}
}
