// Package host is what a node owns on the machine it runs on: a slot, whose name begins the name of every cgroup,
// network interface, nftables table and directory the node makes, so that the next node can tell what a dead one left
// behind. It also looks at what the machine can do, for "lull doctor". It is for Linux only.
package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/lull-dev/lull"
)

const (
	// DefaultDir holds the slots of a machine's nodes.
	DefaultDir = "/run/lull"
	// Slots is how many nodes one machine can run side by side.
	Slots = 64
)

// Slot is a node's claim on a number from 0 to Slots-1. The kernel takes the claim back when the process dies, however
// it dies. Its methods may be called concurrently.
type Slot struct {
	index int
	dir   string // the directory of all slots
	claim claim

	release sync.Once
}

// Claim takes the lowest slot nobody holds. dir is where the slots' directories are; "" is DefaultDir. What an earlier
// holder of the slot has left is still there: see Sweep.
func Claim(dir string) (*Slot, error) {
	if dir == "" {
		dir = DefaultDir
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("claim a slot: %w", err)
	}
	for index := range Slots {
		slot, err := claimIndex(dir, index)
		if errors.Is(err, errHeld) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("claim slot %d: %w", index, err)
		}
		if err := os.MkdirAll(slot.Dir(), 0o755); err != nil {
			return nil, errors.Join(fmt.Errorf("claim slot %d: %w", index, err), slot.Release())
		}
		return slot, nil
	}
	return nil, &lull.Error{
		Kind:    lull.KindConflict,
		Message: fmt.Sprintf("all %d slots of this machine are held by running nodes", Slots),
		Hint:    "stop a node that is no longer needed",
	}
}

// Index is the slot's number.
func (s *Slot) Index() int { return s.index }

// Name begins the name of everything the node makes on this machine: lull3.
func (s *Slot) Name() string { return nameOf(s.index) }

// Dir is the node's directory for run-time files. What is in it does not outlive the node.
func (s *Slot) Dir() string { return filepath.Join(s.dir, s.Name()) }

// Release gives the slot back. Everything in it must have been closed; Dir is removed if it is empty.
func (s *Slot) Release() error {
	var err error
	s.release.Do(func() {
		_ = os.Remove(s.Dir()) // not empty is no error: Sweep takes the rest
		err = s.claim.close()
	})
	return err
}

func nameOf(index int) string { return fmt.Sprintf("lull%d", index) }

var errHeld = errors.New("slot is held")

// claim is what holds a slot. The file is locked against nodes that use the same directory, the socket's name against
// all others: interfaces and tables are named after the slot wherever its directory is.
type claim struct {
	file   *os.File
	socket int
}

func claimIndex(dir string, index int) (*Slot, error) {
	file, err := os.OpenFile(filepath.Join(dir, fmt.Sprintf("slot-%d", index)), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = file.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errHeld
		}
		return nil, fmt.Errorf("lock %s: %w", file.Name(), err)
	}
	socket, err := bindName(nameOf(index))
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return &Slot{index: index, dir: dir, claim: claim{file, socket}}, nil
}

// bindName takes a name in the abstract socket namespace, which is one per network namespace, as interfaces are.
func bindName(name string) (int, error) {
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("make socket: %w", err)
	}
	err = unix.Bind(socket, &unix.SockaddrUnix{Name: "@lull-slot/" + name})
	if err == nil {
		return socket, nil
	}
	_ = unix.Close(socket)
	if errors.Is(err, unix.EADDRINUSE) {
		return -1, errHeld
	}
	return -1, fmt.Errorf("bind the slot's name: %w", err)
}

func (c claim) close() error {
	return errors.Join(unix.Close(c.socket), c.file.Close())
}
