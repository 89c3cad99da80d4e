package gvisor

import (
	"context"
	"time"

	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/ktime"
	"gvisor.dev/gvisor/pkg/sentry/syscalls/linux"
	"gvisor.dev/gvisor/pkg/state"
)

// inputFirst has an app see what has come in before it sees that time is over. gVisor ends a call of epoll that waits, with
// EINTR, when the app is paused. Once it goes on the app would find its time to be up, run its timers without another look,
// and miss a client's answer that has been there all along. So the call is begun again where it was left when the app
// goes on: it then finds what there is, and otherwise waits for as long as is left.
func inputFirst(original kernel.SyscallFn) kernel.SyscallFn {
	return func(t *kernel.Task, sysno uintptr, args arch.SyscallArguments) (uintptr, *kernel.SyscallControl, error) {
		timeout := args[3].Int() // in milliseconds
		masked := args[4].Pointer() != 0 && args[5].SizeT() != 0
		if timeout <= 0 || masked && sysno != epollWaitNumber {
			return original(t, sysno, args)
		}
		began := t.Kernel().MonotonicClock().Now()
		n, control, err := original(t, sysno, args)
		switch {
		case n != 0 || control != nil:
		case err == nil: // as Linux does, it looks once more
			args[3].Value = 0
			return linux.EpollWait(t, sysno, args)
		case linuxerr.Equals(linuxerr.ErrInterrupted, err):
			t.SetSyscallRestartBlock(&epollAgain{
				poll: args[0].Int(), events: args[1].Pointer(), most: args[2].Int(),
				until: began.Add(time.Duration(timeout) * time.Millisecond).Nanoseconds(),
			})
			return 0, nil, linuxerr.ERESTART_RESTARTBLOCK // EINTR if it was a signal after all
		}
		return n, control, err
	}
}

// epollWaitNumber is epoll_wait's on x86-64, the only processor that has it. It has four arguments, not six.
const epollWaitNumber = 232

// epollAgain is an interrupted call of epoll. It is part of a snapshot that is taken meanwhile.
type epollAgain struct {
	poll   int32
	events hostarch.Addr
	most   int32
	until  int64 // on the app's monotonic clock, in nanoseconds
}

// Restart implements kernel.SyscallRestartBlock.
func (e *epollAgain) Restart(t *kernel.Task) (uintptr, error) {
	left := ktime.FromNanoseconds(e.until).Sub(t.Kernel().MonotonicClock().Now())
	timeout := max(0, (left+time.Millisecond-1)/time.Millisecond)
	args := arch.SyscallArguments{{Value: uintptr(e.poll)}, {Value: uintptr(e.events)}, {Value: uintptr(e.most)}, {Value: uintptr(timeout)}}
	n, _, err := linux.EpollWait(t, epollWaitNumber, args)
	if n == 0 && linuxerr.Equals(linuxerr.ErrInterrupted, err) {
		t.SetSyscallRestartBlock(e)
		return 0, linuxerr.ERESTART_RESTARTBLOCK
	}
	return n, err
}

func init() { state.Register((*epollAgain)(nil)) }

// StateTypeName is part of state.Type.
func (*epollAgain) StateTypeName() string { return "lull.epollAgain" }

// StateFields is part of state.Type.
func (*epollAgain) StateFields() []string { return []string{"poll", "events", "most", "until"} }

// StateSave is part of state.SaverLoader.
func (e *epollAgain) StateSave(to state.Sink) {
	to.Save(0, &e.poll)
	to.Save(1, &e.events)
	to.Save(2, &e.most)
	to.Save(3, &e.until)
}

// StateLoad is part of state.SaverLoader.
func (e *epollAgain) StateLoad(_ context.Context, from state.Source) {
	from.Load(0, &e.poll)
	from.Load(1, &e.events)
	from.Load(2, &e.most)
	from.Load(3, &e.until)
}
