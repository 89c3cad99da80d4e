package process

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestParseSockets(t *testing.T) {
	const text = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1 0 100 0 0 10 0
   1: 00000000:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12346 1 0 100 0 0 10 0
   2: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 12347 1 0 100 0 0 10 0
   0: 00000000000000000000000001000000:1388 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12348 1
   0: 0000000000000000FFFF00000100007F:1389 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12349 1
   0: 01007F:1389 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1
   0: 0100007F:FFFFF 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1
`
	want := []listening{
		{netip.MustParseAddrPort("127.0.0.1:8080"), "12345"},
		{netip.MustParseAddrPort("0.0.0.0:3000"), "12346"},
		{netip.MustParseAddrPort("[::1]:5000"), "12348"},
		{netip.MustParseAddrPort("[::ffff:127.0.0.1]:5001"), "12349"},
	}
	if diff := cmp.Diff(want, parseSockets([]byte(text)), cmp.AllowUnexported(listening{}), cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
		t.Error(diff)
	}
}

func FuzzParseSockets(f *testing.F) {
	f.Add([]byte("0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 12345 1"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, socket := range parseSockets(data) {
			if !socket.addr.IsValid() || socket.inode == "" {
				t.Errorf("%+v from %q", socket, data)
			}
		}
	})
}

const statLine = `4242 (a (b) c) S 1 4240 4239 0 -1 4194560 500 0 0 0 12 3 40 5 20 0 1 0 123456 9000000 250 18446744073709551615 1 1`

func TestParseStat(t *testing.T) {
	got, err := parseStat([]byte(statLine))
	must(t, err)
	got.memory /= 4096 // pages of other sizes exist
	want := member{pid: 4242, group: 4240, memory: got.memory, cpu: 600 * time.Millisecond}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(member{})); diff != "" {
		t.Error(diff)
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte(statLine))
	f.Add([]byte("1 () Z"))
	f.Fuzz(func(t *testing.T, data []byte) { _, _ = parseStat(data) })
}

func TestMark(t *testing.T) {
	one, two := newMark(), newMark()
	if one == two || !one.valid() || !two.valid() {
		t.Errorf("marks are %x and %x", one, two)
	}
	for _, limit := range []mark{0, 1024, 1<<64 - 1} {
		if limit.valid() {
			t.Errorf("the limit %d passes for a mark", limit)
		}
	}
}
