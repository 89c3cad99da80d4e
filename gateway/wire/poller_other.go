//go:build !linux

package wire

const canPark = false

// Poller cannot watch here: those who wait keep their goroutines.
type Poller struct{}

// Ticket stands for a connection that is parked.
type Ticket uint64

// Park always fails here.
func (p *Poller) Park(*Conn, bool, func()) (Ticket, error) { return 0, ErrNoSocket }

// Forget reports false: nothing is parked.
func (p *Poller) Forget(Ticket) bool { return false }

// Close does nothing.
func (p *Poller) Close() {}
