package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// crowd is all clients, and what they have counted together.
type crowd struct {
	options
	began   time.Time
	clients []*client
	leaving atomic.Bool // what ends from now on ends because of us
	reading sync.WaitGroup

	open       atomic.Int64
	reconnects atomic.Int64
	messages   atomic.Int64
	bytes      atomic.Int64
	pings      atomic.Int64
	pongs      atomic.Int64
	heardPings atomic.Int64 // of the server
	late       atomic.Int64 // pings that had no pong when the next one was due
	slowest    atomic.Int64 // nanoseconds from a ping to its pong
	mark       atomic.Int64 // number of the mark, from 1

	mu     sync.Mutex // guards what follows
	marked counts     // at the mark
	closes map[string]int
}

// counts are the counters that a mark sets back.
type counts struct{ messages, pings, pongs, heardPings int64 }

func newCrowd(opts options) *crowd {
	c := &crowd{options: opts, began: time.Now(), closes: map[string]int{}}
	c.mark.Store(1)
	for i := range opts.clients {
		cl := &client{crowd: c}
		if len(opts.from) > 0 {
			cl.from = opts.from[i%len(opts.from)]
		}
		c.clients = append(c.clients, cl)
	}
	return c
}

// gather connects all clients.
func (c *crowd) gather(ctx context.Context) error {
	next := make(chan *client)
	connecting, failed := errgroup.WithContext(ctx)
	for range min(c.parallel, len(c.clients)) {
		connecting.Go(func() error {
			for cl := range next {
				if err := cl.connect(failed); err != nil {
					return err
				}
				c.reading.Go(func() { cl.live(ctx) })
			}
			return nil
		})
	}
	for _, cl := range c.clients {
		select {
		case next <- cl:
		case <-failed.Done():
		}
	}
	close(next)
	if err := connecting.Wait(); err != nil {
		connected := c.open.Load()
		c.leave()
		return fmt.Errorf("connect after %d clients: %w", connected, err)
	}
	return ctx.Err()
}

// leave closes all connections and waits for their readers.
func (c *crowd) leave() {
	c.leaving.Store(true)
	for _, cl := range c.clients {
		cl.hangUp()
	}
	c.reading.Wait()
}

// pingForever lets each client send a ping once an interval, spread evenly over it, until ctx ends.
func (c *crowd) pingForever(ctx context.Context) {
	const beats = 50 // an interval has so many moments at which some clients ping
	beat := time.NewTicker(c.ping / beats)
	defer beat.Stop()
	for at := 0; ; at = (at + 1) % beats {
		select {
		case <-ctx.Done():
			return
		case <-beat.C:
		}
		for i := at; i < len(c.clients); i += beats {
			c.clients[i].ping()
		}
	}
}

// obey carries out one order.
func (c *crowd) obey(order string) error {
	word, text, _ := strings.Cut(order, " ")
	switch word {
	case "report":
	case "mark":
		c.setMark()
	case "say":
		for _, cl := range c.clients {
			if cl.connected() {
				return cl.say(text)
			}
		}
		return errors.New("no client is connected")
	case "say-all":
		var errs []error
		for _, cl := range c.clients {
			if err := cl.say(text); err != nil && len(errs) < 3 {
				errs = append(errs, err)
			}
		}
		return errors.Join(errs...)
	default:
		return fmt.Errorf("there is no order %q", word)
	}
	return nil
}

func (c *crowd) setMark() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mark.Add(1)
	c.marked = c.counts()
}

func (c *crowd) counts() counts {
	return counts{c.messages.Load(), c.pings.Load(), c.pongs.Load(), c.heardPings.Load()}
}

// closed notes how a connection ended.
func (c *crowd) closed(how string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closes[how]++
}

// Report is what a crowd has counted. Fields are only ever added.
type Report struct {
	Clients    int            `json:"clients"`
	Open       int            `json:"open"`
	Reconnects int            `json:"reconnects"`
	Closes     map[string]int `json:"closes"` // by the code of the close frame, or what else ended the connection
	Messages   int64          `json:"messages"`
	Bytes      int64          `json:"bytes"` // of messages
	Pings      int64          `json:"pings"`
	Pongs      int64          `json:"pongs"`
	Late       int64          `json:"late"`        // pings without a pong when the client's next one was due
	SlowestMs  float64        `json:"slowestMs"`   // from a ping to its pong
	HeardPings int64          `json:"serverPings"` // pings of the server, each answered
	Seconds    float64        `json:"seconds"`     // since the first connection was begun
	MemoryMB   int            `json:"memoryMB"`    // of this program
	SinceMark  SinceMark      `json:"sinceMark"`
	Error      string         `json:"error,omitempty"` // of the order
}

// SinceMark is what was counted since the last mark.
type SinceMark struct {
	Messages    int64 `json:"messages"`
	Heard       int   `json:"heard"`    // clients that heard at least one message
	HeardOne    int   `json:"heardOne"` // clients that heard exactly one
	Ponged      int   `json:"ponged"`   // clients that had a ping answered
	Pings       int64 `json:"pings"`
	Pongs       int64 `json:"pongs"`
	ServerPings int64 `json:"serverPings"`
}

func (c *crowd) report() Report {
	c.mu.Lock()
	defer c.mu.Unlock()
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	now := c.counts()
	r := Report{
		Clients: len(c.clients), Open: int(c.open.Load()), Reconnects: int(c.reconnects.Load()), Closes: map[string]int{},
		Messages: now.messages, Bytes: c.bytes.Load(), Pings: now.pings, Pongs: now.pongs,
		Late: c.late.Load(), SlowestMs: float64(c.slowest.Load()) / float64(time.Millisecond), HeardPings: now.heardPings,
		Seconds: time.Since(c.began).Seconds(), MemoryMB: int(memory.Sys >> 20),
		SinceMark: SinceMark{
			Messages: now.messages - c.marked.messages, Pings: now.pings - c.marked.pings,
			Pongs: now.pongs - c.marked.pongs, ServerPings: now.heardPings - c.marked.heardPings,
		},
	}
	for how, n := range c.closes {
		r.Closes[how] = n
	}
	mark := c.mark.Load()
	for _, cl := range c.clients {
		switch heard := cl.heardSince(mark); {
		case heard == 1:
			r.SinceMark.HeardOne++
			fallthrough
		case heard > 1:
			r.SinceMark.Heard++
		}
		if cl.pongMark.Load() == mark {
			r.SinceMark.Ponged++
		}
	}
	return r
}

// String is the report for people.
func (r Report) String() string {
	var closes []string
	for how, n := range r.Closes {
		closes = append(closes, fmt.Sprintf("%s: %d", how, n))
	}
	slices.Sort(closes)
	return fmt.Sprintf(`clients      %d, connected at the end: %d
ended        {%s}, connected again: %d
messages     %d, %d bytes
pings        %d sent, %d answered, %d late, slowest %.1f ms
server pings %d
took         %.1f s, %d MB of memory
`, r.Clients, r.Open, strings.Join(closes, ", "), r.Reconnects, r.Messages, r.Bytes,
		r.Pings, r.Pongs, r.Late, r.SlowestMs, r.HeardPings, r.Seconds, r.MemoryMB)
}
