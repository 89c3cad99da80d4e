package network

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// insideName is what an environment's end of its wire is called in its namespace.
const insideName = "eth0"

// wire is a network namespace and the pair of interfaces that leads to it.
type wire struct {
	index     int // of its subnet in the slot's block
	subnet    subnet
	name      string // of the host's end
	namespace *os.File
}

// strand makes the namespace and the pair, addresses and all, and switches it on. What is made so far is undone on
// failure.
func strand(w wire, mtu int) (_ *wire, err error) {
	if w.namespace, err = newNamespace(); err != nil {
		return nil, err
	}
	made := &w
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("make %s: %w", w.name, err), removeLink(w.name), w.namespace.Close())
		}
	}()
	pair := &netlink.Veth{
		LinkAttrs:        netlink.NewLinkAttrs(),
		PeerName:         insideName,
		PeerHardwareAddr: hardwareAddr(w.subnet.environment()),
		PeerNamespace:    netlink.NsFd(int(w.namespace.Fd())),
		PeerTxQLen:       -1,
		PeerMTU:          uint32(mtu),
	}
	pair.Name, pair.MTU, pair.HardwareAddr = w.name, mtu, hardwareAddr(w.subnet.gateway())
	if err := netlink.LinkAdd(pair); err != nil {
		return nil, err
	}
	if err := made.setUpInside(); err != nil {
		return nil, err
	}
	if err := made.setUpHost(); err != nil {
		return nil, err
	}
	return made, made.awaitInside()
}

// setUpHost gives the host's end the gateway's address. It answers ARP for that address only, else an environment could
// find out which others the host has.
func (w *wire) setUpHost() error {
	for _, setting := range [][2]string{{"net/ipv6/conf/" + w.name + "/disable_ipv6", "1"}, {"net/ipv4/conf/" + w.name + "/arp_ignore", "1"}} {
		if err := setSysctl(setting[0], setting[1]); err != nil {
			return err
		}
	}
	link, err := netlink.LinkByName(w.name)
	if err != nil {
		return err
	}
	if err := setAddress(link, w.subnet.gateway().AsSlice()); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("switch on %s: %w", w.name, err)
	}
	return setNeighbour(link, w.subnet.environment().AsSlice(), hardwareAddr(w.subnet.environment()))
}

// setUpInside gives the environment's end its address and the default route. A sandbox takes both away when it starts.
func (w *wire) setUpInside() error {
	return inside(w.namespace, func() error {
		link, err := netlink.LinkByName(insideName)
		if err != nil {
			return err
		}
		if err := setAddress(link, w.subnet.environment().AsSlice()); err != nil {
			return err
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return fmt.Errorf("switch on %s: %w", insideName, err)
		}
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: w.subnet.gateway().AsSlice()}
		if err := netlink.RouteReplace(route); err != nil {
			return fmt.Errorf("set default route: %w", err)
		}
		return setNeighbour(link, w.subnet.gateway().AsSlice(), hardwareAddr(w.subnet.gateway()))
	})
}

// awaitInside waits until the environment's end can send. It was switched on while the host's end was off: the kernel
// notices soon after, but not at once, that the pair is complete, and until then drops what is sent.
func (w *wire) awaitInside() error {
	deadline := time.After(awaitLimit)
	again := time.NewTicker(500 * time.Microsecond)
	defer again.Stop()
	for {
		var link netlink.Link
		err := inside(w.namespace, func() (err error) {
			link, err = netlink.LinkByName(insideName)
			return err
		})
		if err != nil || link.Attrs().OperState == netlink.OperUp {
			return err
		}
		select {
		case <-again.C:
		case <-deadline:
			return fmt.Errorf("%s is %s after %s", insideName, link.Attrs().OperState, awaitLimit)
		}
	}
}

// awaitLimit is ample: the kernel puts such news off by a second at most.
const awaitLimit = 5 * time.Second

func removeLink(name string) error {
	link, err := netlink.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}

func linkUp(name string) error {
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	if err != nil {
		return fmt.Errorf("switch on %s: %w", name, err)
	}
	return nil
}

func setAddress(link netlink.Link, ip net.IP) error {
	mask := net.CIDRMask(32-subnetBits, 32)
	if err := netlink.AddrReplace(link, &netlink.Addr{IPNet: &net.IPNet{IP: ip, Mask: mask}}); err != nil {
		return fmt.Errorf("set address %s: %w", ip, err)
	}
	return nil
}

// setNeighbour makes the other end known for good. Without it the first packet after a long sleep would wait for ARP.
func setNeighbour(link netlink.Link, ip net.IP, hardware net.HardwareAddr) error {
	neighbour := &netlink.Neigh{LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT, IP: ip, HardwareAddr: hardware}
	if err := netlink.NeighSet(neighbour); err != nil {
		return fmt.Errorf("set neighbour %s: %w", ip, err)
	}
	return nil
}

// setSysctl writes a kernel setting of the network namespace the calling thread is in.
func setSysctl(path, value string) error {
	if err := os.WriteFile(filepath.Join("/proc/sys", path), []byte(value), 0); err != nil {
		return fmt.Errorf("set %s: %w", path, err)
	}
	return nil
}
