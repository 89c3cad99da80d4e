package host

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestParseNameServers(t *testing.T) {
	addr := netip.MustParseAddr
	got := parseNameServers([]byte(`# comment
search example.com
nameserver 127.0.0.53
 nameserver	10.0.0.2 # a comment
nameserver 10.0.0.2
nameserver fe80::1%eth0
nameserver nonsense
nameserver
options edns0`))
	want := []netip.Addr{addr("127.0.0.53"), addr("10.0.0.2"), addr("fe80::1%eth0")}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(want[1:2], Reachable(got), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Error("reachable: ", diff)
	}
}

func FuzzParseNameServers(f *testing.F) {
	f.Add([]byte("nameserver 10.0.0.1\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, server := range parseNameServers(data) {
			if !server.IsValid() {
				t.Errorf("invalid server in %q", data)
			}
		}
	})
}
