package fleet

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/sandbox"
)

// place implements Place: one of an environment's exchanges, until it is freed or turned into a stream.
type place struct {
	environment *environment
	how         How
	waited      time.Duration

	// Guarded by Fleet.mu.
	busy     bool // counts as an exchange
	promised bool // counts as a stream to come
	stream   *stream
}

func (p *place) Environment() string   { return p.environment.id }
func (p *place) Release() lull.Release { return p.environment.generation.release }
func (p *place) How() How              { return p.how }
func (p *place) Waited() time.Duration { return p.waited }
func (p *place) Done() <-chan struct{} { return p.environment.over }

func (p *place) Awake() time.Time {
	p.environment.fleet.mu.Lock()
	defer p.environment.fleet.mu.Unlock()
	return p.environment.upSince
}

func (p *place) Err() error { return p.environment.fleet.fate(p.environment) }

// fate returns why e is over, nil if it is not.
func (f *Fleet) fate(e *environment) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return e.err
}

func (p *place) Dial(ctx context.Context) (net.Conn, error) {
	if port := p.direct(); port > 0 {
		box, _ := p.address()
		if conn, err := box.Dial(ctx, port); !errors.Is(err, syscall.ECONNREFUSED) {
			if err == nil {
				p.environment.direct.Store(true)
			}
			return conn, p.explain(ctx, port, err)
		}
	}
	return p.dialRuntime(ctx)
}

// direct is the port on which a function takes requests itself; 0 if there is none.
func (p *place) direct() int {
	if !p.environment.fleet.config.Driver.Capabilities().Ports { // it would be the host's
		return 0
	}
	return p.Release().Process.HTTP
}

func (p *place) Late() {
	if !p.environment.direct.Load() {
		return
	}
	const why = "did not answer in time"
	p.environment.fleet.config.Journal.Note(p.environment.fleet.config.App, p.environment.id, "function "+why+": its environment is ended")
	p.environment.fleet.change(func(*ledger, time.Time) { p.environment.leave(why, 0) })
}

// dialRuntime connects to the port that was found at the start. In an environment of a function that is its runtime's.
func (p *place) dialRuntime(ctx context.Context) (net.Conn, error) {
	box, port := p.address()
	conn, err := box.Dial(ctx, port)
	return conn, p.explain(ctx, port, err)
}

// explain says why a port could not be reached; nil if it was.
func (p *place) explain(ctx context.Context, port int, err error) error {
	if errors.Is(err, sandbox.ErrExited) { // which the fleet is about to notice as well
		select {
		case <-p.Done():
		case <-ctx.Done():
		}
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("connect to environment %s: %w", p.environment.id, context.Cause(ctx))
	}
	if fate := p.Err(); fate != nil {
		return fate
	}
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
		p.environment.fleet.config.Log.Error("too many open files: raise the limit of the node's process (LimitNOFILE, ulimit -n)", "error", err)
		return &lull.Error{Kind: lull.KindStarting, Err: err, Message: "this node has as many connections open as it may", Hint: "try again in a moment"}
	}
	return &lull.Error{Kind: lull.KindRefused, Err: err,
		Message: fmt.Sprintf("environment %s does not accept a connection on port %d: %s", p.environment.id, port, err),
		Hint:    "the app has closed the port it was listening on, or cannot keep up with its connections"}
}

func (p *place) address() (sandbox.Sandbox, int) {
	p.environment.fleet.mu.Lock()
	defer p.environment.fleet.mu.Unlock()
	return p.environment.box, p.environment.port
}

func (p *place) Free() {
	p.environment.fleet.change(func(_ *ledger, now time.Time) { p.giveBack(now) })
}

// giveBack ends the place's share of the concurrency; only the first call counts.
func (p *place) giveBack(now time.Time) {
	if p.promised {
		p.promised = false
		p.environment.promised--
	}
	if p.busy {
		p.busy = false
		p.environment.exchanges--
		p.environment.ended = now
	}
}

func (p *place) Stream() Stream {
	p.environment.fleet.change(func(_ *ledger, now time.Time) {
		if p.stream == nil {
			p.stream = openStream(p.environment, now)
		}
		p.giveBack(now)
	})
	return p.stream
}

// stream implements Stream.
type stream struct {
	environment *environment
	closing     chan struct{} // closed by tell

	// Guarded by Fleet.mu.
	moved     time.Time     // when data last moved, either way
	lively    *list.Element // in environment.lively; nil once told to close, or closed
	closed    bool
	unsettled bool
	code      uint16 // set before closing is closed
}

// openStream makes a stream. It is called under mu.
func openStream(e *environment, now time.Time) *stream {
	s := &stream{environment: e, closing: make(chan struct{}), moved: now}
	e.open++
	s.lively = e.lively.PushBack(s)
	if e.goal == lull.Stopped || e.state.Final() {
		s.tell(e.leaving)
	}
	return s
}

// tell asks for the stream to be closed.
func (s *stream) tell(code uint16) {
	if s.lively == nil {
		return
	}
	s.environment.lively.Remove(s.lively)
	s.lively = nil
	s.code = code
	close(s.closing)
}

func (s *stream) touch(now time.Time) {
	s.moved = now
	if s.lively != nil {
		s.environment.lively.MoveToBack(s.lively)
	}
}

// Moved is called for every piece of data, so it does without a review: data that moves only puts off what is planned,
// and the timer that comes too early finds that out. An environment that sleeps was put to sleep over its data, by a client
// that took it too late: there may be more.
func (s *stream) Moved() {
	if s.move() {
		s.environment.fleet.change(func(_ *ledger, now time.Time) {
			if !s.closed && s.environment.asleep() {
				s.environment.rise("data from the app", now)
			}
		})
	}
}

// move notes that data has moved, and reports whether the environment is asleep.
func (s *stream) move() (asleep bool) {
	s.environment.fleet.mu.Lock()
	defer s.environment.fleet.mu.Unlock()
	now := time.Now()
	s.touch(now)
	s.environment.engage("data from the app", now)
	return s.environment.asleep()
}

func (s *stream) Unsettled(on bool) {
	s.environment.fleet.change(func(*ledger, time.Time) { s.settle(!on) })
}

// settle is called under mu.
func (s *stream) settle(settled bool) {
	if s.closed || s.unsettled == !settled {
		return
	}
	s.unsettled = !settled
	if settled {
		s.environment.unsettled--
		s.environment.wake() // it may be on its way to disk
	} else {
		s.environment.unsettled++
	}
}

func (s *stream) Sleep() uint32 { return s.environment.sleep.Load() }

func (s *stream) Closing() <-chan struct{} { return s.closing }

func (s *stream) CloseCode() uint16 {
	s.environment.fleet.mu.Lock()
	defer s.environment.fleet.mu.Unlock()
	return s.code
}

func (s *stream) Close() {
	s.environment.fleet.change(func(_ *ledger, now time.Time) {
		if s.closed {
			return
		}
		s.settle(true)
		s.closed = true
		if s.lively != nil {
			s.environment.lively.Remove(s.lively)
			s.lively = nil
		}
		s.environment.open--
		s.environment.ended = now
	})
}

func (s *stream) Hold(ctx context.Context, why string) (func(), error) {
	up, err := s.pin(why)
	if err != nil {
		return nil, err
	}
	release := sync.OnceFunc(s.unpin)
	select {
	case <-up:
	default:
		select {
		case <-up:
		case <-s.environment.over:
		case <-ctx.Done():
			release()
			return nil, fmt.Errorf("wait for environment %s: %w", s.environment.id, context.Cause(ctx))
		}
	}
	if err := s.environment.fleet.fate(s.environment); err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// pin asks for the environment to be running and keeps it from being paused again. up is closed once it runs.
func (s *stream) pin(why string) (up <-chan struct{}, err error) {
	e := s.environment
	s.environment.fleet.change(func(_ *ledger, now time.Time) {
		switch {
		case e.err != nil:
			err = e.err
		case e.goal == lull.Stopped:
			err = errStopped(e.id, e.cause)
		case s.closed:
			err = &lull.Error{Kind: lull.KindInternal, Message: "the stream has been closed"}
		default:
			e.holds++
			s.touch(now)
			e.rise(why, now)
			up = e.up
		}
	})
	return up, err
}

func (s *stream) unpin() {
	s.environment.fleet.change(func(_ *ledger, now time.Time) {
		s.environment.holds--
		s.environment.ended = now
		s.touch(now)
	})
}

func (s *stream) HoldIfUp() (release func(), ok bool) {
	return s.beat(func(e *environment) bool { return e.state == lull.Running && !e.sinks() })
}

func (s *stream) HoldIfThere() (release func(), ok bool) {
	return s.beat(func(e *environment) bool {
		return e.state == lull.Running || e.state == lull.Paused && !e.writing
	})
}

func (s *stream) beat(allowed func(*environment) bool) (release func(), ok bool) {
	e := s.environment
	e.fleet.mu.Lock()
	defer e.fleet.mu.Unlock()
	if s.closed || !allowed(e) {
		return nil, false
	}
	e.beats++
	return sync.OnceFunc(func() { e.fleet.change(func(_ *ledger, now time.Time) { e.beaten(now) }) }), true
}

func (s *stream) WhenUp(do func()) {
	e := s.environment
	e.fleet.change(func(_ *ledger, _ time.Time) {
		if e.state.Final() || e.goal == lull.Stopped {
			return
		}
		e.whenUp = append(e.whenUp, do)
		if e.state == lull.Running {
			e.catchUp()
		}
	})
}
