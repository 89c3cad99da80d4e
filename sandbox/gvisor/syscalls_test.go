package gvisor

import (
	"encoding/binary"
	"net/netip"
	"testing"

	abi "gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/syscalls/linux"
)

// sockaddr is the C structure for an address.
func sockaddr(addr netip.AddrPort) []byte {
	family, ip := uint16(abi.AF_INET), addr.Addr().AsSlice()
	if addr.Addr().Is6() {
		family = abi.AF_INET6
	}
	raw := binary.NativeEndian.AppendUint16(nil, family)
	raw = binary.BigEndian.AppendUint16(raw, addr.Port())
	if addr.Addr().Is6() {
		raw = append(raw, 0, 0, 0, 0) // flow
		return append(append(raw, ip...), 0, 0, 0, 0)
	}
	return append(append(raw, ip...), make([]byte, 8)...)
}

func TestWiden(t *testing.T) {
	for asked, want := range map[string]string{
		"127.0.0.1:3000":         "0.0.0.0:3000",
		"127.8.9.1:1":            "0.0.0.0:1",
		"[::1]:5000":             "[::]:5000",
		"[::ffff:127.0.0.1]:80":  "[::]:80",
		"0.0.0.0:80":             "",
		"[::]:80":                "",
		"10.0.0.1:80":            "",
		"[fe80::1]:80":           "",
		"[::ffff:10.0.0.1]:9000": "",
	} {
		wide, addr, ok := widen(sockaddr(netip.MustParseAddrPort(asked)))
		if ok != (want != "") {
			t.Errorf("%s: widened is %v", asked, ok)
			continue
		}
		if ok && string(wide) != string(sockaddr(netip.MustParseAddrPort(want))) {
			t.Errorf("%s: got % x", asked, wide)
		}
		if ok && addr != netip.MustParseAddrPort(asked).Addr() {
			t.Errorf("%s: asked for %s", asked, addr)
		}
	}
}

// What an app passes to bind is whatever it likes.
func FuzzWiden(f *testing.F) {
	f.Add([]byte{})
	f.Add(sockaddr(netip.MustParseAddrPort("127.0.0.1:80")))
	f.Add(sockaddr(netip.MustParseAddrPort("[::1]:80"))[:20])
	f.Fuzz(func(t *testing.T, raw []byte) {
		wide, asked, ok := widen(raw)
		if !ok {
			return
		}
		if len(wide) != len(raw) || !asked.Unmap().IsLoopback() {
			t.Errorf("% x became % x (%s)", raw, wide, asked)
		}
		if _, _, again := widen(wide); again {
			t.Errorf("% x is not wide", wide)
		}
	})
}

// The names of the system calls are gVisor's: an update may change them.
func TestSyscallTables(t *testing.T) {
	for name, table := range map[string]*kernel.SyscallTable{"amd64": linux.AMD64, "arm64": linux.ARM64} {
		before := map[uintptr]kernel.Syscall{}
		for number, call := range table.Table {
			before[number] = call
		}
		wrapped := map[string]bool{}
		count := func(original kernel.SyscallFn) kernel.SyscallFn { return original }
		patches := map[string]patch{}
		for _, call := range []string{"bind", "clone", "clone3", "fork", "vfork"} {
			patches[call] = func(original kernel.SyscallFn) kernel.SyscallFn {
				wrapped[call] = true
				return count(original)
			}
		}
		if err := patchTable(table, patches); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !wrapped["bind"] || !wrapped["clone"] || !wrapped["clone3"] {
			t.Errorf("%s: only %v are patched", name, wrapped)
		}
		if err := patchTable(table, map[string]patch{"no-such-call": count}); err == nil {
			t.Errorf("%s: a call that does not exist was patched", name)
		}
		for number, call := range before {
			table.Table[number] = call
		}
		table.Init()
	}
}
