package process

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// lastWords is how long output is waited for after the process and all it has started were killed, each time anew when
// some comes. It ends at once as a rule, when the last holder of the pipe is gone; one that cannot be killed must not
// keep the sandbox from ending.
const lastWords = 500 * time.Millisecond

// output carries what a process prints to its writers.
type output struct {
	done sync.WaitGroup // the copying goroutines

	mu    sync.Mutex // guards what follows
	pipes []*os.File // the reading ends
	over  bool       // the processes have ended
}

// open returns the end a process writes to, which the caller closes once the process has it. to may be nil.
func (o *output) open(to io.Writer) (*os.File, error) {
	if to == nil {
		return os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	}
	from, end, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	o.mu.Lock()
	o.pipes = append(o.pipes, from)
	o.mu.Unlock()
	o.done.Go(func() { o.runCopy(from, to) })
	return end, nil
}

// runCopy copies until no process holds the pipe. open starts it, drain ends it in any case and waits.
func (o *output) runCopy(from *os.File, to io.Writer) {
	defer func() { _ = from.Close() }()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			_, _ = to.Write(buffer[:n]) // a process whose output cannot be kept goes on
		}
		if err != nil {
			return
		}
		o.mu.Lock()
		if o.over {
			_ = from.SetReadDeadline(time.Now().Add(lastWords))
		}
		o.mu.Unlock()
	}
}

// drain waits until all output has been delivered. The processes must have ended.
func (o *output) drain() {
	o.mu.Lock()
	o.over = true
	for _, pipe := range o.pipes {
		_ = pipe.SetReadDeadline(time.Now().Add(lastWords))
	}
	o.mu.Unlock()
	o.done.Wait()
}
