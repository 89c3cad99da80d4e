package gvisor

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	abi "gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/abi/linux/errno"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/socket"
	"gvisor.dev/gvisor/pkg/sentry/syscalls/linux"
)

// writing are the calls that may find the disk full.
var writing = []string{
	"write", "pwrite64", "writev", "pwritev", "pwritev2", "sendfile", "splice", "fallocate", "ftruncate", "openat", "mkdirat",
	"open", "creat", "mkdir", // not on ARM
}

// patchSyscalls changes six things in the kernel the app sees, by putting wrappers into the sentry's table of system
// calls before it starts: where bind leads (widenBind), how many processes there may be (limitProcesses), who hears
// of a full disk (watchDisk), how long it takes until reading the time is cheap (hastenClock), what an app that slept
// finds first (inputFirst), and how long closed connections are remembered (forgetSooner).
func patchSyscalls(in *inside) error {
	patches := map[string]patch{"bind": in.widenBind, "clock_gettime": in.hastenClock, "listen": in.forgetSooner}
	for _, name := range []string{"clone", "clone3", "fork", "vfork"} {
		patches[name] = in.limitProcesses
	}
	for _, name := range writing {
		patches[name] = in.watchDisk
	}
	for _, name := range []string{"epoll_wait", "epoll_pwait"} {
		patches[name] = inputFirst
	}
	return errors.Join(patchTable(linux.AMD64, patches), patchTable(linux.ARM64, patches))
}

// patch wraps a system call.
type patch func(original kernel.SyscallFn) kernel.SyscallFn

// onlyAMD are the calls that ARM does not have.
var onlyAMD = []string{"fork", "vfork", "open", "creat", "mkdir", "epoll_wait"}

// patchTable wraps the calls of these names.
func patchTable(table *kernel.SyscallTable, patches map[string]patch) error {
	found := map[string]bool{}
	for number, call := range table.Table {
		if wrap, ok := patches[call.Name]; ok {
			call.Fn = wrap(call.Fn)
			table.Table[number] = call
			found[call.Name] = true
		}
	}
	for name := range patches {
		if !found[name] && !slices.Contains(onlyAMD, name) {
			return fmt.Errorf("gVisor has no system call %s to patch", name)
		}
	}
	table.Init() // fills the table for fast lookup again, from the one that was changed
	return nil
}

// widenBind makes a TCP socket that an app binds to loopback listen on every address of its sandbox, so that the
// gateway reaches apps that were written for a laptop (127.0.0.1:3000, ::1). Nobody else can reach a sandbox. Unlike a
// relay or a forwarded port it leaves one connection between gateway and app, which survives what the sandbox survives.
//
// The app sees the difference if it asks for the socket's own name. Where the wildcard address is taken (an app that
// listens on both 127.0.0.1 and ::1, each without knowing of the other) it gets what it asked for.
func (in *inside) widenBind(original kernel.SyscallFn) kernel.SyscallFn {
	return func(t *kernel.Task, sysno uintptr, args arch.SyscallArguments) (uintptr, *kernel.SyscallControl, error) {
		s, done := streamSocket(t, args[0].Int())
		if s == nil {
			return original(t, sysno, args)
		}
		defer done()
		address, err := linux.CaptureAddress(t, args[1].Pointer(), args[2].Uint())
		if err != nil {
			return 0, nil, err
		}
		if wide, asked, ok := widen(address); ok && bindWide(t, s, wide) {
			in.remember(s, asked)
			return 0, nil, nil
		}
		ret, control, err := original(t, sysno, args)
		if err == nil {
			in.remember(s, netip.Addr{})
		}
		return ret, control, err
	}
}

// streamSocket returns the socket of a file number if it is for TCP. done is to be called when it is no longer needed.
func streamSocket(t *kernel.Task, fd int32) (s socket.Socket, done func()) {
	file := t.GetFile(fd)
	if file == nil {
		return nil, nil
	}
	if s, ok := file.Impl().(socket.Socket); ok {
		if family, kind, _ := s.Type(); kind == abi.SOCK_STREAM && (family == abi.AF_INET || family == abi.AF_INET6) {
			return s, func() { file.DecRef(t) }
		}
	}
	file.DecRef(t)
	return nil, nil
}

// bindWide reports whether the socket could be bound to the wildcard address.
func bindWide(t *kernel.Task, s socket.Socket, wide []byte) bool {
	failed := s.Bind(t, wide)
	if failed == nil || failed.ToLinux() != errno.EADDRINUSE || !isInet6(wide) {
		return failed == nil
	}
	// ... by a socket for IPv4, probably the same app's: without IPv4 the two can stand side by side.
	on, off := []byte{1, 0, 0, 0}, []byte{0, 0, 0, 0}
	if s.SetSockOpt(t, abi.SOL_IPV6, abi.IPV6_V6ONLY, on) != nil {
		return false
	}
	if s.Bind(t, wide) == nil {
		return true
	}
	_ = s.SetSockOpt(t, abi.SOL_IPV6, abi.IPV6_V6ONLY, off)
	return false
}

// Layout of the C structures sockaddr_in and sockaddr_in6.
const (
	inetAddr, inetEnd   = 4, 8
	inet6Addr, inet6End = 8, 24
)

func isInet6(address []byte) bool {
	return len(address) >= inet6End && binary.NativeEndian.Uint16(address) == abi.AF_INET6
}

// widen returns the wildcard address of the same family and port if address is on loopback, and what was asked for.
// ::ffff:127.0.0.1 is IPv4 in the form of IPv6 and becomes ::.
func widen(address []byte) (wide []byte, asked netip.Addr, ok bool) {
	start, end := inetAddr, inetEnd
	switch {
	case isInet6(address):
		start, end = inet6Addr, inet6End
	case len(address) < inetEnd || binary.NativeEndian.Uint16(address) != abi.AF_INET:
		return nil, netip.Addr{}, false
	}
	asked, _ = netip.AddrFromSlice(address[start:end])
	if !asked.Unmap().IsLoopback() {
		return nil, netip.Addr{}, false
	}
	wide = bytes.Clone(address)
	clear(wide[start:end])
	return wide, asked, true
}

// watchDisk tells the node when the app finds its disk full, which is otherwise between the app and its error message.
func (in *inside) watchDisk(original kernel.SyscallFn) kernel.SyscallFn {
	return func(t *kernel.Task, sysno uintptr, args arch.SyscallArguments) (uintptr, *kernel.SyscallControl, error) {
		n, control, err := original(t, sysno, args)
		if err != nil && linuxerr.Equals(linuxerr.ENOSPC, err) {
			in.refused(tellFull)
		}
		return n, control, err
	}
}

// limitProcesses refuses a new process or thread, as a cgroup would, while there are as many as there may be. The cgroup around the sandbox
// cannot do it: it counts the sentry's threads as well, and when those are refused the sentry dies.
func (in *inside) limitProcesses(original kernel.SyscallFn) kernel.SyscallFn {
	return func(t *kernel.Task, sysno uintptr, args arch.SyscallArguments) (uintptr, *kernel.SyscallControl, error) {
		if limit := int(in.processes.Load()); limit > 0 && t.Kernel().RootPIDNamespace().NumTasks() >= limit {
			in.refused(tellRefused)
			return 0, nil, linuxerr.EAGAIN
		}
		return original(t, sysno, args)
	}
}
