package gateway

import (
	"errors"
	"os"
	"sync"
	"time"

	"github.com/lull-dev/lull/gateway/wire"
)

// way is one direction of a stream. While bytes move a goroutine carries them. When nothing has moved for quietAfter it
// parks: the goroutine ends, the poller watches, and a new one starts when there is something. So a quiet stream has
// neither goroutine nor buffer.
//
// begin starts the first goroutine (or run is it); the last one ends with a call of the carrier's over.
type way struct {
	poller  *wire.Poller
	conn    *wire.Conn // where the bytes come from
	carrier carrier
	hangup  bool // only its end is waited for
	stay    bool // it cannot be parked

	mu     sync.Mutex
	parked bool
	roused bool // there is a reason not to park
	ticket wire.Ticket
}

// carrier is what a way does.
type carrier interface {
	// carry waits for bytes, at most as long as way.patience says, and passes them on.
	carry(loan *wire.Loan) verdict
	// over is called once, when carry has said so.
	over()
}

type verdict uint8

const (
	moved verdict = iota
	quiet         // nothing came
	ended         // nothing will come any more
)

const quietAfter = time.Second

// patience is how long carry may wait.
func (w *way) patience() time.Duration {
	if w.stay {
		return 0
	}
	return quietAfter
}

func (w *way) run() {
	var loan wire.Loan
	for {
		switch w.carrier.carry(&loan) {
		case ended:
			loan.Reclaim()
			w.carrier.over()
			return
		case quiet:
			loan.Reclaim()
			if w.park() {
				return
			}
		}
	}
}

func (w *way) park() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.roused || w.stay {
		w.roused = false
		return false
	}
	ticket, err := w.poller.Park(w.conn, w.hangup, w.resume)
	w.stay = errors.Is(err, wire.ErrNoSocket)
	w.parked, w.ticket = err == nil, ticket
	return w.parked // if not, the connection is closed, and the next read says so
}

func (w *way) resume() {
	w.mu.Lock()
	w.parked = false
	w.mu.Unlock()
	go w.run()
}

// rouse makes a parked way carry again, and one that is about to park think twice. It is for those who change what carry
// has to look at.
func (w *way) rouse() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.roused = !w.parked
	if w.parked && w.poller.Forget(w.ticket) {
		w.parked = false
		go w.run()
	}
}

// lasting is what a client's connection becomes when its exchange turns into a stream. It ends the connection, or begins
// to serve it again.
type lasting interface {
	begin() // in the goroutine that served the connection, which it may keep
	kill()  // the connection has been reset
}

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// sizeUp takes a larger buffer while there is much to carry.
func sizeUp(loan *wire.Loan, n int) {
	switch {
	case n >= wire.Small && n < wire.Large:
		loan.Reclaim()
		loan.Size = wire.Large
	case n < wire.Small && loan.Size > 0:
		loan.Reclaim()
		loan.Size = 0
	}
}
