package network

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/host"
)

func TestBlocksShareThePoolWithoutOverlap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bits := rapid.IntRange(8, 24).Draw(t, "bits")
		pool := netip.PrefixFrom(address(rapid.Uint32().Draw(t, "pool")), bits).Masked()
		a, b := rapid.IntRange(0, host.Slots-1).Draw(t, "a"), rapid.IntRange(0, host.Slots-1).Draw(t, "b")
		one, err := blockOf(pool, a)
		if err != nil {
			t.Fatal(err)
		}
		two, err := blockOf(pool, b)
		if err != nil {
			t.Fatal(err)
		}
		if (a == b) != one.prefix.Overlaps(two.prefix) {
			t.Fatalf("slots %d and %d have %s and %s", a, b, one.prefix, two.prefix)
		}
		last := one.subnet(one.size() - 1)
		if !pool.Contains(one.subnet(0).gateway()) || !one.prefix.Contains(last.environment().Next()) || one.prefix.Contains(last.environment().Next().Next()) {
			t.Fatalf("%d subnets do not fill %s", one.size(), one.prefix)
		}
	})
}

func TestDefaultPool(t *testing.T) {
	first, err := blockOf(DefaultPool, 0)
	must(t, err)
	last, err := blockOf(DefaultPool, host.Slots-1)
	must(t, err)
	for got, want := range map[string]string{
		first.prefix.String():                     "198.18.0.0/18",
		first.subnet(0).gateway().String():        "198.18.0.1",
		first.subnet(0).environment().String():    "198.18.0.2",
		first.subnet(4095).environment().String(): "198.18.63.254",
		last.prefix.String():                      "198.19.252.0/22",
		last.subnet(255).environment().String():   "198.19.255.254",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestBlockRefusesBadPools(t *testing.T) {
	for _, pool := range []string{"10.0.0.0/25", "2001:db8::/32"} {
		if got, err := blockOf(netip.MustParsePrefix(pool), 0); err == nil {
			t.Errorf("%s gives %s", pool, got.prefix)
		}
	}
}

func TestParsePolicy(t *testing.T) {
	prefix, compare := netip.MustParsePrefix, cmp.AllowUnexported(policy{}, target{})
	for _, test := range []struct {
		egress lull.Egress
		want   policy
	}{
		{nil, policy{kind: toNowhere}},
		{lull.Egress{"none"}, policy{kind: toNowhere}},
		{lull.Egress{"internet"}, policy{kind: toInternet}},
		{lull.Egress{"10.1.2.3/8", "10.2.0.0/16", "10.0.0.0/8", "fd00::/8"}, policy{kind: toListed, networks: []netip.Prefix{prefix("10.0.0.0/8")}}},
		{lull.Egress{"192.168.1.0/24", "Db:5432", "db:5432", "1.2.3.4:80"}, policy{
			kind: toListed, networks: []netip.Prefix{prefix("192.168.1.0/24")}, targets: []target{{"db", 5432}, {"1.2.3.4", 80}},
		}},
	} {
		got, err := parsePolicy(test.egress)
		if err != nil {
			t.Errorf("%v: %v", test.egress, err)
		}
		if diff := cmp.Diff(test.want, got, compare, cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
			t.Errorf("%v: %s", test.egress, diff)
		}
	}
	for _, wrong := range []string{"db", "db:", ":80", "db:0", "db:65536", "internet:x"} {
		if got, err := parsePolicy(lull.Egress{wrong, "10.0.0.0/8"}); err == nil {
			t.Errorf("%q is read as %+v", wrong, got)
		}
	}
}

// A set of ranges takes a list only if no range overlaps another, and the list must allow what it allowed before.
func TestOutermostKeepsWhatIsCovered(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := rapid.Custom(func(t *rapid.T) netip.Prefix {
			return netip.PrefixFrom(address(rapid.Uint32().Draw(t, "addr")), rapid.IntRange(0, 32).Draw(t, "bits")).Masked()
		})
		networks := rapid.SliceOf(draw).Draw(t, "networks")
		kept := outermost(slices.Clone(networks))
		for i, one := range kept {
			if slices.ContainsFunc(kept[i+1:], one.Overlaps) {
				t.Fatalf("%v overlap", kept)
			}
		}
		for _, network := range networks {
			if !slices.ContainsFunc(kept, func(p netip.Prefix) bool { return p.Bits() <= network.Bits() && p.Overlaps(network) }) {
				t.Fatalf("%s of %v is not in %v", network, networks, kept)
			}
		}
	})
}

func TestNamesTimeline(t *testing.T) {
	start := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	one, two := netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("203.0.113.11")
	targets := []target{{"db", 5432}, {"db", 5433}, {"192.0.2.9", 80}}
	var answer []netip.Addr
	asked := 0
	n := newNames(slog.New(slog.DiscardHandler))
	n.lookup = func(_ context.Context, name string) ([]netip.Addr, error) {
		asked++
		if len(answer) == 0 {
			return nil, errors.New("no answer")
		}
		return answer, nil
	}
	check := func(after time.Duration, wantAsked int, addrs ...netip.Addr) {
		t.Helper()
		var want []netip.AddrPort
		for _, addr := range addrs {
			want = append(want, endpoint(addr, 5432), endpoint(addr, 5433))
		}
		want = append(want, netip.MustParseAddrPort("192.0.2.9:80"))
		slices.SortFunc(want, netip.AddrPort.Compare)
		if diff := cmp.Diff(want, n.endpoints(targets), cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
			t.Errorf("after %s: %s", after, diff)
		}
		if asked != wantAsked {
			t.Errorf("after %s: asked %d times, want %d", after, asked, wantAsked)
		}
	}

	n.resolve(targets, start) // nobody answers
	check(0, 1)
	answer = []netip.Addr{one}
	n.refresh(targets, start.Add(30*time.Second))
	check(30*time.Second, 2, one)
	n.resolve(targets, start.Add(40*time.Second)) // known: not asked again
	check(40*time.Second, 2, one)
	answer = []netip.Addr{two}
	n.refresh(targets, start.Add(time.Minute))
	check(time.Minute, 3, one, two)
	answer = nil
	n.refresh(targets, start.Add(time.Hour)) // the name server is away: what is known stays
	check(time.Hour, 4, one, two)
	answer = []netip.Addr{two}
	n.refresh(targets, start.Add(time.Hour+time.Minute))
	check(time.Hour+time.Minute, 5, two)
	n.refresh(nil, start.Add(2*time.Hour)) // no environment needs it any more
	check(2*time.Hour, 5)
}
