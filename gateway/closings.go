package gateway

import (
	"sync"
	"time"
)

// WebSocket close codes that Lull sends itself.
const (
	closeGoingAway uint16 = 1001 // the environment is being stopped or replaced
	closeRestart   uint16 = 1012 // the node is
)

// ender is a stream that can be asked to end. It is told in passing and must not wait.
type ender interface {
	end(code uint16)
}

// closings asks streams to end when their environment wants it. All of them are looked after by one goroutine that looks
// every closingTick: a goroutine waiting for each would cost ten thousand quiet streams 20 MB, a look at all of them well
// under a millisecond. The goroutine runs while there are streams; it is started by join, ended by the last leave, and
// wait waits for it.
type closings struct {
	mu      sync.Mutex
	members map[ender]<-chan struct{}
	running bool
	watch   sync.WaitGroup
}

const closingTick = 200 * time.Millisecond

func (c *closings) join(e ender, closing <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.members == nil {
		c.members = map[ender]<-chan struct{}{}
	}
	c.members[e] = closing
	if !c.running {
		c.running = true
		c.watch.Go(c.run)
	}
}

func (c *closings) leave(e ender) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.members, e)
}

func (c *closings) run() {
	ticker := time.NewTicker(closingTick)
	defer ticker.Stop()
	for range ticker.C {
		asked, left := c.due()
		for _, e := range asked {
			e.end(closeGoingAway)
		}
		if !left {
			return
		}
	}
}

// due takes out the streams that are to end.
func (c *closings) due() (asked []ender, left bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for e, closing := range c.members {
		select {
		case <-closing:
			asked = append(asked, e)
			delete(c.members, e)
		default:
		}
	}
	c.running = len(c.members) > 0
	return asked, c.running
}

func (c *closings) endAll(code uint16) {
	c.mu.Lock()
	all := make([]ender, 0, len(c.members))
	for e := range c.members {
		all = append(all, e)
	}
	c.mu.Unlock()
	for _, e := range all {
		e.end(code)
	}
}

func (c *closings) wait() { c.watch.Wait() }
