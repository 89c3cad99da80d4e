package process

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/lull-dev/lull/sandbox"
)

// Listeners finds the sockets that the sandbox's processes have open among those of the host that listen.
func (b *box) Listeners(context.Context) ([]sandbox.Listener, error) {
	if b.isEnded() {
		return nil, sandbox.ErrExited
	}
	own := map[string]bool{}
	for _, process := range members(b.pid, b.mark) {
		addSockets(own, process.pid)
	}
	var found []sandbox.Listener
	for _, table := range []string{"tcp", "tcp6"} {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", b.pid, table))
		if errors.Is(err, os.ErrNotExist) { // no IPv6, or it has just ended
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list listeners of %s: %w", b.spec.ID, err)
		}
		for _, socket := range parseSockets(data) {
			if own[socket.inode] {
				found = append(found, sandbox.Listener{Addr: socket.addr})
			}
		}
	}
	if b.isEnded() {
		return nil, sandbox.ErrExited
	}
	slices.SortFunc(found, func(a, b sandbox.Listener) int {
		return cmp.Or(cmp.Compare(a.Addr.Port(), b.Addr.Port()), a.Addr.Addr().Compare(b.Addr.Addr()))
	})
	return slices.Compact(found), nil // several sockets may share an address
}

// addSockets adds the sockets that a process has open, by inode.
func addSockets(to map[string]bool, pid int) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	names, err := os.ReadDir(dir)
	if err != nil {
		return // it has ended, or has made itself unreadable
	}
	for _, name := range names {
		link, err := os.Readlink(dir + "/" + name.Name())
		if err != nil {
			continue
		}
		if inode, ok := strings.CutPrefix(link, "socket:["); ok {
			to[strings.TrimSuffix(inode, "]")] = true
		}
	}
}

// listening is a socket that listens.
type listening struct {
	addr  netip.AddrPort
	inode string
}

// parseSockets reads the listening ones from the format of /proc/net/tcp and tcp6. Lines of another form, such as the
// heading, are skipped.
func parseSockets(data []byte) []listening {
	var sockets []listening
	for line := range bytes.Lines(data) {
		words := bytes.Fields(line)
		const local, state, inode, listen = 1, 3, 9, "0A"
		if len(words) <= inode || string(words[state]) != listen {
			continue
		}
		if addr, ok := parseSocketAddr(string(words[local])); ok {
			sockets = append(sockets, listening{addr, string(words[inode])})
		}
	}
	return sockets
}

// parseSocketAddr reads an address such as 0100007F:1F90: words of four bytes as the processor keeps them, which is the
// lowest byte first wherever Lull runs.
func parseSocketAddr(text string) (netip.AddrPort, bool) {
	host, port, found := strings.Cut(text, ":")
	number, err := strconv.ParseUint(port, 16, 16)
	if !found || err != nil {
		return netip.AddrPort{}, false
	}
	raw, err := hex.DecodeString(host)
	if err != nil || len(raw)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for word := range slices.Chunk(raw, 4) {
		slices.Reverse(word)
	}
	addr, ok := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(addr, uint16(number)), ok
}

// Dial connects to a port the sandbox's processes listen on. Other processes of the host may listen on other ports, so
// it looks whose a port is, once.
func (b *box) Dial(ctx context.Context, port int) (net.Conn, error) {
	addr, known := b.known(port)
	if known {
		conn, err := dial(ctx, addr)
		if err == nil || b.isEnded() {
			return conn, b.orExited(err)
		}
	}
	addr, err := b.find(ctx, port)
	if err != nil {
		return nil, err
	}
	conn, err := dial(ctx, addr)
	if err != nil {
		return nil, b.orExited(fmt.Errorf("dial %s: %w", b.spec.ID, err))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sockets[port] = addr
	return conn, nil
}

func (b *box) orExited(err error) error {
	if err != nil && b.isEnded() {
		return sandbox.ErrExited
	}
	return err
}

func (b *box) known(port int) (netip.AddrPort, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	addr, ok := b.sockets[port]
	return addr, ok && !b.ended
}

// find returns the address at which a port can be reached.
func (b *box) find(ctx context.Context, port int) (netip.AddrPort, error) {
	listeners, err := b.Listeners(ctx)
	if err != nil {
		return netip.AddrPort{}, err
	}
	for _, listener := range listeners {
		if int(listener.Addr.Port()) == port {
			return reachable(listener.Addr), nil
		}
	}
	return netip.AddrPort{}, fmt.Errorf("dial %s: nothing listens on port %d", b.spec.ID, port)
}

// reachable turns "all addresses" into one of them.
func reachable(addr netip.AddrPort) netip.AddrPort {
	switch addr.Addr() {
	case netip.IPv4Unspecified():
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), addr.Port())
	case netip.IPv6Unspecified():
		return netip.AddrPortFrom(netip.IPv6Loopback(), addr.Port())
	}
	return addr
}

// dial connects without keep-alive probes, see sandbox.Sandbox.
func dial(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	dialer := net.Dialer{KeepAlive: -1}
	return dialer.DialContext(ctx, "tcp", addr.String())
}
