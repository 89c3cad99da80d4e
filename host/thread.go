package host

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Elsewhere runs fn on a thread whose network namespace fn may change, and brings the thread back. Sockets that fn opens
// stay in the namespace they were opened in; goroutines that it starts are not in it. If the thread cannot be brought
// back it ends with its goroutine, instead of going on to serve others in the wrong namespace; threads that the runtime
// starts meanwhile are not cloned from it.
func Elsewhere(fn func() error) error {
	result := make(chan error, 1)
	go func() { // ends by itself; the receive below waits for it
		runtime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			runtime.UnlockOSThread()
			result <- err
			return
		}
		err = fn()
		back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET)
		_ = home.Close()
		if back == nil {
			runtime.UnlockOSThread()
		} else {
			back = fmt.Errorf("return from network namespace: %w", back)
		}
		result <- errors.Join(err, back)
	}()
	return <-result
}
