package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/fleet"
	"github.com/lull-dev/lull/internal/bubble"
	"github.com/lull-dev/lull/sandbox"
	"github.com/lull-dev/lull/snapshot"
)

// chatter is a random history of clients that talk to an app which is put to sleep as fast as it goes.
type chatter struct {
	hold    string
	verbs   map[string]time.Duration // what the driver takes for each
	faults  map[string]int           // every so manieth time a verb fails; 0 is never
	clients []client
	events  []event
}

// client is one stream and when it says something, each time since the time before.
type client struct {
	begins time.Duration
	pauses []time.Duration
	pings  bool // it is unsettled for a while after each message
}

// event is something else that happens.
type event struct {
	wait time.Duration
	what string // exchange, crash, evict, switch, suspend
}

// Around the moments at which an environment falls, with these rules, from step to step.
var chatterRules = lull.Idle{Pause: lull.Duration(50 * time.Millisecond), Hibernate: lull.Duration(150 * time.Millisecond), Stop: lull.Duration(time.Hour)}

func drawChatter(t *rapid.T) chatter {
	ms := func(name string, values ...int) time.Duration {
		return time.Duration(rapid.SampledFrom(values).Draw(t, name)) * time.Millisecond
	}
	c := chatter{
		hold:  rapid.SampledFrom([]string{"disk", "disk", "disk", "memory", "off"}).Draw(t, "hold"),
		verbs: map[string]time.Duration{}, faults: map[string]int{},
	}
	for _, verb := range []string{"pause", "resume", "snapshot", "vacate", "restore"} {
		c.verbs[verb] = ms(verb, 0, 1, 5, 30, 90)
	}
	for _, verb := range []string{"snapshot", "restore"} {
		c.faults[verb] = rapid.SampledFrom([]int{0, 0, 0, 2, 5}).Draw(t, verb+" fails")
	}
	for range rapid.IntRange(1, 6).Draw(t, "clients") {
		one := client{begins: ms("begins", 0, 0, 100, 400), pings: rapid.Bool().Draw(t, "pings")}
		for range rapid.IntRange(1, 25).Draw(t, "messages") {
			one.pauses = append(one.pauses, ms("pause", 0, 0, 1, 20, 60, 90, 100, 110, 200, 230, 250, 270, 300, 600, 20_000))
		}
		c.clients = append(c.clients, one)
	}
	for range rapid.IntRange(0, 6).Draw(t, "events") {
		c.events = append(c.events, event{ms("wait", 1, 90, 110, 260, 400, 1000),
			rapid.SampledFrom([]string{"exchange", "exchange", "crash", "evict", "switch"}).Draw(t, "what")})
	}
	return c
}

// hall is where the chatter takes place.
type hall struct {
	*world
	chatter chatter
	store   *snapshot.Store
	mu      sync.Mutex
	faults  []string
	count   map[string]int
}

func (h *hall) fault(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults = append(h.faults, fmt.Sprintf(format, args...))
}

// Whatever happens, a message arrives once, whole and in order, or its stream is told to end.
func TestMessagesArriveOnce(t *testing.T) {
	base := t.TempDir()
	number := 0
	rapid.Check(t, func(rt *rapid.T) {
		c := drawChatter(rt)
		number++
		store, err := snapshot.Open(filepath.Join(base, fmt.Sprint(number)), 32*lull.MB, slog.New(slog.DiscardHandler))
		if err != nil {
			rt.Fatal(err)
		}
		var h *hall
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, func(c *fleet.Config) { c.Snapshots, c.Drain = store, time.Second })
			h = &hall{world: w, chatter: c, store: store, count: map[string]int{}}
			h.perform()
		})
		if len(h.faults) > 0 {
			rt.Fatalf("%d faults: %q", len(h.faults), h.faults[:min(5, len(h.faults))])
		}
	})
}

func (h *hall) release(number int) lull.Release {
	return release(number, "echo", func(m *lull.Manifest) {
		m.Idle, m.Stream.Quiet, m.Stream.Hold = chatterRules, lull.Duration(50*time.Millisecond), h.chatter.hold
		m.Stream.Tick = lull.Duration(70 * time.Millisecond)
		m.Scale.Max = 3
	})
}

func (h *hall) before(_ context.Context, verb string, _ sandbox.Spec) error {
	bubble.Pass(h.chatter.verbs[verb])
	h.mu.Lock()
	defer h.mu.Unlock()
	h.count[verb]++
	if every := h.chatter.faults[verb]; every > 0 && h.count[verb]%every == 0 {
		return errors.New("as was to happen")
	}
	return nil
}

func (h *hall) perform() {
	h.fake.Before(h.before)
	h.Use(h.release(1))
	var all sync.WaitGroup
	for _, c := range h.chatter.clients {
		all.Go(func() { h.talk(c) })
	}
	all.Go(h.happen)
	all.Wait()
	bubble.Pass(time.Minute)
	synctest.Wait()
	for _, e := range h.Environments() {
		if !e.State.Final() && (e.State != lull.Hibernated && h.chatter.faults["snapshot"] == 0 && h.chatter.faults["restore"] == 0 || e.Streams > 0) {
			h.fault("in the end %s is %s with %d streams: %v", e.ID, e.State, e.Streams, e.Moves)
		}
	}
	h.Close(0)
	if n := len(h.fake.Sandboxes()) + len(h.fake.Kept()) + len(h.store.List()); n > 0 {
		h.fault("%d sandboxes, addresses or snapshots are left", n)
	}
	if used, _ := h.store.Used(); used > 0 {
		h.fault("%s of disk are left in use", used)
	}
	if n := h.fake.Trespasses(); n > 0 {
		h.fault("%d bytes to one that slept", n)
	}
	h.fake.Close()
}

func (h *hall) happen() {
	for i, e := range h.chatter.events {
		bubble.Pass(e.wait)
		switch e.what {
		case "exchange":
			if p, err := h.Acquire(h.t.Context(), fleet.Want{Why: "GET /"}); err == nil {
				p.Free()
			} else if lull.KindOf(err) != lull.KindStarting { // it has crashed while it started
				h.fault("no place: %v", err)
			}
		case "crash":
			if boxes := h.fake.Sandboxes(); len(boxes) > 0 {
				boxes[0].Die(sandbox.Exit{Code: 1})
			}
		case "evict":
			if d, err := h.store.Begin("other", 32*lull.MB); err == nil {
				d.Discard()
			}
		case "switch":
			if err := h.Switch(h.t.Context(), h.release(i+2)); err != nil && lull.KindOf(err) != lull.KindNotReady && lull.KindOf(err) != lull.KindCrashed {
				h.fault("switch: %v", err)
			}
		}
	}
}

// talk is one client, as the gateway stands in for it.
func (h *hall) talk(c client) {
	bubble.Pass(c.begins)
	ctx, cancel := context.WithTimeout(h.t.Context(), 30*time.Second)
	defer cancel()
	p, err := h.Acquire(ctx, fleet.Want{Why: "GET /socket", Stream: true})
	if err != nil {
		if lull.KindOf(err) != lull.KindStarting { // it has crashed too often
			h.fault("no place: %v", err)
		}
		return
	}
	conn, err := p.Dial(ctx)
	if err != nil {
		p.Free() // it has just died
		return
	}
	defer conn.Close()
	s := p.Stream()
	p.Free()
	defer s.Close()
	for i, pause := range c.pauses {
		select {
		case <-time.After(pause):
		case <-s.Closing():
			if code := s.CloseCode(); code != 1001 && code != 1011 && code != 1012 {
				h.fault("close code %d", code)
			}
			return
		}
		if !h.message(s, conn, i) {
			return
		}
		if c.pings {
			h.ping(s)
		}
	}
}

// message says one thing and hears it back; false if the stream has ended.
func (h *hall) message(s fleet.Stream, conn net.Conn, i int) bool {
	ctx, cancel := context.WithTimeout(h.t.Context(), 30*time.Second)
	defer cancel()
	release, err := s.Hold(ctx, "websocket data")
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			h.fault("message %d hangs", i)
		}
		return false
	}
	defer release()
	said := fmt.Sprintf("%05d\n", i)
	heard := make([]byte, len(said))
	if _, err = io.WriteString(conn, said); err == nil {
		_, err = io.ReadFull(conn, heard)
	}
	switch {
	case err != nil: // it died of a crash
		select {
		case <-s.Closing():
		case <-time.After(time.Second):
			h.fault("message %d: %v", i, err)
		}
		return false
	case string(heard) != said:
		h.fault("said %q, heard %q", said, heard)
	}
	s.Moved()
	return true
}

// ping is a ping of the app's that is answered 40 ms later.
func (h *hall) ping(s fleet.Stream) {
	s.Unsettled(true)
	bubble.Pass(40 * time.Millisecond)
	if release, ok := s.HoldIfThere(); ok {
		release()
	}
	s.Unsettled(false)
}
