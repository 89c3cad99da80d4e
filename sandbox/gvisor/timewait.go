package gvisor

import (
	"time"

	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/socket/netstack"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// timeWait is how long a connection that the app closed first is remembered (RFC 9293, 3.6.1). gVisor's minute begins
// anew with every wake, so that an app which sleeps more often than that would never forget one: they would become more
// and more, and each swallows those of the gateway's calls that come from the same port and happen to begin with a lower
// sequence number (a call is made with one that rises over 274 s, then begins again). Between gateway and sandbox nothing
// arrives late; this is for the last word of a connection with the outside, which may be lost and asked for again.
const timeWait = 2 * time.Second

// forgetSooner sets timeWait when the app listens for the first time. It is part of snapshots.
func (in *inside) forgetSooner(original kernel.SyscallFn) kernel.SyscallFn {
	return func(t *kernel.Task, sysno uintptr, args arch.SyscallArguments) (uintptr, *kernel.SyscallControl, error) {
		in.listens.Do(func() {
			if network, ok := t.Kernel().RootNetworkNamespace().Stack().(*netstack.Stack); ok {
				wait := tcpip.TCPTimeWaitTimeoutOption(timeWait)
				_ = network.Stack.SetTransportProtocolOption(tcp.ProtocolNumber, &wait) // TCP knows the option
			}
		})
		return original(t, sysno, args)
	}
}
