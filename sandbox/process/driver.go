// Package process is the sandbox for development: a plain process group without isolation. An app sees the files and
// the network of the host and runs as the node's user; no limit of its resources and no egress is enforced, and it
// cannot be hibernated. What is left: it is started, paused (SIGSTOP), resumed, watched and ended with everything it has
// started, and it needs neither root nor anything installed. It is for Linux only.
//
// Mounts are not copied or layered: a path below a mount's Target stands for the path below its Source, in Spec.Dir, in
// the command, and in arguments and environment variables that consist of paths. An app that writes to its directory
// writes to the release, which all its environments share.
//
// All sandboxes share the host's ports: whoever starts several gives each a PORT of its own.
package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"

	"github.com/lull-dev/lull/sandbox"
)

// Driver starts processes. See package sandbox for its contract.
type Driver struct {
	log      *slog.Logger
	launches chan func()   // received by runLaunches, never closed
	ended    chan struct{} // closed by Close
	done     sync.WaitGroup

	mu     sync.Mutex // guards what follows
	boxes  map[string]*box
	used   bool // there was a Start
	closed bool
}

// New returns a driver. Its Close ends what it starts.
func New(log *slog.Logger) *Driver {
	return &Driver{
		log:      log,
		launches: make(chan func()),
		ended:    make(chan struct{}),
		boxes:    map[string]*box{},
	}
}

// Name is "process".
func (d *Driver) Name() string { return "process" }

// Capabilities are none.
func (d *Driver) Capabilities() sandbox.Capabilities { return sandbox.Capabilities{} }

// Start starts a process. The first one also ends processes that were left by nodes that died.
func (d *Driver) Start(ctx context.Context, spec sandbox.Spec) (sandbox.Sandbox, error) {
	if err := sandbox.CheckSpec(spec); err != nil {
		return nil, err
	}
	if spec.Root != "" {
		return nil, fmt.Errorf("run an image: %w", sandbox.ErrUnsupported)
	}
	b, err := d.start(ctx, spec)
	if err != nil {
		return nil, fmt.Errorf("start process %s: %w", spec.ID, err)
	}
	return b, nil
}

func (d *Driver) start(ctx context.Context, spec sandbox.Spec) (*box, error) {
	cmd, err := command(spec)
	if err != nil {
		return nil, err
	}
	b := newBox(d, spec, cmd)
	if err := d.register(b); err != nil {
		return nil, err
	}
	if err = ctx.Err(); err == nil {
		err = b.start()
	}
	if err != nil {
		d.forget(b)
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// Close ends all processes that are left.
func (d *Driver) Close() error {
	d.mu.Lock()
	first := !d.closed
	d.closed = true
	var boxes []*box
	for _, b := range d.boxes {
		boxes = append(boxes, b)
	}
	d.mu.Unlock()

	errs := make([]error, len(boxes))
	var closing sync.WaitGroup
	for i, b := range boxes {
		closing.Go(func() { errs[i] = b.Close() })
	}
	closing.Wait()
	if first {
		close(d.ended)
	}
	d.done.Wait()
	return errors.Join(errs...)
}

// register makes the sandbox known by its id, before its process runs.
func (d *Driver) register(b *box) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return errors.New("driver is closed")
	case d.boxes[b.spec.ID] != nil:
		return errors.New("there is a sandbox with this id")
	}
	d.boxes[b.spec.ID] = b
	if !d.used {
		d.used = true
		d.done.Go(d.runLaunches)
	}
	return nil
}

func (d *Driver) forget(b *box) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.boxes[b.spec.ID] == b {
		delete(d.boxes, b.spec.ID)
	}
}

// runLaunches starts all processes from one thread that lives as long as the driver, because the kernel ends a process
// when its parent's *thread* has died. That is how an app does not outlive a node that is killed; what the app itself
// has started may, and is ended here, by the next node. The first Start starts it, Close ends it and waits.
func (d *Driver) runLaunches() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if ended := endOrphans(); ended > 0 {
		d.log.Info("processes of a dead node ended", "processes", ended)
	}
	for {
		select {
		case launch := <-d.launches:
			launch()
		case <-d.ended:
			return
		}
	}
}

// Restore is not supported: there are no snapshots.
func (d *Driver) Restore(context.Context, sandbox.Spec, string) (sandbox.Sandbox, error) {
	return nil, sandbox.ErrUnsupported
}

// Release has nothing to do.
func (d *Driver) Release(string) {}
