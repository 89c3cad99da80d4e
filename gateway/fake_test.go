package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/fleet"
)

// fakeApps has one fleet for every host that ends in .test, except none.test.
type fakeApps struct {
	fleet    Fleet
	settings Settings
	err      error
	asked    atomic.Pointer[string]
}

func (a *fakeApps) Fleet(host string) (Fleet, Settings, error) {
	a.asked.Store(&host)
	if a.err != nil {
		return nil, Settings{}, a.err
	}
	if len(host) < 5 || host[len(host)-5:] != ".test" || host == "none.test" {
		return nil, Settings{}, errors.New("no such app")
	}
	return a.fleet, a.settings, nil
}

// fakeFleet gives places in one environment, whose app is reached by dial.
type fakeFleet struct {
	env   *fakeEnvironment
	wants atomic.Pointer[fleet.Want]
	// acquire, if set, decides instead.
	acquire func(ctx context.Context, want fleet.Want) (fleet.Place, error)
}

func (f *fakeFleet) Acquire(ctx context.Context, want fleet.Want) (fleet.Place, error) {
	f.wants.Store(&want)
	if f.acquire != nil {
		return f.acquire(ctx, want)
	}
	return f.env.place(), nil
}

// fakeEnvironment counts what is claimed and can be paused and ended.
type fakeEnvironment struct {
	id    string
	dial  func(ctx context.Context) (net.Conn, error)
	dials atomic.Int64
	late  atomic.Int64

	mu      sync.Mutex
	places  int // not given back
	streams int
	moved   int
	why     []string      // of holds
	running chan struct{} // closed while it runs
	asleep  bool
	sleeps  uint32    // how many there have been
	paused  bool      // asleep, and not on disk
	awake   time.Time // since when it runs
	later   []func()  // what streams do when it is up
	holds   int
	settled []bool // what it was told, the other way round
	closing chan struct{}
	code    uint16
	done    chan struct{}
	err     error
}

func newFakeEnvironment(id string, dial func(ctx context.Context) (net.Conn, error)) *fakeEnvironment {
	e := &fakeEnvironment{id: id, dial: dial, running: make(chan struct{}), closing: make(chan struct{}), code: closeGoingAway, done: make(chan struct{})}
	close(e.running)
	return e
}

func dialer(address string) func(ctx context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", address)
	}
}

func (e *fakeEnvironment) place() *fakePlace {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.places++
	return &fakePlace{env: e, how: fleet.Warm}
}

// pause lets every Hold wait until resume.
func (e *fakeEnvironment) pause() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.fallAsleep()
}

// fallAsleep is called under mu.
func (e *fakeEnvironment) fallAsleep() {
	e.running, e.asleep = make(chan struct{}), true
	e.sleeps++
}

// resume lets go on what waits, what streams have left for later first.
func (e *fakeEnvironment) resume() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asleep, e.awake = false, time.Now()
	close(e.running)
	for _, do := range e.later {
		e.pin(do)
	}
	e.later = nil
}

// tick resumes it until all that was left for later is done.
func (e *fakeEnvironment) tick(t testing.TB) {
	t.Helper()
	e.resume()
	eventually(t, func() error {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.holds > 0 {
			return fmt.Errorf("%d holds", e.holds)
		}
		e.fallAsleep()
		return nil
	})
}

// pin does something while it is held. It is called under mu.
func (e *fakeEnvironment) pin(do func()) {
	release := e.hold()
	go func() {
		defer release()
		do()
	}()
}

// hold is called under mu.
func (e *fakeEnvironment) hold() (release func()) {
	e.holds++
	return sync.OnceFunc(func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.holds--
	})
}

// end is its death: its streams are to end, since it cannot come back.
func (e *fakeEnvironment) end(err error) {
	e.err = err
	e.code = closeRestart
	close(e.closing)
	close(e.done)
}

type counts struct{ Places, Streams, Holds int }

func (e *fakeEnvironment) counts() counts {
	e.mu.Lock()
	defer e.mu.Unlock()
	return counts{e.places, e.streams, e.holds}
}

func (e *fakeEnvironment) reasons() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]string(nil), e.why...)
}

// over reports whether it is to end or has. It is called under mu.
func (e *fakeEnvironment) over() bool {
	select {
	case <-e.closing:
		return true
	case <-e.done:
		return true
	default:
		return false
	}
}

func (e *fakeEnvironment) movedSoFar() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.moved
}

type fakePlace struct {
	env    *fakeEnvironment
	how    fleet.How
	waited time.Duration
	free   sync.Once
}

func (p *fakePlace) Environment() string   { return p.env.id }
func (p *fakePlace) Release() lull.Release { return lull.Release{App: "app", Number: 1} }
func (p *fakePlace) How() fleet.How        { return p.how }
func (p *fakePlace) Waited() time.Duration { return p.waited }
func (p *fakePlace) Done() <-chan struct{} { return p.env.done }
func (p *fakePlace) Err() error            { return p.env.err }

func (p *fakePlace) Awake() time.Time {
	p.env.mu.Lock()
	defer p.env.mu.Unlock()
	return p.env.awake
}

func (p *fakePlace) Dial(ctx context.Context) (net.Conn, error) {
	p.env.dials.Add(1)
	return p.env.dial(ctx)
}

func (p *fakePlace) Late() { p.env.late.Add(1) }

func (p *fakePlace) Free() {
	p.free.Do(func() {
		p.env.mu.Lock()
		defer p.env.mu.Unlock()
		p.env.places--
	})
}

func (p *fakePlace) Stream() fleet.Stream {
	p.env.mu.Lock()
	defer p.env.mu.Unlock()
	p.env.streams++
	return &fakeStream{env: p.env}
}

type fakeStream struct {
	env   *fakeEnvironment
	close sync.Once
}

func (s *fakeStream) Hold(ctx context.Context, why string) (func(), error) {
	s.env.mu.Lock()
	s.env.why = append(s.env.why, why)
	s.env.mu.Unlock()
	for {
		s.env.mu.Lock()
		running := s.env.running
		s.env.mu.Unlock()
		select {
		case <-running:
		case <-s.env.done:
			return nil, s.env.err
		case <-s.env.closing:
			return nil, errors.New("the environment is stopped")
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if release, ok := s.HoldIfUp(); ok {
			return release, nil
		}
	}
}

func (s *fakeStream) HoldIfUp() (func(), bool) {
	s.env.mu.Lock()
	defer s.env.mu.Unlock()
	if s.env.asleep {
		return nil, false
	}
	return s.env.hold(), true
}

// HoldIfThere is the fake's HoldIfUp, unless the test has paused it.
func (s *fakeStream) HoldIfThere() (func(), bool) {
	s.env.mu.Lock()
	defer s.env.mu.Unlock()
	if s.env.asleep && !s.env.paused {
		return nil, false
	}
	return s.env.hold(), true
}

func (s *fakeStream) WhenUp(do func()) {
	s.env.mu.Lock()
	defer s.env.mu.Unlock()
	if s.env.asleep {
		s.env.later = append(s.env.later, do)
	} else {
		s.env.pin(do)
	}
}

func (s *fakeStream) Unsettled(on bool) {
	s.env.mu.Lock()
	defer s.env.mu.Unlock()
	s.env.settled = append(s.env.settled, !on)
}

func (s *fakeStream) Sleep() uint32 {
	s.env.mu.Lock()
	defer s.env.mu.Unlock()
	if !s.env.asleep {
		return 0
	}
	return s.env.sleeps
}

func (s *fakeStream) CloseCode() uint16 { return s.env.code }

func (s *fakeStream) Moved() {
	s.env.mu.Lock()
	defer s.env.mu.Unlock()
	s.env.moved++
}

func (s *fakeStream) Closing() <-chan struct{} { return s.env.closing }

func (s *fakeStream) Close() {
	s.close.Do(func() {
		s.env.mu.Lock()
		defer s.env.mu.Unlock()
		s.env.streams--
	})
}

// eventually waits until check says nothing is wrong.
func eventually(t testing.TB, check func() error) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after 10 s still: %v", err)
		}
		<-time.After(2 * time.Millisecond)
	}
}

func (e *fakeEnvironment) awaitCounts(t testing.TB, want counts) {
	t.Helper()
	eventually(t, func() error {
		if got := e.counts(); got != want {
			return fmt.Errorf("places, streams, holds are %v, want %v", got, want)
		}
		return nil
	})
}

// acquireFunc is an Acquire that gives no place.
func acquireFunc(wait func(ctx context.Context) error) func(context.Context, fleet.Want) (fleet.Place, error) {
	return func(ctx context.Context, _ fleet.Want) (fleet.Place, error) { return nil, wait(ctx) }
}
