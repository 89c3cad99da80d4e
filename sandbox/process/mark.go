package process

import (
	"fmt"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// mark is a number that a process carries and hands down to everything it starts, so that the whole tree of a sandbox
// can be found however its processes have moved: into other groups and sessions, away from their parents, with another
// environment.
//
// It is kept in a resource limit that has meant nothing since Linux 2.4, the number of file locks: processes inherit
// limits, and whoever may signal a process may read its limits.
type mark uint64

// A mark is made of markKey, which tells it from a limit that somebody has set, the node's process and a serial number.
const (
	markKey    = 0x4c75
	nodeBits   = 22 // the most a process number has
	serialBits = 25
)

var serial atomic.Uint32

// newMark returns a mark no other sandbox has.
func newMark() mark {
	return mark(markKey<<(nodeBits+serialBits) | uint64(os.Getpid())<<serialBits | uint64(serial.Add(1)%(1<<serialBits)))
}

func (m mark) valid() bool { return m>>(nodeBits+serialBits) == markKey }

// node is the process that has made the mark.
func (m mark) node() int { return int(m >> serialBits & (1<<nodeBits - 1)) }

// put marks a process.
func (m mark) put(pid int) error {
	limit := unix.Rlimit{Cur: uint64(m), Max: uint64(m)}
	if err := unix.Prlimit(pid, unix.RLIMIT_LOCKS, &limit, nil); err != nil {
		return fmt.Errorf("mark process %d: %w", pid, err)
	}
	return nil
}

// markOf returns the mark of a process, not a valid one if it has none or is none of ours.
func markOf(pid int) mark {
	var limit unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_LOCKS, nil, &limit); err != nil {
		return 0
	}
	return mark(limit.Max)
}

// endOrphans kills what marked processes of nodes that died have left. Processes in a container are left alone: their
// node has another number there.
func endOrphans() int {
	count := 0
	own, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return 0
	}
	for _, pid := range allProcesses() {
		m := markOf(pid)
		if !m.valid() || unix.Kill(m.node(), 0) != unix.ESRCH {
			continue
		}
		if namespace, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid)); err != nil || namespace != own {
			continue
		}
		if _, err := readStat(pid); err != nil { // dead already, and not yet forgotten
			continue
		}
		if unix.Kill(pid, unix.SIGKILL) == nil {
			count++
		}
	}
	return count
}
