package gateway

import (
	"sync"
	"time"

	"github.com/lull-dev/lull/gateway/wire"
)

// presence notices that a client goes while nothing is read from it. An exchange that is over in a moment, as most are,
// costs a timer that is set and stopped; only a longer one costs a goroutine:
//
//	off ──watch──▶ armed ──a moment──▶ looking       (in the timer's goroutine)
//	                 └────handOver──▶ lent ──here──▶ looking   (in the goroutine that has read the body)
//	any ──stop──▶ off                                (and waits for the looking to end)
//
// A client that closes only its sending half counts as gone, as everywhere.
type presence struct {
	conn *wire.Conn

	mu    sync.Mutex
	state presenceState
	x     *exchange // is told
	timer *time.Timer
	done  chan struct{} // closed when the looking has ended
}

type presenceState uint8

const (
	off presenceState = iota
	armed
	lent
	looking
)

const aMoment = 50 * time.Millisecond

// watch begins. x.clientGone is called at most once, and not after stop has returned.
func (p *presence) watch(x *exchange) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state, p.x = armed, x
	if p.timer == nil {
		p.timer = time.AfterFunc(aMoment, func() { p.look(armed) })
	} else {
		p.timer.Reset(aMoment)
	}
}

// handOver leaves the connection to the goroutine that reads the body. It is not called after stop.
func (p *presence) handOver() { p.leave(lent) }

// here looks in the goroutine that calls it, until stop.
func (p *presence) here() { p.look(lent) }

// stop ends the watch and waits until nobody looks. It may be called again.
func (p *presence) stop() { p.leave(off) }

func (p *presence) leave(next presenceState) {
	p.mu.Lock()
	state, done := p.state, p.done
	p.state = next
	if next == off {
		p.x = nil
	}
	switch state {
	case armed:
		p.timer.Stop()
	case looking:
		p.conn.Interrupt()
	}
	p.mu.Unlock()
	if state == looking {
		<-done
	}
}

func (p *presence) look(want presenceState) {
	p.mu.Lock()
	if p.state != want {
		p.mu.Unlock()
		return
	}
	done, x := make(chan struct{}), p.x
	p.state, p.done = looking, done
	p.conn.ReadWithin(0) // under the lock: an interruption comes after it
	p.mu.Unlock()

	defer close(done)
	if p.conn.AwaitHangup() == nil {
		x.clientGone()
	}
}
