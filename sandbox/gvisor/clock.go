package gvisor

import (
	"reflect"
	"time"
	"unsafe"

	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
)

// clockBaseline is how far apart the two readings of the host's clock must be, that gVisor learns from how fast the
// processor's counter runs. A reading is exact to some 100 ns: 10 ms make that 10 ppm, which is corrected a second later.
const clockBaseline = 10 * time.Millisecond

// hastenClock makes the app's clock cheap from the start. An app reads the time without entering the kernel, from the
// processor's counter, once gVisor knows how fast that runs; it takes the second reading it needs for that a full second
// after the first. Until then every clock_gettime is a system call, of which Node makes thousands until its first
// response: a fifth of the processor time that takes. So the first call that does come makes gVisor take the reading.
func (in *inside) hastenClock(original kernel.SyscallFn) kernel.SyscallFn {
	return func(t *kernel.Task, sysno uintptr, args arch.SyscallArguments) (uintptr, *kernel.SyscallControl, error) {
		if !in.hastened.Load() && time.Since(in.began) > clockBaseline && in.hastened.CompareAndSwap(false, true) {
			go readClock(t.Kernel().Timekeeper()) // ends by itself; nobody depends on it
		}
		return original(t, sysno, args)
	}
}

// readClock makes the timekeeper take a reading: it does when it resumes.
func readClock(keeper *kernel.Timekeeper) {
	if page := parameterPage(keeper); page != nil {
		keeper.Pause()
		keeper.Resume(page)
	}
}

// parameterPage returns what Resume wants, the page that the app reads, which the timekeeper knows but does not tell.
// It is nil if gVisor has changed: then clocks are as slow as they were.
func parameterPage(keeper *kernel.Timekeeper) *kernel.VDSOParamPage {
	field := reflect.ValueOf(keeper).Elem().FieldByName("params")
	if !field.IsValid() || field.Type() != reflect.TypeFor[*kernel.VDSOParamPage]() {
		return nil
	}
	return *(**kernel.VDSOParamPage)(unsafe.Pointer(field.UnsafeAddr()))
}
