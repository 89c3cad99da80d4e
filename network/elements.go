package network

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// change is what is added to one of the sets, or removed from it.
type change struct {
	set      *nftables.Set
	elements []nftables.SetElement
}

// member lets the wire send under its address.
func (r *rules) member(w *wire) change {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, w.name)
	return change{r.members, []nftables.SetElement{{Key: append(name, w.subnet.environment().AsSlice()...)}}}
}

// policy says what the address may reach.
func (r *rules) policy(from netip.Addr, kind policyKind) change {
	chain, ok := r.chains[kind]
	if !ok {
		return change{set: r.policies}
	}
	verdict := &expr.Verdict{Kind: expr.VerdictJump, Chain: chain.Name}
	return change{r.policies, []nftables.SetElement{{Key: from.AsSlice(), VerdictData: verdict}}}
}

// silence keeps everything from the address.
func (r *rules) silence(to netip.Addr) change {
	return change{r.silent, []nftables.SetElement{{Key: to.AsSlice()}}}
}

// reach lets the address reach listed networks.
func (r *rules) reach(from netip.Addr, networks []netip.Prefix) change {
	c := change{set: r.networks}
	for _, network := range networks {
		c.elements = append(c.elements, nftables.SetElement{
			Key:    slices.Concat(from.AsSlice(), network.Addr().AsSlice()),
			KeyEnd: slices.Concat(from.AsSlice(), last(network).AsSlice()),
		})
	}
	return c
}

// connect lets the address connect to listed endpoints.
func (r *rules) connect(from netip.Addr, endpoints []netip.AddrPort) change {
	return change{r.targets, endpointElements(from.AsSlice(), endpoints)}
}

// endpointElements returns the endpoints as elements of address . protocol . port, over TCP and UDP, with prefix in
// front.
func endpointElements(prefix []byte, endpoints []netip.AddrPort) []nftables.SetElement {
	var elements []nftables.SetElement
	for _, to := range endpoints {
		for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			key := slices.Concat(prefix, to.Addr().AsSlice(), []byte{protocol, 0, 0, 0})
			key = append(binary.BigEndian.AppendUint16(key, to.Port()), 0, 0)
			elements = append(elements, nftables.SetElement{Key: key})
		}
	}
	return elements
}

// rangeElements returns each prefix as the element it begins with and the one that ends it.
func rangeElements(prefixes []netip.Prefix) []nftables.SetElement {
	var elements []nftables.SetElement
	for _, prefix := range prefixes {
		elements = append(elements, nftables.SetElement{Key: prefix.Masked().Addr().AsSlice()})
		if after := last(prefix).Next(); after.Is4() && after.IsValid() {
			elements = append(elements, nftables.SetElement{Key: after.AsSlice(), IntervalEnd: true})
		}
	}
	return elements
}

func last(prefix netip.Prefix) netip.Addr {
	return address(number(prefix.Masked().Addr()) | uint32(uint64(1)<<(32-prefix.Bits())-1))
}
