package network

import (
	"net"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The pieces rules are put together from. A condition that does not hold ends its rule. Registers are words of four
// bytes; word n of a set's key is loaded into register n.

const firstRegister = unix.NFT_REG32_00

var (
	isIPv4  = compareNFProto(expr.CmpOpEq)
	notIPv4 = compareNFProto(expr.CmpOpNeq)

	accept = []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}
	drop   = []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}

	// A refusal is answered, so that an app learns at once what it may not do. A reset is understood by every TCP, while
	// the kernel sends few ICMP errors a second and gVisor keeps trying in spite of them.
	isTCP = []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: firstRegister},
		&expr.Cmp{Op: expr.CmpOpEq, Register: firstRegister, Data: []byte{unix.IPPROTO_TCP}},
	}
	reset      = []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}}
	prohibited = []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}}

	// answers holds for packets of connections that the other side has opened, and for errors about them.
	answers = []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: firstRegister},
		&expr.Bitwise{
			SourceRegister: firstRegister, DestRegister: firstRegister, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED),
			Xor:  binaryutil.NativeEndian.PutUint32(0),
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: firstRegister, Data: binaryutil.NativeEndian.PutUint32(0)},
	}
)

// redirected holds for packets whose destination was changed on their way in.
var redirected = []expr.Any{
	&expr.Ct{Key: expr.CtKeySTATUS, Register: firstRegister},
	&expr.Bitwise{
		SourceRegister: firstRegister, DestRegister: firstRegister, Len: 4,
		Mask: binaryutil.NativeEndian.PutUint32(statusDNAT), Xor: binaryutil.NativeEndian.PutUint32(0),
	},
	&expr.Cmp{Op: expr.CmpOpNeq, Register: firstRegister, Data: binaryutil.NativeEndian.PutUint32(0)},
}

const statusDNAT = 1 << 5 // IPS_DST_NAT of the kernel's nf_conntrack_common.h

// field loads something about a packet into a register.
type field func(register uint32) expr.Any

var (
	source         = ipv4Address(12) // offsets into the IPv4 header
	destination    = ipv4Address(16)
	protocol       = meta(expr.MetaKeyL4PROTO)
	inputInterface = meta(expr.MetaKeyIIFNAME) // four words
)

// port is the destination port; TCP and UDP have it at the same place.
func port(register uint32) expr.Any {
	return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}
}

func ipv4Address(offset uint32) field {
	return func(register uint32) expr.Any {
		return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4}
	}
}

func meta(key expr.MetaKey) field {
	return func(register uint32) expr.Any { return &expr.Meta{Key: key, Register: register} }
}

func load(what field, word uint32) []expr.Any { return []expr.Any{what(firstRegister + word)} }

func in(set *nftables.Set) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: firstRegister, SetName: set.Name, SetID: set.ID}}
}

func notIn(set *nftables.Set) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: firstRegister, SetName: set.Name, SetID: set.ID, Invert: true}}
}

// verdictOf does what the map says about the key; a key that is not there ends the rule.
func verdictOf(verdicts *nftables.Set) []expr.Any {
	return []expr.Any{&expr.Lookup{
		SourceRegister: firstRegister, SetName: verdicts.Name, SetID: verdicts.ID,
		IsDestRegSet: true, DestRegister: unix.NFT_REG_VERDICT,
	}}
}

// countsOver counts the packet's connection with the key's and holds if these are more than most. It is for packets that
// open a connection.
func countsOver(counts *nftables.Set, most uint32) []expr.Any {
	const over = 1 // NFT_CONNLIMIT_F_INV
	return []expr.Any{&expr.Dynset{
		SrcRegKey: firstRegister, SetName: counts.Name, SetID: counts.ID, Operation: unix.NFT_DYNSET_OP_ADD,
		Exprs: []expr.Any{&expr.Connlimit{Count: most, Flags: over}},
	}}
}

func portIs(number uint16) []expr.Any {
	return []expr.Any{port(firstRegister), &expr.Cmp{Op: expr.CmpOpEq, Register: firstRegister, Data: binaryutil.BigEndian.PutUint16(number)}}
}

func destinationIs(addr netip.Addr) []expr.Any {
	return []expr.Any{destination(firstRegister), &expr.Cmp{Op: expr.CmpOpEq, Register: firstRegister, Data: addr.AsSlice()}}
}

// redirectTo makes the host itself the destination, at this port.
func redirectTo(number uint16) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: firstRegister, Data: binaryutil.BigEndian.PutUint16(number)},
		&expr.Redir{RegisterProtoMin: firstRegister, RegisterProtoMax: firstRegister, Flags: natSpecified},
	}
}

const natSpecified = 1 << 1 // NF_NAT_RANGE_PROTO_SPECIFIED

func compareNFProto(op expr.CmpOp) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: firstRegister},
		&expr.Cmp{Op: op, Register: firstRegister, Data: []byte{unix.NFPROTO_IPV4}},
	}
}

// interfaceIs holds if the interface's name begins with prefix.
func interfaceIs(key expr.MetaKey, op expr.CmpOp, prefix string) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: firstRegister},
		&expr.Cmp{Op: op, Register: firstRegister, Data: []byte(prefix)},
	}
}

// sourceIn holds if the packet comes from the network.
func sourceIn(network netip.Prefix) []expr.Any {
	return []expr.Any{
		source(firstRegister),
		&expr.Bitwise{
			SourceRegister: firstRegister, DestRegister: firstRegister, Len: 4,
			Mask: net.CIDRMask(network.Bits(), 32), Xor: make([]byte, 4),
		},
		&expr.Cmp{Op: expr.CmpOpEq, Register: firstRegister, Data: network.Addr().AsSlice()},
	}
}
