// Package gvisor runs environments in gVisor sandboxes. gVisor is linked in and driven in this process; the sandboxes'
// own processes are this binary once more, which is why main must call Main first.
//
// A sandbox is two processes in a cgroup of their own: the sentry, which is the kernel the app sees (and the app's
// threads, which run in stub processes of the sentry's), and the gofer, which opens files for it. Both end when the
// node does. See order for what they are told, root for the file system, patchSyscalls for what is changed in gVisor,
// snapshot for how a sandbox sleeps on disk.
package gvisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	gvisorlog "gvisor.dev/gvisor/pkg/log"
	"gvisor.dev/gvisor/runsc/specutils"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/host"
	"github.com/lull-dev/lull/network"
	"github.com/lull-dev/lull/sandbox"
)

// gVisor brings a thread back from another network namespace by way of /proc/self/ns, which is the main thread's. So the
// main thread must not be elsewhere itself: the main goroutine keeps it, and no other that changes namespaces can run
// there. The sandboxes' own processes have no use for this; it would slow their start.
func init() {
	if !isPart(os.Args) {
		runtime.LockOSThread()
	}
}

// Options configure a Driver. Slot and Network are required and stay the caller's: they are to be closed after the
// driver.
type Options struct {
	Slot    *host.Slot
	Network *network.Network
	Log     *slog.Logger

	// Executable is the binary that sandboxes are made of: static, and with Main as the first thing it does. "" is the
	// running one. All drivers of a process share it.
	Executable string

	// Scratch is a directory on a disk, for what environments write (up to Limits.Disk each, in files without a name);
	// "" is /var/tmp. If it is in memory, what is written there counts as the environment's memory.
	Scratch string
}

// Driver makes gVisor sandboxes.
type Driver struct {
	slot    *host.Slot
	network *network.Network
	log     *slog.Logger
	scratch string
	dir     string // of all sandboxes
	cgroups cgroupHost
	spares  spares

	mu        sync.Mutex               // guards what follows
	sandboxes map[string]*box          // by id; nil while it starts
	kept      map[string]*network.Link // of vacated sandboxes, by id
	starting  sync.WaitGroup           // added to under mu, not after closed
	closed    bool
}

const (
	etcDir       = "etc" // in Driver.dir: holds the synthetic root/etc
	sandboxesDir = "sandboxes"
)

// New prepares the host for sandboxes. The caller must Close the driver.
func New(opts Options) (_ *Driver, err error) {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Scratch == "" {
		opts.Scratch = "/var/tmp"
	}
	d := &Driver{
		slot: opts.Slot, network: opts.Network, log: opts.Log, scratch: opts.Scratch,
		dir: filepath.Join(opts.Slot.Dir(), "gvisor"), sandboxes: map[string]*box{}, kept: map[string]*network.Link{},
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("open gvisor driver: %w", errors.Join(err, os.RemoveAll(d.dir)))
		}
	}()
	if os.Geteuid() != 0 {
		return nil, &lull.Error{Kind: lull.KindUnsupported, Message: "gvisor sandboxes need root", Hint: "run as root, or use --sandbox process"}
	}
	if d.cgroups, err = findCgroups(); err != nil {
		return nil, err
	}
	if err := useExecutable(opts.Executable); err != nil {
		return nil, err
	}
	gvisorlog.SetTarget(gvisorLogger{opts.Log})
	if err := errors.Join(os.RemoveAll(d.dir), os.MkdirAll(filepath.Join(d.dir, sandboxesDir), 0o711)); err != nil {
		return nil, err
	}
	if err := makeEtc(d.etc(), opts.Network.NameServers()); err != nil {
		return nil, err
	}
	d.spares.make, d.spares.needed, d.spares.log = d.makeSpare, d.anyKept, d.log
	return d, nil
}

// etcRoot is a directory that looks like a root file system with nothing but /etc.
func (d *Driver) etcRoot() string { return filepath.Join(d.dir, "synthetic") }
func (d *Driver) etc() string     { return filepath.Join(d.etcRoot(), etcDir) }

// useExecutable tells gVisor what to start.
func useExecutable(path string) error {
	if path == "" {
		return nil
	}
	path, err := filepath.Abs(path)
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		return fmt.Errorf("find the sandboxes' executable: %w", err)
	}
	exePathMu.Lock()
	defer exePathMu.Unlock()
	specutils.ExePath = path
	return nil
}

// exePathMu guards gVisor's variable.
var exePathMu sync.Mutex

// Name is "gvisor".
func (d *Driver) Name() string { return "gvisor" }

// Capabilities are all there are.
func (d *Driver) Capabilities() sandbox.Capabilities {
	return sandbox.Capabilities{Isolation: true, Limits: true, Egress: true, Images: true, Snapshot: true, Ports: true, Overhead: overheadMemory}
}

// Start makes a sandbox and starts its process.
func (d *Driver) Start(ctx context.Context, spec sandbox.Spec) (sandbox.Sandbox, error) {
	if err := sandbox.CheckSpec(spec); err != nil {
		return nil, err
	}
	b, err := d.open(ctx, spec, nil)
	if err != nil {
		return nil, fmt.Errorf("start sandbox %s: %w", spec.ID, err)
	}
	return b, nil
}

// Restore makes a sandbox of the snapshot in dir. A sentry that does not come up is given restoreLimit, or until ctx ends.
func (d *Driver) Restore(ctx context.Context, spec sandbox.Spec, dir string) (sandbox.Sandbox, error) {
	if err := sandbox.CheckSpec(spec); err != nil {
		return nil, err
	}
	from, err := openSnapshot(spec, dir)
	if err != nil {
		return nil, fmt.Errorf("restore sandbox %s: %w", spec.ID, err)
	}
	ctx, cancel := context.WithTimeout(ctx, restoreLimit)
	defer cancel()
	b, err := d.open(ctx, spec, from)
	if err != nil {
		return nil, fmt.Errorf("restore sandbox %s: %w", spec.ID, err)
	}
	return b, nil
}

// open makes a sandbox, of a snapshot if there is one.
func (d *Driver) open(ctx context.Context, spec sandbox.Spec, from *snapshot) (*box, error) {
	if err := d.reserve(spec.ID, from != nil); err != nil {
		return nil, err
	}
	defer d.starting.Done()
	defer d.spares.busy(from != nil)()
	var b *box
	var err error
	started := make(chan struct{})
	go func() { // not on the caller's goroutine, which may be the main one: see init
		defer close(started)
		b, err = d.start(ctx, spec, from)
	}()
	<-started
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		delete(d.sandboxes, spec.ID)
		return nil, err
	}
	d.sandboxes[spec.ID] = b
	return b, nil
}

// reserve takes an id for a sandbox that is being made. Unless it fails, d.starting is to be told of the end.
func (d *Driver) reserve(id string, restore bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return errors.New("driver is closed")
	}
	if _, taken := d.sandboxes[id]; taken {
		return fmt.Errorf("there is a sandbox %s already", id)
	}
	if d.kept[id] != nil && !restore {
		return fmt.Errorf("there is a vacated sandbox %s already", id)
	}
	d.sandboxes[id] = nil
	d.starting.Add(1)
	return nil
}

// forget gives the id of a sandbox free that has been closed.
func (d *Driver) forget(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.sandboxes, id)
}

// Close ends and removes every sandbox that is left, waits, and removes what New made.
func (d *Driver) Close() error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil
	}
	d.closed = true
	d.mu.Unlock()
	d.starting.Wait()
	spares := d.spares.close()

	errs := make(chan error)
	left := d.left()
	for _, b := range left {
		go func() { errs <- b.Close() }() // the loop below waits
	}
	all := []error{spares}
	for range left {
		all = append(all, <-errs)
	}
	for _, link := range d.takeAllKept() {
		all = append(all, link.Close())
	}
	d.cgroups.tidy(d.slot.Name())
	return errors.Join(append(all, os.RemoveAll(d.dir))...)
}

func (d *Driver) left() (left []*box) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, b := range d.sandboxes {
		left = append(left, b)
	}
	return left
}

// keep keeps the link of a vacated sandbox.
func (d *Driver) keep(id string, link *network.Link) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.kept[id] = link
	return nil
}

// anyKept reports whether a sandbox is vacated, that is, on disk and not given up.
func (d *Driver) anyKept() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.kept) > 0
}

// takeKept returns the link that was kept for id, nil if there is none. The caller owns it.
func (d *Driver) takeKept(id string) *network.Link {
	d.mu.Lock()
	defer d.mu.Unlock()
	link := d.kept[id]
	delete(d.kept, id)
	return link
}

func (d *Driver) takeAllKept() map[string]*network.Link {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := d.kept
	d.kept = map[string]*network.Link{}
	return all
}

// Release gives up the link that Vacate has kept for id, if there is one.
func (d *Driver) Release(id string) {
	link := d.takeKept(id)
	if link == nil {
		return
	}
	if err := link.Close(); err != nil {
		d.log.Warn("giving up the network of a vacated sandbox failed", "sandbox", id, "error", err)
	}
}
