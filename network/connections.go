package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// forgetConnections removes the connections to and from the addresses from the kernel's connection tracking.
func forgetConnections(of func(netip.Addr) bool) error {
	_, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, between(of))
	if err != nil && !errors.Is(err, unix.ENOENT) { // some ended meanwhile
		return fmt.Errorf("forget connections of earlier environments: %w", err)
	}
	return nil
}

// between is a filter for connections with one of the addresses at either end.
type between func(netip.Addr) bool

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (of between) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	for _, end := range []net.IP{flow.Forward.SrcIP, flow.Forward.DstIP, flow.Reverse.SrcIP, flow.Reverse.DstIP} {
		if addr, ok := netip.AddrFromSlice(end); ok && of(addr.Unmap()) {
			return true
		}
	}
	return false
}
