// Package network gives every environment a network namespace of its own, an address, and the rules of its egress.
//
// The host is the environments' gateway: each has a pair of interfaces whose host end carries the gateway's address.
// Out of an environment go: answers to the gateway, and what its app's egress allows. Into it come: connections from
// the host, and answers. There is no IPv6 besides the loopback interface. It is for Linux and root only.
package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/host"
)

// defaultReady is how many namespaces are kept ready. Making one takes about as long as creating a sandbox does, so
// that a few cover a burst until the filling goroutine has caught up.
const defaultReady = 4

// Options may be left empty.
type Options struct {
	// NameServers are what environments may ask for names; empty: the host's. Servers on loopback cannot be reached.
	NameServers []netip.Addr
	// Pool is where all nodes of the machine get their environments' addresses from; empty: DefaultPool, which has enough
	// for 4096 environments of each of the first four nodes. An environment takes four addresses, also while it is
	// hibernated.
	Pool netip.Prefix
	// Services is the port on which the node listens, on all addresses, for what environments may ask of it; they reach it
	// at ServicesAddr. 0: there is nothing.
	Services uint16
	// Ready is how many namespaces are kept ready; 0: a default, negative: none.
	Ready int
	Log   *slog.Logger
}

// ServicesAddr is where environments find the node's services. It is link-local, so that it means nothing else anywhere,
// and the same for all environments, so that it stays true when one comes back from disk.
var ServicesAddr = netip.MustParseAddrPort("169.254.77.77:80")

// Network is the environments' side of a node's network. Its methods may be called concurrently.
type Network struct {
	name        string // of the slot
	dir         string // of the namespace files
	nameServers []netip.Addr
	log         *slog.Logger
	rules       *rules
	names       *names
	wires       *wires

	stop context.CancelFunc
	done sync.WaitGroup // the goroutines Open has started

	mu        sync.Mutex // guards what follows
	links     map[string]*Link
	closed    bool
	attaching sync.WaitGroup // calls of attach; none is added once closed
}

// Open removes what an earlier holder of the slot has left in the kernel and sets up the node's rules. It switches the
// host's IPv4 forwarding on. The caller owns the network and must Close it before it releases the slot.
func Open(slot *host.Slot, opts Options) (*Network, error) {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if !opts.Pool.IsValid() {
		opts.Pool = DefaultPool
	}
	if opts.Ready == 0 {
		opts.Ready = defaultReady
	}
	own, err := blockOf(opts.Pool, slot.Index())
	if err != nil {
		return nil, fmt.Errorf("open network: %w", err)
	}
	servers := nameServers(opts.NameServers, opts.Log)
	n := &Network{
		name:        slot.Name(),
		dir:         filepath.Join(slot.Dir(), namespaceDir),
		nameServers: servers,
		log:         opts.Log,
		rules:       newRules(slot.Name(), own, opts.Pool, atPort(servers, 53), opts.Services),
		names:       newNames(opts.Log),
		links:       map[string]*Link{},
	}
	n.wires = newWires(slot, own, n.rules, opts.Log)
	if err := n.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("open network: %w", err), Sweep(n.name))
	}
	ctx, stop := context.WithCancel(context.Background())
	n.stop = stop
	n.done.Go(func() { n.wires.runFill(ctx, max(opts.Ready, 0)) })
	n.done.Go(func() { n.runRefresh(ctx) })
	n.done.Go(func() { n.rules.runGuard(ctx, opts.Log) })
	return n, nil
}

func (n *Network) open() error {
	if err := Sweep(n.name); err != nil {
		return err
	}
	if err := os.MkdirAll(n.dir, 0o711); err != nil {
		return err
	}
	if err := n.rules.install(); err != nil {
		return err
	}
	return forward(n.log)
}

// NameServers returns the name servers that environments can reach; their resolv.conf should have them.
func (n *Network) NameServers() []netip.Addr { return slices.Clone(n.nameServers) }

// Attach makes a network for the environment with that id, which must be unique and fit for a file name. A list in
// egress may name hosts: they are looked up now (a few seconds at most), and again while the link is open. The caller
// owns the link and must Close it when no process is left in its namespace.
func (n *Network) Attach(id string, egress lull.Egress) (*Link, error) {
	link, err := n.attach(id, egress)
	if err != nil {
		return nil, fmt.Errorf("attach %s to the network: %w", id, err)
	}
	return link, nil
}

func (n *Network) attach(id string, egress lull.Egress) (*Link, error) {
	if id == "" || id != filepath.Base(id) || strings.HasPrefix(id, ".") {
		return nil, errors.New("id is no file name")
	}
	policy, err := parsePolicy(egress)
	if err != nil {
		return nil, err
	}
	link := &Link{id: id, network: n, path: filepath.Join(n.dir, id), policy: policy}
	if err := n.register(link); err != nil {
		return nil, err
	}
	defer n.attaching.Done()
	if link.wire, err = n.wires.take(); err != nil {
		n.unregister(link)
		return nil, err
	}
	if err := link.open(); err != nil {
		return nil, errors.Join(err, link.Close())
	}
	return link, nil
}

// Close closes every link that is left and removes the node's rules. It waits.
func (n *Network) Close() error {
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	n.attaching.Wait()
	n.stop()
	n.done.Wait()

	n.mu.Lock()
	links := slices.Collect(maps.Values(n.links))
	n.mu.Unlock()
	errs := make([]error, len(links))
	var closing sync.WaitGroup
	for i, link := range links {
		closing.Go(func() { errs[i] = link.Close() })
	}
	closing.Wait()
	errs = append(errs, n.wires.close())
	n.rules.close()
	errs = append(errs, Sweep(n.name)) // the table last: nothing is ever open without it
	_ = os.Remove(n.dir)
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close network: %w", err)
	}
	return nil
}

// register makes the link known by its id. Who calls it calls attaching.Done later.
func (n *Network) register(link *Link) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.closed:
		return errors.New("network is closed")
	case n.links[link.id] != nil:
		return errors.New("id is attached already")
	}
	n.links[link.id] = link
	n.attaching.Add(1)
	return nil
}

func (n *Network) unregister(link *Link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.links, link.id)
}

// runRefresh keeps the addresses behind listed host names current. Open starts it, Close ends it and waits.
func (n *Network) runRefresh(ctx context.Context) {
	ticker := time.NewTicker(nameRefresh)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			n.refresh(now)
		}
	}
}

func (n *Network) refresh(now time.Time) {
	n.mu.Lock()
	var links []*Link
	var targets []target
	for _, link := range n.links {
		if len(link.policy.targets) > 0 {
			links, targets = append(links, link), append(targets, link.policy.targets...)
		}
	}
	n.mu.Unlock()

	n.names.refresh(targets, now)
	for _, link := range links {
		if err := link.update(); err != nil {
			n.log.Warn("egress not updated", "environment", link.id, "error", err)
		}
	}
}

// nameServers returns the usable ones of those configured, or of the host's.
func nameServers(configured []netip.Addr, log *slog.Logger) []netip.Addr {
	if len(configured) > 0 {
		found := host.Reachable(configured)
		if len(found) < len(configured) {
			log.Warn("name server cannot be reached from environments: it must be IPv4 and not loopback", "configured", configured)
		}
		return found
	}
	found, err := host.NameServers()
	if err != nil {
		log.Warn("environments cannot resolve names", "error", err)
	}
	return found
}

func atPort(addrs []netip.Addr, port uint16) []netip.AddrPort {
	var endpoints []netip.AddrPort
	for _, addr := range addrs {
		endpoints = append(endpoints, netip.AddrPortFrom(addr, port))
	}
	return endpoints
}

const forwardSetting = "/proc/sys/net/ipv4/ip_forward"

func forward(log *slog.Logger) error {
	data, err := os.ReadFile(forwardSetting)
	if err != nil {
		return fmt.Errorf("read %s: %w", forwardSetting, err)
	}
	if strings.TrimSpace(string(data)) != "0" {
		return nil
	}
	log.Info("IPv4 forwarding switched on for the egress of environments", "setting", "net.ipv4.ip_forward")
	return setSysctl("net/ipv4/ip_forward", "1")
}

// uplinkMTU is the largest packet that leaves the host towards its default route.
func uplinkMTU() int {
	const ethernet = 1500
	routes, err := whole(func() ([]netlink.Route, error) { return netlink.RouteList(nil, netlink.FAMILY_V4) })
	if err != nil {
		return ethernet
	}
	for _, route := range routes {
		if route.Dst != nil && !route.Dst.IP.IsUnspecified() {
			continue
		}
		if link, err := netlink.LinkByIndex(route.LinkIndex); err == nil && link.Attrs().MTU > 0 {
			return link.Attrs().MTU
		}
	}
	return ethernet
}
