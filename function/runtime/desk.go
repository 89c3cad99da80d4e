package runtime

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"
)

// The desk is where invocations and the function's process meet. Invocations wait in the order in which they came; polls are
// served in the order in which they came. Each invocation is handed to one poll and answered once: by what the function
// sends, or when its time is up, or when the process ends, whichever is first; what comes later is refused.
//
// Its time runs from when it was handed over. Before that it waits for as long at most. A poll waits for ever, and while
// nothing is asked of the function there is no timer: the sandbox may sleep at any moment and for any time.
//
// A process that does not answer is of no use: when it owes as many answers as it may work at, or asks for nothing although it
// has nothing to do, it is killed.
type desk struct {
	config Config
	arn    string // of the function
	log    *log
	demand chan struct{} // holds one: something waits

	mu          sync.Mutex // guards all below, and every invocation's state
	current     *process   // nil: there is none
	waiting     []*invocation
	pollers     []*poller
	invocations map[string]*invocation // not ended
	overdue     int
}

// A poller is one call of the process that waits for an invocation.
type poller struct {
	process *process
	conn    interrupter
	hand    chan *invocation // holds one; nil says that the process is no longer the one
}

// initLimit is how long a process that starts again may take until it asks for its first invocation while others wait.
const initLimit = 60 * time.Second

var (
	errGone    = errors.New("the process has been replaced")
	errUnknown = errors.New("there is no such invocation, or it has been answered")
	errOverdue = errors.New("the time of the invocation is up")
)

func newDesk(config Config, arn string, log *log) *desk {
	return &desk{config: config, arn: arn, log: log, demand: make(chan struct{}, 1), invocations: map[string]*invocation{}}
}

// spare is how many invocations may wait beyond those that the function can work at. The fleet sends no more than
// concurrency at a time, but takes the place of a client that left as free.
const spare = 32

// submit takes an invocation, whose answer then comes on its channel. It returns a failure if it takes none.
func (d *desk) submit(i *invocation) *failure {
	i.answers = make(chan answer, 1)
	i.deadline = time.Now().Add(d.config.timeout())

	d.mu.Lock()
	defer d.mu.Unlock()
	if d.invocations[i.id] != nil {
		return fail(http.StatusConflict, "InvalidRequestID", "there is an invocation %s already", i.id).beforehand()
	}
	if len(d.waiting) >= d.config.Concurrency+spare {
		return fail(http.StatusServiceUnavailable, tooMany, "too many invocations wait for the function").beforehand()
	}
	d.invocations[i.id] = i
	i.timer = time.AfterFunc(d.config.timeout(), func() { d.expire(i) })
	if len(d.pollers) == 0 {
		d.waiting = append(d.waiting, i)
		d.want()
		return nil
	}
	p := d.pollers[0]
	d.pollers = slices.Delete(d.pollers, 0, 1)
	d.give(i, p)
	p.hand <- i
	return nil
}

// want asks for a process.
func (d *desk) want() {
	select {
	case d.demand <- struct{}{}:
	default:
	}
}

// give hands i to the poller. The lock is held.
func (d *desk) give(i *invocation, p *poller) {
	if err := i.become(Handed); err != nil {
		d.log.broken(err)
	}
	i.process, i.conn = p.process, p.conn
	i.started = time.Now()
	i.deadline = i.started.Add(d.config.timeout())
	i.logged = d.log.position()
	i.timer.Reset(d.config.timeout())
}

// next waits for an invocation. The caller says with delivered, or back, whether it reached the process.
func (d *desk) next(ctx context.Context, from *process, conn interrupter) (*invocation, error) {
	p := &poller{process: from, conn: conn}
	d.mu.Lock()
	if d.current != from {
		d.mu.Unlock()
		return nil, errGone
	}
	if len(d.waiting) > 0 {
		i := d.waiting[0]
		d.waiting = slices.Delete(d.waiting, 0, 1)
		d.give(i, p)
		d.mu.Unlock()
		return i, nil
	}
	p.hand = make(chan *invocation, 1)
	d.pollers = append(d.pollers, p)
	d.mu.Unlock()

	select {
	case i := <-p.hand:
		if i == nil {
			return nil, errGone
		}
		return i, nil
	case <-ctx.Done():
	}
	d.leave(p)
	return nil, ctx.Err()
}

// leave takes a poller whose connection ended off the list. What it was handed in that moment waits again.
func (d *desk) leave(p *poller) {
	d.mu.Lock()
	if at := slices.Index(d.pollers, p); at >= 0 {
		d.pollers = slices.Delete(d.pollers, at, at+1)
		d.mu.Unlock()
		return
	}
	d.mu.Unlock()
	if i := <-p.hand; i != nil {
		d.back(i)
	}
}

// delivered says that the process has the event.
func (d *desk) delivered(i *invocation) {
	d.mu.Lock()
	if i.state == Handed {
		i.conn = nil
	}
	d.mu.Unlock()
}

// back takes an invocation back that could not be written to the process: it is the first to be handed over again.
func (d *desk) back(i *invocation) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if i.state != Handed {
		return // its time was up, or the process ended, meanwhile
	}
	if len(d.pollers) > 0 {
		p := d.pollers[0]
		d.pollers = slices.Delete(d.pollers, 0, 1)
		i.process, i.conn = p.process, p.conn
		p.hand <- i
		return
	}
	if err := i.become(Waiting); err != nil {
		d.log.broken(err)
	}
	i.process, i.conn = nil, nil
	d.waiting = slices.Insert(d.waiting, 0, i)
	d.want()
}

// begin says that the process sends an answer for the invocation on conn.
func (d *desk) begin(from *process, id string, conn interrupter) (*invocation, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	i := d.invocations[id]
	switch {
	case i == nil || i.process != from:
		return nil, errUnknown
	case i.state == Overdue && i.conn == nil: // the function has come to its end at last
		d.end(i, Failed)
		d.overdue--
		return nil, errOverdue
	case i.state != Handed:
		return nil, errUnknown
	}
	i.conn = conn
	return i, i.become(Answering)
}

// stream gives the caller an answer that is still being sent.
func (d *desk) stream(i *invocation, s *stream) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if i.state != Answering {
		return errOverdue
	}
	i.tell(answer{stream: s})
	return nil
}

// finish ends an invocation whose answer has been sent. It returns errOverdue if that came too late.
func (d *desk) finish(i *invocation, a answer) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	i.conn = nil
	if i.state == Overdue {
		d.end(i, Failed)
		d.overdue--
		return errOverdue
	}
	i.tell(a)
	if a.failure != nil {
		return d.end(i, Failed)
	}
	return d.end(i, Done)
}

// end moves i to its last state and forgets it. The lock is held.
func (d *desk) end(i *invocation, last State) error {
	err := i.become(last)
	if err != nil {
		d.log.broken(err)
	}
	i.timer.Stop()
	delete(d.invocations, i.id)
	return err
}

// abandon is for a caller that leaves. It reports whether the function will not get the event; if it will, the caller has to
// wait for the answer all the same.
func (d *desk) abandon(i *invocation) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if i.state != Waiting {
		return false
	}
	d.drop(i)
	d.end(i, Abandoned)
	return true
}

// drop takes i off the list of those that wait. The lock is held.
func (d *desk) drop(i *invocation) {
	if at := slices.Index(d.waiting, i); at >= 0 {
		d.waiting = slices.Delete(d.waiting, at, at+1)
	}
}

// expire ends the time of an invocation.
func (d *desk) expire(i *invocation) {
	d.mu.Lock()
	if i.state.ended() || i.state == Overdue || time.Now().Before(i.deadline) {
		d.mu.Unlock()
		return
	}
	kill := d.late(i)
	conn := i.conn
	d.mu.Unlock()

	if conn != nil {
		past := time.Unix(1, 0)
		conn.SetReadDeadline(past)
		conn.SetWriteDeadline(past)
	}
	if kill != nil {
		kill.kill()
	}
}

// late answers for an invocation whose time is up. It returns the process if that has to be killed. The lock is held.
func (d *desk) late(i *invocation) *process {
	i.tell(answer{failure: late(i.id, d.config.timeout())})
	if i.state == Waiting {
		d.drop(i)
		d.end(i, Failed)
		if p := d.current; p != nil && !d.busy(p) && (p.isReady() || time.Since(p.began) > initLimit) {
			return p
		}
		return nil
	}
	if err := i.become(Overdue); err != nil {
		d.log.broken(err)
	}
	if d.overdue++; d.overdue < d.config.Concurrency {
		return nil
	}
	return i.process
}

// busy reports whether p works at anything. The lock is held.
func (d *desk) busy(p *process) bool {
	for _, i := range d.invocations {
		if i.process == p {
			return true
		}
	}
	return false
}

// isLate reports whether the time of i is up.
func (d *desk) isLate(i *invocation) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return i.state == Overdue
}

// begun says which process may ask for invocations from now on.
func (d *desk) begun(p *process) {
	d.mu.Lock()
	d.current = p
	d.mu.Unlock()
}

// lost ends what a process worked at that has ended, and reports whether that tells how. What it is sending at this moment ends
// with its connection.
func (d *desk) lost(p *process, how string) (told bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.current = nil
	for _, poll := range d.pollers {
		poll.hand <- nil
	}
	d.pollers = nil
	for _, i := range d.invocations {
		switch {
		case i.process != p:
		case i.state == Handed:
			i.tell(answer{failure: exited(i.id, how)})
			d.end(i, Failed)
			told = true
		case i.state == Overdue && i.conn == nil:
			d.end(i, Failed)
			d.overdue--
			told = true
		}
	}
	return told
}

// refuse fails everything that waits, because there is no process for it.
func (d *desk) refuse(f *failure) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, i := range d.waiting {
		i.tell(answer{failure: f})
		d.end(i, Failed)
	}
	d.waiting = nil
	select {
	case <-d.demand:
	default:
	}
}

// isBypassed reports whether the process takes requests itself.
func (d *desk) isBypassed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.current != nil && d.current.isReady() && d.current.direct
}

// isWaiting reports whether there is anything that no process has been handed.
func (d *desk) isWaiting() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.waiting) > 0
}
