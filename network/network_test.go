package network

import (
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/lull-dev/lull"
)

func endpoint(addr netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(addr, port) }

func TestInternetIsEverythingButWhatIsNear(t *testing.T) {
	world := newWorld(t)
	n, _ := openNetwork(t, Options{})
	port := serve(t, world.namespace, ":0").Port()
	serve(t, world.namespace, ":53")
	hostPort := serve(t, nil, ":0").Port()
	link, other := attach(t, n, lull.EgressInternet), attach(t, n, lull.EgressInternet)
	otherPort := serve(t, namespaceOf(t, other), ":0").Port()

	seen, err := reach(t, link, endpoint(internetAddr, port), wait)
	must(t, err)
	if seen != uplinkAddr.String() {
		t.Errorf("the internet saw %s, not the host's address %s", seen, uplinkAddr)
	}
	mustReach(t, link, endpoint(internetAlso, port))
	mustReach(t, link, endpoint(nameServer, 53))

	for what, to := range map[string]netip.AddrPort{
		"private 10/8":                 endpoint(privateAddr, port),
		"private 172.16/12":            endpoint(privateAlso, port),
		"shared 100.64/10":             endpoint(sharedAddr, port),
		"metadata":                     endpoint(metadataAddr, port),
		"name server, not port 53":     endpoint(nameServer, port),
		"host by the gateway address":  endpoint(link.Gateway(), hostPort),
		"host by its uplink's address": endpoint(uplinkAddr, hostPort),
		"host by another gateway":      endpoint(other.Gateway(), hostPort),
		"other environment":            endpoint(other.Addr(), otherPort),
	} {
		t.Run(what, func(t *testing.T) { mustNotReach(t, link, to) })
	}
}

func TestHostReachesEnvironment(t *testing.T) {
	n, _ := openNetwork(t, Options{})
	link := attach(t, n, lull.EgressNone)
	port := serve(t, namespaceOf(t, link), ":0").Port()
	seen, err := dial(endpoint(link.Addr(), port), wait)
	must(t, err)
	if seen != link.Gateway().String() {
		t.Errorf("the environment saw %s, not its gateway %s", seen, link.Gateway())
	}
}

func TestNobodyElseReachesEnvironment(t *testing.T) {
	world := newWorld(t)
	n, _ := openNetwork(t, Options{})
	link := attach(t, n, lull.EgressInternet)
	port := serve(t, namespaceOf(t, link), ":0").Port()
	var err error
	_ = inside(world.namespace, func() error {
		_, err = dial(endpoint(link.Addr(), port), patience)
		return nil
	})
	if err == nil {
		t.Error("the world can connect to an environment")
	}
}

// The node's services are at one address for all environments, whatever their egress, and nothing else of the host is.
func TestServices(t *testing.T) {
	port, otherPort := serve(t, nil, "0.0.0.0:0").Port(), serve(t, nil, "0.0.0.0:0").Port()
	n, _ := openNetwork(t, Options{Services: port})
	for _, egress := range []string{lull.EgressInternet, lull.EgressNone, "10.97.1.0/24"} {
		link := attach(t, n, egress)
		seen, err := reach(t, link, ServicesAddr, wait)
		must(t, err)
		if seen != link.Addr().String() {
			t.Errorf("the services saw %s, not the environment's address %s", seen, link.Addr())
		}
		mustNotReach(t, link, endpoint(ServicesAddr.Addr(), otherPort))
		mustNotReach(t, link, endpoint(link.Gateway(), port))
		mustNotReach(t, link, endpoint(link.Gateway(), otherPort))
	}
	none, _ := openNetwork(t, Options{})
	mustNotReach(t, attach(t, none, lull.EgressInternet), ServicesAddr)
}

func TestNoneIsNothing(t *testing.T) {
	world := newWorld(t)
	n, _ := openNetwork(t, Options{})
	port := serve(t, world.namespace, ":0").Port()
	serve(t, world.namespace, ":53")
	link := attach(t, n, lull.EgressNone)
	mustNotReach(t, link, endpoint(internetAddr, port))
	mustNotReach(t, link, endpoint(nameServer, 53))
}

func TestListIsOnlyWhatIsListed(t *testing.T) {
	world := newWorld(t)
	n, _ := openNetwork(t, Options{})
	n.names.lookup = fakeLookup(map[string][]netip.Addr{"db.example.com": {privateAlso}})
	port := serve(t, world.namespace, ":0").Port()
	otherPort := serve(t, world.namespace, ":0").Port()
	serve(t, world.namespace, ":53")
	hostPort, otherHostPort := serve(t, nil, ":0").Port(), serve(t, nil, ":0").Port()

	link := attach(t, n, "10.97.1.0/24", "10.97.1.2/32", "203.0.113.64/26", "2001:db8::/32",
		endpoint(internetAddr, port).String(),
		"DB.example.com:"+portText(port),
		endpoint(uplinkAddr, hostPort).String())
	unrelated := attach(t, n, "192.168.77.0/24")

	mustReach(t, link, endpoint(privateAddr, port))
	mustReach(t, link, endpoint(privateAddr, otherPort))
	mustReach(t, link, endpoint(internetAlso, port))
	mustReach(t, link, endpoint(internetAddr, port))
	mustReach(t, link, endpoint(privateAlso, port))
	mustReach(t, link, endpoint(nameServer, 53))
	mustReach(t, link, endpoint(uplinkAddr, hostPort)) // listed by address and port
	mustNotReach(t, link, endpoint(internetAddr, otherPort))
	mustNotReach(t, link, endpoint(privateAlso, otherPort))
	mustNotReach(t, link, endpoint(metadataAddr, port))
	mustNotReach(t, link, endpoint(uplinkAddr, otherHostPort))
	mustNotReach(t, link, endpoint(link.Gateway(), hostPort))
	mustNotReach(t, unrelated, endpoint(privateAddr, port))
	mustNotReach(t, unrelated, endpoint(internetAddr, port))
	mustNotReach(t, unrelated, endpoint(uplinkAddr, hostPort))
}

func TestListCannotNameOtherEnvironments(t *testing.T) {
	n, _ := openNetwork(t, Options{})
	other := attach(t, n, lull.EgressNone)
	port := serve(t, namespaceOf(t, other), ":0").Port()
	hostPort := serve(t, nil, ":0").Port()
	link := attach(t, n, "0.0.0.0/0", endpoint(other.Addr(), port).String())
	mustNotReach(t, link, endpoint(other.Addr(), port))
	mustNotReach(t, link, endpoint(link.Gateway(), hostPort)) // a network does not list the host
}

func TestNamesAreLookedUpAgain(t *testing.T) {
	world := newWorld(t)
	n, _ := openNetwork(t, Options{})
	port := serve(t, world.namespace, ":0").Port()
	start := time.Now()
	n.names.lookup = fakeLookup(nil)
	link := attach(t, n, "moves.example.com:"+portText(port))
	mustNotReach(t, link, endpoint(internetAddr, port))

	n.names.lookup = fakeLookup(map[string][]netip.Addr{"moves.example.com": {internetAddr}})
	n.refresh(start.Add(nameRefresh))
	mustReach(t, link, endpoint(internetAddr, port))

	n.names.lookup = fakeLookup(map[string][]netip.Addr{"moves.example.com": {internetAlso}})
	n.refresh(start.Add(2 * nameRefresh))
	mustReach(t, link, endpoint(internetAlso, port))
	mustReach(t, link, endpoint(internetAddr, port)) // for a while

	n.refresh(start.Add(2*nameRefresh + nameKeep))
	mustReach(t, link, endpoint(internetAlso, port))
	mustNotReach(t, link, endpoint(internetAddr, port))
}

func TestRestorePutsAddressAndRouteBack(t *testing.T) {
	world := newWorld(t)
	n, _ := openNetwork(t, Options{})
	port := serve(t, world.namespace, ":0").Port()
	link := attach(t, n, lull.EgressInternet)
	must(t, takeAddressAway(t, link))
	if _, err := reach(t, link, endpoint(internetAddr, port), wait); err == nil {
		t.Fatal("the address is still there: the rest of this test is void")
	}
	must(t, link.Restore())
	mustReach(t, link, endpoint(internetAddr, port))
	must(t, link.Restore()) // again does no harm
	mustReach(t, link, endpoint(internetAddr, port))
}

func TestManyAtOnce(t *testing.T) {
	const count = 50
	n, _ := openNetwork(t, Options{})
	links := make([]*Link, count)
	var all sync.WaitGroup
	for i := range links {
		all.Go(func() { links[i] = attach(t, n, lull.EgressInternet) })
	}
	all.Wait()
	addrs := map[netip.Addr]bool{}
	for _, link := range links {
		addrs[link.Addr()] = true
		port := serve(t, namespaceOf(t, link), ":0").Port()
		if _, err := dial(endpoint(link.Addr(), port), wait); err != nil {
			t.Error(err)
		}
	}
	if len(addrs) != count {
		t.Errorf("%d environments share %d addresses", count, len(addrs))
	}
	for _, link := range links[:count/2] { // the rest is for Network.Close
		all.Go(func() {
			if err := link.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

func TestCloseWhileAttaching(t *testing.T) {
	n, _ := openNetwork(t, Options{})
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			link, err := n.Attach(portText(uint16(serial.Add(1))), lull.Egress{lull.EgressInternet})
			if err == nil && link.Restore() == nil {
				_ = link.Close()
			}
		})
	}
	must(t, n.Close()) // and once more at the end of the test, with the look for what is left
	all.Wait()
	if _, err := n.Attach("late", nil); err == nil {
		t.Error("attached to a closed network")
	}
}
