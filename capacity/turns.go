package capacity

import (
	"context"
	"runtime"

	"golang.org/x/sync/semaphore"
)

// Turns bounds how many do something at a time. The rest wait, in the order of coming.
type Turns struct {
	most     int
	weighted *semaphore.Weighted
}

// NewTurns lets n at a time; 0 is two for each processor.
func NewTurns(n int) *Turns {
	if n <= 0 {
		n = 2 * runtime.NumCPU()
	}
	return &Turns{n, semaphore.NewWeighted(int64(n))}
}

// Most returns how many there are at a time.
func (t *Turns) Most() int { return t.most }

// Take waits for a turn; done ends it. It fails with the error of ctx.
func (t *Turns) Take(ctx context.Context) (done func(), err error) {
	if err := t.weighted.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	return func() { t.weighted.Release(1) }, nil
}
