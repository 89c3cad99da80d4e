package gvisor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	abi "gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/socket"
)

// inside is the sentry's end of the line, and what this package keeps there: it lives in the sandbox's process, beside
// gVisor's kernel. Behind gVisor's seccomp filter it may do no more than read and write the line.
type inside struct {
	line   int
	kernel atomic.Pointer[kernel.Kernel] // known before the first task runs: see watchKernel

	began    time.Time   // no later than gVisor's first reading of the clock, and not much earlier
	hastened atomic.Bool // see hastenClock

	processes atomic.Int64 // see limitProcesses

	signals sync.Once // takeSignals
	threads sync.Once // addThreads
	listens sync.Once // forgetSooner

	talk sync.Mutex // held while a line is written

	mu    sync.Mutex           // guards what follows
	told  map[string]time.Time // when the node was last told of a refusal, by the word for it
	wider map[boundPort]netip.Addr
}

// boundPort is a port of the sandbox, with IPv4 and IPv6 apart.
type boundPort struct {
	inet6 bool
	port  uint16
}

// callNode connects the line and starts its reader, which ends this process when the node ends, however that ends. (A
// parent-death signal would do for that, if it were not bound to the thread that started the child.) All that belongs
// to the sandbox goes along: the sentry is the first in its process namespace, and the gofer ends with its connections.
func callNode(bundle string, errand errand) (*inside, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("call the node: %w", err)
	}
	if err := withShortPath(bundle, lineFile, func(addr unix.Sockaddr) error { return unix.Connect(fd, addr) }); err != nil {
		return nil, fmt.Errorf("call the node: %w", err)
	}
	in := &inside{line: fd, told: map[string]time.Time{}, wider: map[boundPort]netip.Addr{}, began: time.Now()}
	in.take(errand)
	go in.runLine()
	return in, nil
}

// runLine answers the node. It lives as long as the process.
func (in *inside) runLine() {
	var question [1]byte
	for {
		n, err := unix.Read(in.line, question[:])
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil || n == 0:
			os.Exit(1)
		case question[0] == askListeners:
			in.tell(tellAnswer + in.listeners())
		case question[0] == askWider:
			in.tell(tellAnswer + " " + in.widened())
		case question[0] == askCut:
			in.cut()
			in.tell(tellAnswer)
		case question[0] == askUnread:
			in.tell(fmt.Sprintf("%s %d", tellAnswer, in.unread()))
		case question[0] == askAdopt:
			if err := in.adopt(); err != nil {
				os.Exit(1)
			}
			in.tell(tellAnswer)
		}
	}
}

// tell writes a line, whole: one at a time.
func (in *inside) tell(text string) {
	in.talk.Lock()
	defer in.talk.Unlock()
	for data := []byte(text + "\n"); len(data) > 0; {
		n, err := unix.Write(in.line, data)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		data = data[max(n, 0):]
	}
}

// refused tells the node what the app was refused, not more often than once in a second.
func (in *inside) refused(what string) {
	in.mu.Lock()
	told := time.Since(in.told[what]) < time.Second
	if !told {
		in.told[what] = time.Now()
	}
	in.mu.Unlock()
	if !told {
		in.tell(what)
	}
}

// listeners lists the sockets of the app that listen, each with a space before it.
func (in *inside) listeners() string {
	var text strings.Builder
	in.sockets(func(s socket.Socket) {
		if addr, ok := in.listening(s); ok {
			fmt.Fprint(&text, " ", addr)
		}
	})
	return text.String()
}

// sockets calls fn for each of the app's sockets.
func (in *inside) sockets(fn func(socket.Socket)) {
	k := in.kernel.Load()
	if k == nil {
		return // no task yet, so there are none
	}
	ctx := k.SupervisorContext()
	for _, record := range k.ListSockets() {
		if !record.Sock.TryIncRef() {
			continue // it is just being closed
		}
		if s, ok := record.Sock.Impl().(socket.Socket); ok {
			fn(s)
		}
		record.Sock.DecRef(ctx)
	}
}

// listening returns the address of a TCP socket that listens, as the app bound it.
func (in *inside) listening(s socket.Socket) (netip.AddrPort, bool) {
	family, kind, _ := s.Type()
	if kind != abi.SOCK_STREAM || family != abi.AF_INET && family != abi.AF_INET6 || s.State() != abi.TCP_LISTEN {
		return netip.AddrPort{}, false
	}
	name, _, err := s.GetSockName(nil) // netstack's sockets need no task for it
	if err != nil {
		return netip.AddrPort{}, false
	}
	addr, ok := addrOf(name)
	if !ok {
		return netip.AddrPort{}, false
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if asked, ok := in.wider[boundPort{addr.Addr().Is6(), addr.Port()}]; ok && addr.Addr().IsUnspecified() {
		addr = netip.AddrPortFrom(asked, addr.Port())
	}
	return addr, true
}

func addrOf(name abi.SockAddr) (netip.AddrPort, bool) {
	switch name := name.(type) {
	case *abi.SockAddrInet:
		return netip.AddrPortFrom(netip.AddrFrom4(name.Addr), hostOrder(name.Port)), true
	case *abi.SockAddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(name.Addr), hostOrder(name.Port)), true
	}
	return netip.AddrPort{}, false
}

func hostOrder(port uint16) uint16 {
	var raw [2]byte
	binary.NativeEndian.PutUint16(raw[:], port)
	return binary.BigEndian.Uint16(raw[:])
}

// remember notes what the app asked for when its socket was bound wider, or forgets it if it got what it asked for.
func (in *inside) remember(s socket.Socket, asked netip.Addr) {
	name, _, err := s.GetSockName(nil)
	if err != nil {
		return
	}
	bound, ok := addrOf(name)
	if !ok {
		return
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	key := boundPort{bound.Addr().Is6(), bound.Port()}
	if asked.IsValid() {
		in.wider[key] = asked
	} else {
		delete(in.wider, key)
	}
}
