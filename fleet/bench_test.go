package fleet_test

import (
	"testing"

	"github.com/lull-dev/lull/fleet"
	"github.com/lull-dev/lull/sandbox/sandboxtest"
)

// BenchmarkPlace is what the fleet adds to a warm exchange.
func BenchmarkPlace(b *testing.B) {
	fake := sandboxtest.NewFake(map[string]sandboxtest.Program{"app": sandboxtest.HTTP(hello)})
	defer fake.Close()
	f := fleet.New(fleet.Config{App: "chat", Driver: fake, Prepare: prepare})
	defer f.Close(0)
	f.Use(release(1, "app"))
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			p, err := f.Acquire(b.Context(), fleet.Want{Why: "GET /"})
			if err != nil {
				b.Fatal(err)
			}
			p.Free()
		}
	})
}
