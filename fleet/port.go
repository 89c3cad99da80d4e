package fleet

import (
	"context"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/lull-dev/lull/sandbox"
)

// portGrace is how long an app that already listens elsewhere has to listen where it was told to.
const portGrace = 100 * time.Millisecond

// portChoice picks one of several listeners: where the app was told to listen; else where an earlier environment of the
// release was found; else, after a moment in which the first two may still appear, the lowest port that speaks HTTP.
type portChoice struct {
	told, known int
	fixed       bool      // it is told, and no other
	first       time.Time // when it was first seen to listen anywhere
}

// choose returns the port to serve. speaks is asked about a port only where it matters, since the app sees the question.
func (c *portChoice) choose(now time.Time, open []sandbox.Listener, speaks func(port int) bool) (int, bool) {
	var ports []int
	for _, l := range open {
		ports = append(ports, int(l.Addr.Port()))
	}
	for _, port := range []int{c.told, c.known} {
		if slices.Contains(ports, port) {
			return port, true
		}
	}
	if len(ports) == 0 || c.fixed {
		return 0, false
	}
	if c.first.IsZero() {
		c.first = now
	}
	if now.Sub(c.first) < portGrace {
		return 0, false
	}
	slices.Sort(ports) // which puts the ephemeral ones, given out by the kernel, last
	chosen := 0
	for _, port := range slices.Compact(ports) { // all of them are asked, so that none waits for another's answer
		if speaks(port) && chosen == 0 {
			chosen = port
		}
	}
	return chosen, chosen != 0
}

// inquiries find out which ports speak HTTP, by a request to each that has as long as it needs: what is slow to answer
// hides nothing else. Each is made by a goroutine that speaks starts, that ends with the answer or with ctx, and that
// wait waits for. Used by one goroutine.
type inquiries struct {
	ask     func(ctx context.Context, port int) bool
	made    map[int]*inquiry
	running sync.WaitGroup
}

// inquiry is a question to a port.
type inquiry struct {
	answered chan struct{} // closed by the goroutine that asks
	http     bool          // valid once answered
	at       time.Time     // when it was answered
}

// askAgain is how long a port that gave no proper answer is left alone.
const askAgain = 250 * time.Millisecond

// speaks reports whether the port is known to speak HTTP by now, and asks it if need be.
func (q *inquiries) speaks(ctx context.Context, port int) bool {
	if past := q.made[port]; past != nil {
		select {
		case <-past.answered:
		default:
			return false
		}
		if past.http || time.Since(past.at) < askAgain {
			return past.http
		}
	}
	if q.made == nil {
		q.made = map[int]*inquiry{}
	}
	now := &inquiry{answered: make(chan struct{})}
	q.made[port] = now
	q.running.Go(func() {
		now.http, now.at = q.ask(ctx, port), time.Now()
		close(now.answered)
	})
	return false
}

func (q *inquiries) wait() { q.running.Wait() }

// toldPort returns the port that a process with this environment is told to listen on; 0 if it is not told any.
func toldPort(env []string) int {
	port := 0
	for _, pair := range env {
		if value, ok := strings.CutPrefix(pair, "PORT="); ok {
			port, _ = strconv.Atoi(value)
		}
	}
	return port
}

// ownPort returns env with a PORT that is free on this host, for drivers whose sandboxes share its ports.
func ownPort(env []string) ([]string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer l.Close()
	own := slices.DeleteFunc(slices.Clone(env), func(pair string) bool { return strings.HasPrefix(pair, "PORT=") })
	return append(own, "PORT="+strconv.Itoa(l.Addr().(*net.TCPAddr).Port)), nil
}
