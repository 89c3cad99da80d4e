package network

import (
	"net/netip"
	"slices"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// rules is a slot's nftables table. Its rules are written once; environments come and go as elements of its sets. All
// of it is in the host's namespace: a sandbox injects raw packets in its own, where no rule would see them.
//
//	 from an environment                            to an environment
//	        │                                              ▲
//	prerouting: its own address as source, or drop         │
//	        │    ServicesAddr becomes the node's port      │
//	        ├──▶ input (the host itself):    only answers, the name server, the services, host:port pairs that were listed
//	        └──▶ forward: by the policy of the address     ├── silence: nothing while it is away, not even an answer
//	                └──▶ postrouting: masquerade           └── forward: only answers; the host is not forwarded
type rules struct {
	prefix      string // of the names of the host's ends: "lull3-"
	block       netip.Prefix
	most        uint32 // connections to elsewhere that one environment may have
	nameServers []netip.AddrPort
	services    uint16         // port of the node's services; 0: there are none
	forbidden   []netip.Prefix // that "internet" does not include

	table    *nftables.Table
	members  *nftables.Set // host's end . address: who may send as whom
	policies *nftables.Set // address : chain
	networks *nftables.Set // address . range, for listed networks
	targets  *nftables.Set // address . address . protocol . port, for listed pairs
	servers  *nftables.Set // address . protocol . port, of name servers
	ranges   *nftables.Set // forbidden
	silent   *nftables.Set // address, of environments that are away
	counts   *nftables.Set // address, with the connections it has; the kernel fills it
	chains   map[policyKind]*nftables.Chain
	refusal  *nftables.Chain

	mu   sync.Mutex     // orders transactions, which take the kernel microseconds, and guards what follows
	conn *nftables.Conn // nil before install and after a transaction that failed
	held map[*nftables.Set]map[string]nftables.SetElement
}

// mostConnections keeps one environment from filling the kernel's table of connections, which all share.
const mostConnections = 16384

// special are the ranges of IPv4 that are not the internet.
var special = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.0.0.0/24"), netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("240.0.0.0/4"),
}

func newRules(name string, own block, pool netip.Prefix, nameServers []netip.AddrPort, services uint16) *rules {
	addr, protocol, service := nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService
	table := &nftables.Table{Name: name, Family: nftables.TableFamilyINet}
	var sets uint32
	set := func(name string, key ...nftables.SetDatatype) *nftables.Set {
		sets++ // ids only tell the sets of one transaction apart
		made := &nftables.Set{Table: table, ID: sets, Name: name, KeyType: key[0]}
		if len(key) > 1 {
			made.KeyType, made.Concatenation = nftables.MustConcatSetType(key...), true
		}
		return made
	}
	r := &rules{
		prefix:      name + "-",
		block:       own.prefix,
		most:        mostConnections,
		nameServers: nameServers,
		services:    services,
		forbidden:   outermost(append(slices.Clone(special), pool)),
		table:       table,
		members:     set("members", nftables.TypeIFName, addr),
		policies:    set("policies", addr),
		networks:    set("networks", addr, addr),
		targets:     set("targets", addr, addr, protocol, service),
		servers:     set("nameservers", addr, protocol, service),
		ranges:      set("forbidden", addr),
		silent:      set("silent", addr),
		counts:      set("counts", addr),
		chains: map[policyKind]*nftables.Chain{
			toInternet: {Table: table, Name: "internet"},
			toListed:   {Table: table, Name: "listed"},
		},
		refusal: &nftables.Chain{Table: table, Name: "refusal"},
		held:    map[*nftables.Set]map[string]nftables.SetElement{},
	}
	r.policies.IsMap, r.policies.DataType = true, nftables.TypeVerdict
	r.networks.Interval, r.ranges.Interval = true, true
	r.counts.Dynamic, r.counts.Size = true, uint32(own.size())
	return r
}

// chain is a chain with its rules; a rule is a list of conditions and an outcome.
type chain struct {
	*nftables.Chain
	rules [][][]expr.Any
}

func (r *rules) program() []chain {
	from, to := interfaceIs(expr.MetaKeyIIFNAME, expr.CmpOpEq, r.prefix), interfaceIs(expr.MetaKeyOIFNAME, expr.CmpOpEq, r.prefix)
	listed := slices.Concat(load(source, 0), load(destination, 1), load(protocol, 2), load(port, 3), in(r.targets))
	refuse := []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: r.refusal.Name}}
	toNameServer := slices.Concat(load(destination, 0), load(protocol, 1), load(port, 2), in(r.servers))
	program := []chain{
		{r.hook("antispoof", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw), [][][]expr.Any{
			{from, notIPv4, drop},
			{from, load(inputInterface, 0), load(source, 4), notIn(r.members), drop},
		}},
		{r.hook("input", nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter), [][][]expr.Any{
			{from, answers, accept},
			{from, redirected, isTCP, portIs(r.services), accept},
			{from, toNameServer, load(source, 0), verdictOf(r.policies)},
			{from, listed, accept},
			{from, refuse},
		}},
		{r.hook("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter), [][][]expr.Any{
			{to, answers, accept},
			{to, refuse},
			{from, answers, accept},
			{from, load(source, 0), countsOver(r.counts, r.most), refuse},
			{from, load(source, 0), verdictOf(r.policies)},
			{from, refuse},
		}},
		{r.refusal, [][][]expr.Any{
			{isTCP, reset},
			{prohibited},
		}},
		{r.chains[toInternet], [][][]expr.Any{
			{toNameServer, accept},
			{load(destination, 0), notIn(r.ranges), accept},
		}},
		{r.chains[toListed], [][][]expr.Any{
			{toNameServer, accept},
			{listed, accept},
			{load(source, 0), load(destination, 1), in(r.networks), accept},
		}},
		{r.hook("silence", nftables.ChainTypeFilter, nftables.ChainHookPostrouting, nftables.ChainPriorityFilter), [][][]expr.Any{
			{to, load(destination, 0), in(r.silent), drop},
		}},
		{r.hook("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource), [][][]expr.Any{
			{isIPv4, sourceIn(r.block), interfaceIs(expr.MetaKeyOIFNAME, expr.CmpOpNeq, r.prefix), {&expr.Masq{}}},
		}},
	}
	if r.services == 0 {
		return program
	}
	return append(program, chain{
		r.hook("prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest), [][][]expr.Any{
			{from, isTCP, destinationIs(ServicesAddr.Addr()), portIs(ServicesAddr.Port()), redirectTo(r.services)},
		},
	})
}

func (r *rules) hook(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority *nftables.ChainPriority) *nftables.Chain {
	return &nftables.Chain{Table: r.table, Name: name, Type: kind, Hooknum: hook, Priority: priority}
}
