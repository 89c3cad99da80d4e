package host

import (
	"bufio"
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// resolverFiles are where the host's name servers are looked up, the first that names a usable one wins. Where
// /etc/resolv.conf points at a resolver on loopback (systemd-resolved), the second has the servers behind it.
var resolverFiles = []string{"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"}

// NameServers returns the machine's name servers that an environment can reach, see Reachable.
func NameServers() ([]netip.Addr, error) {
	var skipped []netip.Addr
	for _, file := range resolverFiles {
		data, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		servers := parseNameServers(data)
		if found := Reachable(servers); len(found) > 0 {
			return found, nil
		}
		skipped = append(skipped, servers...)
	}
	return nil, fmt.Errorf("no name server in %s can be reached from an environment (found %v): it must be IPv4 and not loopback",
		strings.Join(resolverFiles, " or "), skipped)
}

// Reachable returns those of the name servers that an environment can reach: not ones on loopback, which is another one
// in its namespace, nor ones with an IPv6 address, because its network has none.
func Reachable(servers []netip.Addr) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(servers), func(server netip.Addr) bool {
		return !server.Is4() || server.IsLoopback() || server.IsUnspecified()
	})
}

// parseNameServers reads the addresses from the format of resolv.conf(5). Lines it does not understand are skipped, as
// the C library does.
func parseNameServers(data []byte) []netip.Addr {
	var servers []netip.Addr
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) < 2 || words[0] != "nameserver" {
			continue
		}
		server, err := netip.ParseAddr(words[1])
		if err != nil {
			continue
		}
		if server = server.Unmap(); !slices.Contains(servers, server) {
			servers = append(servers, server)
		}
	}
	return servers
}
