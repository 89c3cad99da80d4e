package network

import (
	"log/slog"
	"net/netip"
	"testing"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/host"
)

// BenchmarkAttach is what a cold start pays for its network: with namespaces kept ready, and without.
func BenchmarkAttach(b *testing.B) {
	for name, ready := range map[string]int{"ready": 64, "made": -1} {
		b.Run(name, func(b *testing.B) {
			n := benchNetwork(b, ready)
			var links []*Link
			for b.Loop() {
				b.StopTimer()
				for len(links) > 32 {
					_ = links[0].Close()
					links = links[1:]
				}
				for ready > 0 && n.wires.short(1) {
				}
				b.StartTimer()
				link, err := n.Attach(portText(uint16(serial.Add(1))), lull.Egress{lull.EgressInternet})
				if err != nil {
					b.Fatal(err)
				}
				links = append(links, link)
			}
		})
	}
}

func BenchmarkRestore(b *testing.B) {
	n := benchNetwork(b, -1)
	link, err := n.Attach("one", lull.Egress{lull.EgressInternet})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := link.Restore(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkClose(b *testing.B) {
	n := benchNetwork(b, -1)
	for b.Loop() {
		b.StopTimer()
		link, err := n.Attach("one", lull.Egress{lull.EgressInternet})
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if err := link.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func benchNetwork(b *testing.B, ready int) *Network {
	slot, err := host.Claim(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	n, err := Open(slot, Options{Ready: ready, NameServers: []netip.Addr{nameServer}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := n.Close(); err != nil {
			b.Error(err)
		}
		_ = slot.Release()
	})
	return n
}
