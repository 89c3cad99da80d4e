package network

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/lull-dev/lull/host"
)

// DefaultPool is where environments get their addresses from: a range set aside for benchmarks between networks
// (RFC 2544), which hardly any host has a route for, unlike the private ranges.
var DefaultPool = netip.MustParsePrefix("198.18.0.0/15")

const (
	slotBits   = 6 // host.Slots is 1<<slotBits
	subnetBits = 2 // a subnet has four addresses: network, gateway, environment, broadcast
)

// block is the share of the pool that belongs to one slot. It is cut into subnets, one per environment.
type block struct {
	prefix netip.Prefix
}

// A machine runs one node, or a few, whose hibernated environments keep their addresses; only tests run dozens. So of a
// pool that is large enough each of the first slots gets an eighth, 4096 environments of DefaultPool, and the others
// share the second half: 256 each. Of a smaller pool all get the same.
const (
	largeSlots = 4
	largeBits  = 3 // 1<<largeBits shares, of which largeSlots are the first half of the pool
	smallBits  = slotBits + 1
	unevenBits = 17 // the longest prefix of a pool that is shared unevenly: a small share has 64 environments then
)

// blockOf returns the share of pool that belongs to a slot.
func blockOf(pool netip.Prefix, slot int) (block, error) {
	pool = pool.Masked()
	bits, position := pool.Bits()+slotBits, slot
	switch {
	case pool.Bits() > unevenBits:
	case slot < largeSlots:
		bits = pool.Bits() + largeBits
	default:
		bits, position = pool.Bits()+smallBits, host.Slots+slot // in the second half
	}
	switch {
	case !pool.IsValid() || !pool.Addr().Is4():
		return block{}, fmt.Errorf("address pool %s is not an IPv4 prefix", pool)
	case bits > 32-subnetBits:
		return block{}, fmt.Errorf("address pool %s is too small: it must be at least a /%d", pool, 32-subnetBits-slotBits)
	case slot < 0 || slot >= host.Slots:
		return block{}, fmt.Errorf("slot %d is not from 0 to %d", slot, host.Slots-1)
	}
	first := number(pool.Addr()) + uint32(position)<<(32-bits)
	return block{netip.PrefixFrom(address(first), bits)}, nil
}

// size is how many subnets the block has.
func (b block) size() int { return 1 << (32 - subnetBits - b.prefix.Bits()) }

// subnet returns the block's subnet number index.
func (b block) subnet(index int) subnet {
	return subnet{number(b.prefix.Addr()) + uint32(index)<<subnetBits}
}

// subnet is the link between the host and one environment.
type subnet struct {
	first uint32
}

func (s subnet) gateway() netip.Addr     { return address(s.first + 1) } // the host's end
func (s subnet) environment() netip.Addr { return address(s.first + 2) }

// hardwareAddr derives a link-layer address from an IPv4 address, so that an environment that comes back from disk finds
// its neighbour, and is found, under the address it had.
func hardwareAddr(addr netip.Addr) net.HardwareAddr {
	const locallyAdministered = 0x02
	return append(net.HardwareAddr{locallyAdministered, 0}, addr.AsSlice()...)
}

func number(addr netip.Addr) uint32 {
	four := addr.As4()
	return binary.BigEndian.Uint32(four[:])
}

func address(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n)))
}
