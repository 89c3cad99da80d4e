package gvisor

import (
	"encoding/json"
	"iter"
	"net/netip"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/gomaxprocs"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/platform"
	"gvisor.dev/gvisor/pkg/sentry/socket/netstack"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// What the sentry's end of the line needs for an app that comes from a snapshot.

// watchKernel makes in know the kernel the app sees. Nothing in gVisor leads to it, but the platform is told of it with
// every task that is made, which in a restored kernel is before any of them runs. So a platform is put in front of
// gVisor's own that looks at that and passes everything on.
func watchKernel(in *inside) error {
	original, err := platform.Lookup(platformName)
	if err != nil {
		return err
	}
	platform.Register(platformName, watchedConstructor{original, in})
	return nil
}

// platformName is gVisor's default.
const platformName = "systrap"

type watchedConstructor struct {
	platform.Constructor
	in *inside
}

// New makes the platform.
func (c watchedConstructor) New(opts platform.Options) (platform.Platform, error) {
	c.in.signals.Do(func() { go takeSignals() })
	original, err := c.Constructor.New(opts)
	if err != nil {
		return nil, err
	}
	return watchedPlatform{original, c.in}, nil
}

// takeSignals does ahead what gVisor does as the last thing before the app runs: it asks for every signal, each of which
// has Go wait for a thread to be scheduled, 14 ms in all. For one that has been asked for before it does not wait. It
// begins once the sentry has given up its privileges, which with more threads would take longer.
func takeSignals() {
	for number := unix.Signal(1); number < 34; number++ { // 33 is as far as gVisor goes
		switch number {
		case unix.SIGURG, unix.SIGPIPE, unix.SIGCHLD, unix.SIGKILL, unix.SIGSTOP: // those it leaves alone, or cannot have
		default:
			signal.Notify(make(chan os.Signal, 1), number) // nobody listens: gVisor's own channel gets them as well
		}
	}
}

type watchedPlatform struct {
	platform.Platform
	in *inside
}

// NewContext is called for every new task.
func (p watchedPlatform) NewContext(ctx context.Context) platform.Context {
	if k := kernel.KernelFromContext(ctx); k != nil {
		p.in.kernel.Store(k)
		p.in.threads.Do(addThreads)
	}
	return p.Platform.NewContext(ctx)
}

// addThreads lets more of the sentry's goroutines run side by side for a moment. Go lets as many as the app has
// processors, and one that waits in a system call counts until a monitor notices, which when nothing happened for a while
// looks every 10 ms. With two processors a wake came to stand still for that long, on average for 8 ms: everything
// waited for the goroutine that accepts control connections. Later on it would cost processor time.
func addThreads() {
	const more, whileStarting = 4, time.Second
	gomaxprocs.Add(more)
	time.AfterFunc(whileStarting, func() { gomaxprocs.Add(-more) })
}

// widened is a port that the app bound to a narrower address than it got: see widenBind.
type widened struct {
	Inet6 bool       `json:"inet6,omitempty"`
	Port  uint16     `json:"port"`
	Asked netip.Addr `json:"asked"`
}

// widened answers askWider, in JSON.
func (in *inside) widened() string {
	in.mu.Lock()
	defer in.mu.Unlock()
	all := []widened{}
	for port, asked := range in.wider {
		all = append(all, widened{port.inet6, port.port, asked})
	}
	text, _ := json.Marshal(all)
	return string(text)
}

// cut ends the app's TCP connections with the outside, as if the far side had reset them. Those of the app with itself
// go on, and so do its listeners.
func (in *inside) cut() {
	for endpoint := range in.connections() {
		endpoint.Abort()
	}
}

// unread counts the connections with the outside on which something has come in that the app has not read.
func (in *inside) unread() (count int) {
	for endpoint := range in.connections() {
		if n, err := endpoint.GetSockOptInt(tcpip.ReceiveQueueSizeOption); err == nil && n > 0 {
			count++
		}
	}
	return count
}

// connections goes through the app's TCP connections with the outside.
func (in *inside) connections() iter.Seq[*tcp.Endpoint] {
	return func(yield func(*tcp.Endpoint) bool) {
		k := in.kernel.Load()
		if k == nil {
			return
		}
		network, ok := k.RootNetworkNamespace().Stack().(*netstack.Stack)
		if !ok {
			return
		}
		for _, each := range network.Stack.RegisteredEndpoints() {
			endpoint, ok := each.(*tcp.Endpoint)
			if !ok || !isConnected(endpoint.EndpointState()) {
				continue
			}
			if far, err := endpoint.GetRemoteAddress(); err == nil && !isLoopback(far.Addr) && !yield(endpoint) {
				return
			}
		}
	}
}

// isConnected leaves out those that do not know their far side yet, and those that have left it behind.
func isConnected(state tcp.EndpointState) bool {
	switch state {
	case tcp.StateEstablished, tcp.StateCloseWait, tcp.StateFinWait1, tcp.StateFinWait2, tcp.StateClosing, tcp.StateLastAck:
		return true
	}
	return false
}

func isLoopback(addr tcpip.Address) bool {
	ip, ok := netip.AddrFromSlice(addr.AsSlice())
	return ok && ip.Unmap().IsLoopback()
}
