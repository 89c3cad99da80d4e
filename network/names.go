package network

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	nameRefresh = 30 * time.Second // names are looked up again this often while an environment needs them
	nameKeep    = 5 * time.Minute  // an address stays allowed this long after it was last answered: the app may hold on to it
	nameTimeout = 2 * time.Second  // one look-up
)

// names knows the addresses of the host names in lists of egress. Rules work on addresses, so what a name stands for is
// looked up here and again by the app itself; the two can differ for names whose answers rotate over more addresses
// than one answer holds. Such a name is better listed as the network it is in.
type names struct {
	lookup func(ctx context.Context, name string) ([]netip.Addr, error)
	log    *slog.Logger

	mu    sync.Mutex
	known map[string]map[netip.Addr]time.Time // when it was last answered
}

func newNames(log *slog.Logger) *names {
	lookup := func(ctx context.Context, name string) ([]netip.Addr, error) {
		return net.DefaultResolver.LookupNetIP(ctx, "ip4", name)
	}
	return &names{lookup: lookup, log: log, known: map[string]map[netip.Addr]time.Time{}}
}

// resolve returns the endpoints that the targets stand for. A name that is known is answered at once, others are looked
// up, all at the same time, for at most nameTimeout. A name that cannot be found has no endpoints until a refresh
// finds it: an app should start also while a name server is away.
func (n *names) resolve(targets []target, now time.Time) []netip.AddrPort {
	var waiting sync.WaitGroup
	for _, name := range n.unknown(targets) {
		waiting.Go(func() { n.look(name, now) })
	}
	waiting.Wait()
	return n.endpoints(targets)
}

// refresh looks up every name of the targets again and forgets names that have not been asked for in a while.
func (n *names) refresh(targets []target, now time.Time) {
	used := map[string]bool{}
	var waiting sync.WaitGroup
	for _, target := range targets {
		if _, isAddr := literal(target); isAddr || used[target.host] {
			continue
		}
		used[target.host] = true
		waiting.Go(func() { n.look(target.host, now) })
	}
	waiting.Wait()

	n.mu.Lock()
	defer n.mu.Unlock()
	for name := range n.known {
		if !used[name] {
			n.forget(name, now)
		}
		if len(n.known[name]) == 0 {
			delete(n.known, name)
		}
	}
}

// forget drops the addresses of a name that were last answered too long ago. n.mu is held.
func (n *names) forget(name string, now time.Time) {
	for addr, seen := range n.known[name] {
		if now.Sub(seen) > nameKeep {
			delete(n.known[name], addr)
		}
	}
}

// look asks for one name and keeps the answer. As long as there is none the addresses known so far stay.
func (n *names) look(name string, now time.Time) {
	ctx, cancel := context.WithTimeout(context.Background(), nameTimeout)
	defer cancel()
	addrs, err := n.lookup(ctx, name)
	if err != nil {
		n.log.Warn("host name in egress not found, connections to it are refused", "name", name, "error", err)
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.known[name] == nil {
		n.known[name] = map[netip.Addr]time.Time{}
	}
	for _, addr := range addrs {
		n.known[name][addr.Unmap()] = now
	}
	n.forget(name, now)
}

func (n *names) unknown(targets []target) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var unknown []string
	for _, target := range targets {
		_, isAddr := literal(target)
		if !isAddr && len(n.known[target.host]) == 0 && !slices.Contains(unknown, target.host) {
			unknown = append(unknown, target.host)
		}
	}
	return unknown
}

func (n *names) endpoints(targets []target) []netip.AddrPort {
	n.mu.Lock()
	defer n.mu.Unlock()
	unique := map[netip.AddrPort]bool{}
	for _, target := range targets {
		if addr, ok := literal(target); ok {
			unique[netip.AddrPortFrom(addr, target.port)] = true
			continue
		}
		for addr := range n.known[target.host] {
			unique[netip.AddrPortFrom(addr, target.port)] = true
		}
	}
	endpoints := make([]netip.AddrPort, 0, len(unique))
	for endpoint := range unique {
		if endpoint.Addr().Is4() {
			endpoints = append(endpoints, endpoint)
		}
	}
	slices.SortFunc(endpoints, netip.AddrPort.Compare)
	return endpoints
}

// literal returns the target's address if that is what its host is.
func literal(t target) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(t.host)
	return addr.Unmap(), err == nil
}
