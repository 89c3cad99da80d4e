package wire

import (
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

const canPark = true

// Poller watches connections on which nothing moves, for those who do not want to keep a goroutine waiting at each. The
// zero value is ready. It runs one goroutine, which the first Park starts and which Close ends and waits for.
type Poller struct {
	mu      sync.Mutex // guards what follows
	epoll   *os.File   // nil before the first Park and after Close
	raw     syscall.RawConn
	next    uint64
	waiting map[uint64]func()
	run     sync.WaitGroup
}

// Ticket stands for a connection that is parked.
type Ticket uint64

// Park calls ready once, as soon as there is something to read on c, an end included; or, with hangup, only when the far
// side has closed or the connection is broken. ready must not wait: it starts a goroutine at most. A connection that is
// closed from this side is forgotten without a call.
func (p *Poller) Park(c *Conn, hangup bool, ready func()) (Ticket, error) {
	if c.direct == nil {
		return 0, ErrNoSocket
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.start(); err != nil {
		return 0, err
	}
	p.next++
	event := unix.EpollEvent{Events: unix.EPOLLONESHOT | unix.EPOLLRDHUP, Fd: int32(p.next), Pad: int32(p.next >> 32)}
	if !hangup {
		event.Events |= unix.EPOLLIN
	}
	if err := p.register(c, &event); err != nil {
		return 0, err
	}
	p.waiting[p.next] = ready
	return Ticket(p.next), nil
}

func (p *Poller) register(c *Conn, event *unix.EpollEvent) (err error) {
	operation := unix.EPOLL_CTL_ADD
	if c.polled {
		operation = unix.EPOLL_CTL_MOD
	}
	gone := p.raw.Control(func(epoll uintptr) {
		gone := c.direct.Control(func(fd uintptr) { err = unix.EpollCtl(int(epoll), operation, int(fd), event) })
		if err == nil {
			err = gone
		}
	})
	if gone != nil {
		return gone
	}
	c.polled = c.polled || err == nil
	return err
}

// Forget takes a connection back. It reports false if ready is being called, or was.
func (p *Poller) Forget(t Ticket) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, there := p.waiting[uint64(t)]
	delete(p.waiting, uint64(t))
	return there
}

func (p *Poller) start() error {
	if p.epoll != nil {
		return nil
	}
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	unix.SetNonblock(fd, true) // so that the runtime's own poller takes it, and no thread waits
	p.epoll = os.NewFile(uintptr(fd), "epoll")
	if p.raw, err = p.epoll.SyscallConn(); err != nil {
		return err
	}
	p.waiting = map[uint64]func(){}
	raw := p.raw
	p.run.Go(func() { p.watch(raw) })
	return nil
}

func (p *Poller) watch(raw syscall.RawConn) {
	var events [128]unix.EpollEvent
	for {
		n := 0
		err := raw.Read(func(epoll uintptr) bool {
			n, _ = unix.EpollWait(int(epoll), events[:], 0)
			return n > 0
		})
		if err != nil {
			return
		}
		for _, event := range events[:n] {
			if ready := p.take(uint64(uint32(event.Fd)) | uint64(uint32(event.Pad))<<32); ready != nil {
				ready()
			}
		}
	}
}

func (p *Poller) take(ticket uint64) func() {
	p.mu.Lock()
	defer p.mu.Unlock()
	ready := p.waiting[ticket]
	delete(p.waiting, ticket)
	return ready
}

// Close forgets all connections. It must not be called by ready.
func (p *Poller) Close() {
	p.mu.Lock()
	if p.epoll != nil {
		p.epoll.Close()
	}
	p.epoll, p.waiting = nil, nil
	p.mu.Unlock()
	p.run.Wait()
}
