package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/lull-dev/lull/host"
)

// patience is how long a packet that is dropped without a word is waited for, and wait how long anything that should
// happen.
const (
	patience = 300 * time.Millisecond
	wait     = 10 * time.Second
)

// needRoot ends the test where the kernel does not let it make namespaces. In CI that is a failure.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("these tests need root")
	}
	t.Skip("these tests need root")
}

// openNetwork opens a network in a slot of its own. Its log ends up in the test's.
func openNetwork(t *testing.T, opts Options) (*Network, *host.Slot) {
	t.Helper()
	needRoot(t)
	slot, err := host.Claim(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	if opts.NameServers == nil {
		opts.NameServers = []netip.Addr{nameServer}
	}
	n, err := Open(slot, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		if left := leftovers(t, slot); len(left) > 0 {
			t.Errorf("left after Close: %v", left)
		}
		if err := slot.Release(); err != nil {
			t.Error(err)
		}
	})
	return n, slot
}

func attach(t *testing.T, n *Network, egress ...string) *Link {
	t.Helper()
	link, err := n.Attach(fmt.Sprintf("env-%d", serial.Add(1)), egress)
	if err != nil {
		t.Fatal(err)
	}
	return link
}

var serial atomic.Int64

// leftovers lists what is in the kernel under the slot's name.
func leftovers(t *testing.T, slot place) []string {
	t.Helper()
	var left []string
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if strings.HasPrefix(link.Attrs().Name, slot.Name()+"-") {
			left = append(left, "interface "+link.Attrs().Name)
		}
	}
	mounts, err := host.Mounts()
	if err != nil {
		t.Fatal(err)
	}
	for _, mount := range mounts {
		if strings.HasPrefix(mount.Point, slot.Dir()+"/") {
			left = append(left, "mount "+mount.Point)
		}
	}
	if exists, err := tableExists(slot.Name()); err != nil || exists {
		left = append(left, fmt.Sprintf("nftables table (error: %v)", err))
	}
	files, err := os.ReadDir(slot.Dir())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for _, file := range files {
		left = append(left, "file "+file.Name())
	}
	return left
}

// The outside world is one namespace that has all these addresses, behind a wire of the test's own.
var (
	uplinkAddr   = netip.MustParseAddr("203.0.113.1") // the host's end
	internetAddr = netip.MustParseAddr("203.0.113.2")
	internetAlso = netip.MustParseAddr("203.0.113.65")
	privateAddr  = netip.MustParseAddr("10.97.1.2")
	privateAlso  = netip.MustParseAddr("172.29.1.2")
	metadataAddr = netip.MustParseAddr("169.254.169.254")
	nameServer   = netip.MustParseAddr("10.97.53.53")
	sharedAddr   = netip.MustParseAddr("100.99.1.2")
)

// world is the outside world. Only one exists at a time: tests that use it do not run in parallel.
type world struct {
	namespace *os.File
}

func newWorld(t *testing.T) *world {
	t.Helper()
	needRoot(t)
	namespace, err := newNamespace()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = namespace.Close() })
	name := fmt.Sprintf("world%d", os.Getpid()%1000000)
	pair := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: insideName, PeerNamespace: netlink.NsFd(int(namespace.Fd())), PeerTxQLen: -1}
	pair.Name = name
	if err := netlink.LinkAdd(pair); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := removeLink(name); err != nil {
			t.Error(err)
		}
	})
	must(t, linkUp(name))
	link, err := netlink.LinkByName(name)
	must(t, err)
	must(t, setAddress(link, uplinkAddr.AsSlice()))
	must(t, inside(namespace, populate))
	for _, addr := range []netip.Addr{internetAlso, privateAddr, privateAlso, metadataAddr, nameServer, sharedAddr} {
		must(t, netlink.RouteReplace(&netlink.Route{
			LinkIndex: link.Attrs().Index, Gw: internetAddr.AsSlice(),
			Dst: &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(32, 32)},
		}))
	}
	return &world{namespace}
}

// populate gives the world its addresses. It runs inside.
func populate() error {
	link, err := netlink.LinkByName(insideName)
	if err != nil {
		return err
	}
	if err := setAddress(link, internetAddr.AsSlice()); err != nil {
		return err
	}
	for _, addr := range []netip.Addr{internetAlso, privateAddr, privateAlso, metadataAddr, nameServer, sharedAddr} {
		if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(32, 32)}}); err != nil {
			return err
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	return netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: uplinkAddr.AsSlice()})
}

// serve listens on the port everywhere in a namespace (nil: the host) and answers each connection with the address it
// came from and whatever it sent.
func serve(t *testing.T, namespace *os.File, addr string) netip.AddrPort {
	t.Helper()
	var listener net.Listener
	listen := func() (err error) {
		listener, err = net.Listen("tcp4", addr)
		return err
	}
	if namespace == nil {
		must(t, listen())
	} else {
		must(t, inside(namespace, listen))
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() { // ends when the listener is closed
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				from, _ := netip.ParseAddrPort(conn.RemoteAddr().String())
				_, _ = fmt.Fprintf(conn, "%s\n", from.Addr())
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	return netip.MustParseAddrPort(listener.Addr().String())
}

// namespaceOf opens a link's namespace by the file that stands for it.
func namespaceOf(t *testing.T, link *Link) *os.File {
	t.Helper()
	file, err := os.Open(link.Namespace())
	must(t, err)
	t.Cleanup(func() { _ = file.Close() })
	return file
}

// reach connects from inside the link's namespace and exchanges a megabyte, so that segments of full size and their
// checksums are put to the test. It returns the address that the other side saw.
func reach(t *testing.T, link *Link, to netip.AddrPort, timeout time.Duration) (string, error) {
	t.Helper()
	var conn net.Conn
	err := inside(namespaceOf(t, link), func() (err error) {
		conn, err = net.DialTimeout("tcp4", to.String(), timeout)
		return err
	})
	if err != nil {
		return "", err
	}
	return converse(conn)
}

func converse(conn net.Conn) (seen string, err error) {
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(wait))
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	go func() { _, _ = conn.Write(sent) }() // ends with the connection
	var first []byte
	for char := make([]byte, 1); ; first = append(first, char[0]) {
		if _, err := conn.Read(char); err != nil {
			return "", err
		}
		if char[0] == '\n' {
			break
		}
	}
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(conn, got); err != nil {
		return "", err
	}
	if !bytes.Equal(got, sent) {
		return "", errors.New("other bytes came back")
	}
	return string(first), nil
}

// mustReach and mustNotReach say which side of the rules an endpoint is on.
func mustReach(t *testing.T, link *Link, to netip.AddrPort) {
	t.Helper()
	if _, err := reach(t, link, to, wait); err != nil {
		t.Errorf("%s cannot be reached: %v", to, err)
	}
}

func mustNotReach(t *testing.T, link *Link, to netip.AddrPort) {
	t.Helper()
	if _, err := reach(t, link, to, wait); err == nil {
		t.Errorf("%s can be reached", to)
	} else if !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("%s: %v, want a refusal at once", to, err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// dial connects from the namespace of the calling thread.
func dial(to netip.AddrPort, timeout time.Duration) (string, error) {
	conn, err := net.DialTimeout("tcp4", to.String(), timeout)
	if err != nil {
		return "", err
	}
	return converse(conn)
}

func fakeLookup(answers map[string][]netip.Addr) func(context.Context, string) ([]netip.Addr, error) {
	return func(_ context.Context, name string) ([]netip.Addr, error) {
		if found, ok := answers[name]; ok {
			return found, nil
		}
		return nil, errors.New("no such name")
	}
}

func portText(port uint16) string { return strconv.Itoa(int(port)) }

// takeAddressAway does to the namespace what a sandbox does when it starts.
func takeAddressAway(t *testing.T, link *Link) error {
	return inside(namespaceOf(t, link), func() error {
		eth0, err := netlink.LinkByName(insideName)
		if err != nil {
			return err
		}
		return netlink.AddrDel(eth0, &netlink.Addr{IPNet: &net.IPNet{IP: link.Addr().AsSlice(), Mask: net.CIDRMask(30, 32)}})
	})
}
