// Package sandbox is the isolation an environment runs in: the interface that drivers implement. There are two:
// sandbox/gvisor, the real one, and sandbox/process, plain processes for development. Both pass the suite in
// sandbox/sandboxtest.
package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/lull-dev/lull"
)

// ErrUnsupported is returned by a verb that the driver's Capabilities declare it lacks.
var ErrUnsupported = errors.New("not supported by this sandbox")

// ErrExited is returned by a verb on a sandbox whose process has ended.
var ErrExited = errors.New("sandbox has exited")

// ErrSnapshot is returned by Restore for a snapshot that this driver, on this machine, cannot make a sandbox of: it was
// made by another version, on another kind of processor, for another Spec, or is damaged. Trying again does not help.
var ErrSnapshot = errors.New("snapshot cannot be restored")

// Capabilities are what a driver can do. What is missing is declared here, not discovered by failing.
type Capabilities struct {
	Isolation bool // the process sees neither the host's files nor its network
	Limits    bool // Resources are enforced
	Egress    bool // Spec.Egress is enforced
	Images    bool // Spec.Root may be an image's file system
	Snapshot  bool // a sandbox can be put on disk and come back
	Ports     bool // every sandbox has all ports to itself

	Overhead lull.Size // memory that a sandbox may need on top of Spec.Limits
}

// Driver makes sandboxes. It may be called concurrently.
type Driver interface {
	// Name is "gvisor" or "process".
	Name() string
	Capabilities() Capabilities

	// Start makes a sandbox and starts its process. It returns as soon as the process runs, which is before the app is
	// ready. If it fails, or ctx ends before it returns, nothing is left behind. The caller owns the sandbox and must
	// call Close, also after the process has ended by itself.
	Start(ctx context.Context, spec Spec) (Sandbox, error)

	// Restore makes a sandbox of the snapshot in dir, if not a byte of that has changed, and lets it go on from where it
	// was paused: memory, timers, open files. spec is the one the sandbox was started with; Stdout, Stderr and Limited may differ. If Vacate has kept the
	// sandbox's address, connections go on too; otherwise all connections with the outside are cut, as the app sees it by
	// the far side. It returns as soon as the app runs; the files in dir are not needed after that, and must not be
	// restored again. If it fails, or ctx ends before it returns, nothing is left behind but what Vacate has kept. The
	// caller owns the sandbox as after Start.
	Restore(ctx context.Context, spec Spec, dir string) (Sandbox, error)

	// Release gives up what Vacate has kept for id, if there is anything.
	Release(id string)

	// Close ends and removes every sandbox that is left, and what Vacate has kept, and waits.
	Close() error
}

// Spec describes one sandbox.
type Spec struct {
	ID     string   // unique on this host; letters, digits and hyphens, at most 63
	Root   string   // directory with the root file system of an image, read-only below a layer in memory; "": the host's runtime
	Mounts []Mount  // on top of the root
	Args   []string // Args[0] is looked up in the PATH of Env
	Env    []string // the whole environment, KEY=value, with PATH and PORT
	Dir    string   // absolute working directory inside
	User   string   // "uid", "uid:gid", or a name from the image's /etc/passwd; "": an unprivileged user of the driver's choice
	Limits lull.Resources
	Egress lull.Egress
	Stdout io.Writer // what the process prints; written to by one goroutine each, until the process has ended
	Stderr io.Writer

	// Limited, if not nil, is told when the app is refused something by a limit that does not end it: a process, or room
	// to write; at most once a second for each limit. It is called by one goroutine and must not block for long.
	Limited func(Limit)

	// WritableRoot lets what is written to Root reach the host's directory, without a limit on it; Root must be given then,
	// and Mounts must not. It is for builds only. What they leave there is a stranger's, to be read as such.
	WritableRoot bool
}

// Mount shows a directory of the host inside a sandbox.
type Mount struct {
	Source string // absolute path on the host
	Target string // absolute path inside
	Mode   MountMode
}

// MountMode says what becomes of writes.
type MountMode uint8

const (
	ReadOnly  MountMode = iota
	Layered             // writable; writes stay in memory (counted against Limits.Disk) and end with the sandbox
	ReadWrite           // writes reach the host's directory; for builds only
)

// Sandbox is one process tree in its isolation. Its methods may be called concurrently; Pause and Resume are carried out
// in the order of the calls.
type Sandbox interface {
	ID() string

	// Listeners returns the TCP sockets that the sandbox's processes listen on, as the app sees them, in order of port.
	Listeners(ctx context.Context) ([]Listener, error)

	// Dial connects to a port that the app listens on, also when it listens on loopback only. The connection is silent
	// unless written to: it has no keep-alive probes.
	Dial(ctx context.Context, port int) (net.Conn, error)

	// Pause stops all processes where they stand: they use no CPU; memory and sockets are kept. Pausing a paused sandbox
	// does nothing.
	Pause(ctx context.Context) error

	// Resume undoes Pause. Resuming a running sandbox does nothing.
	Resume(ctx context.Context) error

	// Snapshot writes the sandbox, which must be paused, to dir, an empty directory. It can then be resumed as if nothing
	// had happened, which makes the snapshot worthless, or vacated, which makes it the one that counts. If it fails, or
	// ctx ends before it is done, the sandbox is paused and whole as before, or has ended, which the error says
	// (ErrExited); the files are then worthless.
	Snapshot(ctx context.Context, dir string) error

	// Vacate is Close for a sandbox that has a snapshot: it keeps the sandbox's network address, so that connections made
	// by Dial stay open, until Driver.Restore takes it over or Driver.Release gives it up. Nothing must be written to
	// these connections meanwhile. It fails, and does nothing, if the sandbox has been resumed since its snapshot or has
	// ended (ErrExited); then it is to be closed.
	Vacate() error

	// Unread returns on how many TCP connections from outside bytes have come in that the app has not read. A driver
	// without Capabilities.Snapshot may not know and return 0.
	Unread(ctx context.Context) (connections int, err error)

	// Usage reads the sandbox's resource counters.
	Usage() (Usage, error)

	// Done is closed as soon as the main process has ended, for whatever reason, and the output has been delivered.
	Done() <-chan struct{}

	// Exit says how the process ended. It is valid once Done is closed.
	Exit() Exit

	// Stop asks the process to end (SIGTERM), waits at most grace, then kills all that is left. It returns when the
	// process has ended. A paused sandbox is resumed first if grace is not 0.
	Stop(grace time.Duration)

	// Close kills what is left of the sandbox and removes all of it: processes, cgroups, namespaces, mounts, files. It
	// returns when that is done and may be called more than once.
	Close() error
}

// Listener is a TCP socket an app listens on.
type Listener struct {
	Addr netip.AddrPort // as the app bound it: 127.0.0.1:3000, 0.0.0.0:8080, [::]:5000
}

// Usage is what a sandbox uses.
type Usage struct {
	Memory lull.Size     // held at the moment
	CPU    time.Duration // used since its start
}

// Exit says how a sandbox's main process ended.
type Exit struct {
	Code   int    // exit code, or -1 if a signal ended it
	Signal string // SIGKILL, …; empty if it exited
	Limit  Limit  // which limit it went over; empty if none
	Err    error  // the sandbox itself broke; nil if only the process ended
}

// Limit names a limit of an environment.
type Limit string

const (
	LimitMemory    Limit = "memory"
	LimitProcesses Limit = "processes"
	LimitDisk      Limit = "disk"
)

// Describe names the limit, its size and the key of the manifest that sets it.
func (l Limit) Describe(limits lull.Resources) string {
	switch l {
	case LimitMemory:
		return fmt.Sprintf("its memory limit of %s (resources.memory)", limits.Memory)
	case LimitProcesses:
		return fmt.Sprintf("its limit of %d processes (resources.processes)", limits.Processes)
	case LimitDisk:
		return fmt.Sprintf("its disk limit of %s (resources.disk)", limits.Disk)
	}
	return "its limit"
}

// Describe says in half a sentence how the process ended, given the limits it ran under.
func (e Exit) Describe(limits lull.Resources) string {
	switch {
	case e.Limit != "":
		return "went over " + e.Limit.Describe(limits)
	case e.Err != nil:
		return "lost its sandbox: " + e.Err.Error()
	case e.Signal != "":
		return "was ended by " + e.Signal
	}
	return fmt.Sprintf("exited with code %d", e.Code)
}

// CheckSpec reports what is wrong with a spec that no driver could start.
func CheckSpec(spec Spec) error {
	switch {
	case spec.ID == "" || len(spec.ID) > 63 || strings.Trim(spec.ID, idLetters) != "":
		return fmt.Errorf("sandbox id %q is not 1 to 63 letters, digits and hyphens", spec.ID)
	case len(spec.Args) == 0 || spec.Args[0] == "":
		return errors.New("sandbox has no command")
	case !strings.HasPrefix(spec.Dir, "/"):
		return fmt.Errorf("sandbox working directory %q is not absolute", spec.Dir)
	case spec.WritableRoot && (spec.Root == "" || len(spec.Mounts) > 0):
		return errors.New("sandbox with a writable root has no root, or has mounts")
	}
	return nil
}

const idLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-"
