package network

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/lull-dev/lull"
)

// policy is an app's egress, read.
type policy struct {
	kind     policyKind
	networks []netip.Prefix // for a list: no network contains another
	targets  []target
}

type policyKind uint8

const (
	toNowhere policyKind = iota
	toInternet
	toListed
)

// target is a host:port pair of a list. Its host is a name or an address.
type target struct {
	host string
	port uint16
}

func (t target) String() string { return fmt.Sprintf("%s:%d", t.host, t.port) }

// parsePolicy reads an egress that has passed Manifest.Validate. IPv6 networks are left out: environments have no IPv6.
func parsePolicy(egress lull.Egress) (policy, error) {
	switch {
	case len(egress) == 0 || len(egress) == 1 && egress[0] == lull.EgressNone:
		return policy{kind: toNowhere}, nil
	case len(egress) == 1 && egress[0] == lull.EgressInternet:
		return policy{kind: toInternet}, nil
	}
	read := policy{kind: toListed}
	for _, entry := range egress {
		if prefix, err := netip.ParsePrefix(entry); err == nil {
			if prefix.Addr().Is4() {
				read.networks = append(read.networks, prefix.Masked())
			}
			continue
		}
		target, err := parseTarget(entry)
		if err != nil {
			return policy{}, err
		}
		if !slices.Contains(read.targets, target) {
			read.targets = append(read.targets, target)
		}
	}
	read.networks = outermost(read.networks)
	return read, nil
}

func parseTarget(entry string) (target, error) {
	invalid := fmt.Errorf("egress %q is not internet, none, a network or host:port", entry)
	host, port, found := strings.Cut(entry, ":")
	if !found || host == "" {
		return target{}, invalid
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 {
		return target{}, invalid
	}
	return target{strings.ToLower(host), uint16(number)}, nil
}

// outermost drops networks that lie in another one: a set of ranges refuses overlaps.
func outermost(networks []netip.Prefix) []netip.Prefix {
	slices.SortFunc(networks, func(a, b netip.Prefix) int { return a.Bits() - b.Bits() })
	var kept []netip.Prefix
	for _, network := range networks {
		if !slices.ContainsFunc(kept, network.Overlaps) {
			kept = append(kept, network)
		}
	}
	return kept
}
