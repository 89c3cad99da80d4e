package gvisor

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// pidfd is a process, which its number is only until it has been waited for. Its methods may be called concurrently and
// after close, and then do nothing.
type pidfd struct {
	mu   sync.RWMutex // held for reading while fd is used
	fd   int
	open bool
}

func (p *pidfd) take(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("watch process %d: %w", pid, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fd, p.open = fd, true
	return nil
}

func (p *pidfd) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.open {
		return nil
	}
	p.open = false
	return unix.Close(p.fd)
}

func (p *pidfd) kill() {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.open {
		_ = unix.PidfdSendSignal(p.fd, unix.SIGKILL, nil, 0)
	}
}

// ends reports whether the process has ended, or ends within this time.
func (p *pidfd) ends(within time.Duration) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if !p.open {
		return true
	}
	n, _ := unix.Poll([]unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}, int(within.Milliseconds()))
	return n > 0
}
