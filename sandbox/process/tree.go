package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// member is a living process of a sandbox.
type member struct {
	pid    int
	group  int
	memory int64         // resident bytes
	cpu    time.Duration // of itself and of children that have ended
}

// members finds the processes that belong to the sandbox: those with its mark, and those in its session, in case one was
// started before the mark was put.
func members(leader int, m mark) []member {
	var found []member
	for _, pid := range allProcesses() {
		if pid != leader && markOf(pid) != m {
			if session, err := unix.Getsid(pid); err != nil || session != leader {
				continue
			}
		}
		if process, err := readStat(pid); err == nil { // else it has just ended
			found = append(found, process)
		}
	}
	return found
}

// readStat reads what a process is and uses. It fails with errDead for one that has ended but is still known.
func readStat(pid int) (member, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return member{}, err
	}
	return parseStat(stat)
}

var errDead = errors.New("process is dead")

// tick is the unit of CPU time in /proc, which is fixed on Linux.
const tick = time.Second / 100

// parseStat reads the format of /proc/PID/stat, see proc_pid_stat(5). The name, in parentheses, may hold anything.
func parseStat(stat []byte) (member, error) {
	open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return member{}, fmt.Errorf("%q is not in the format of stat", stat)
	}
	pid, err := strconv.Atoi(string(bytes.TrimSpace(stat[:open])))
	if err != nil {
		return member{}, fmt.Errorf("%q is not in the format of stat", stat)
	}
	words := bytes.Fields(stat[end+1:])
	// Positions are the manual's less 3: it counts from 1, and two words stand before.
	const state, group, firstTime, lastTime, resident = 0, 2, 11, 14, 21
	if len(words) <= resident {
		return member{}, fmt.Errorf("%q is not in the format of stat", stat)
	}
	if slices.Contains([]string{"Z", "X", "x"}, string(words[state])) {
		return member{}, errDead
	}
	number := func(position int) int64 {
		value, parseErr := strconv.ParseInt(string(words[position]), 10, 64)
		err = errors.Join(err, parseErr)
		return value
	}
	process := member{pid: pid, group: int(number(group)), memory: number(resident) * int64(os.Getpagesize())}
	for position := firstTime; position <= lastTime; position++ { // user and system, own and of ended children
		process.cpu += time.Duration(number(position)) * tick
	}
	return process, err
}

// allProcesses lists the processes of this machine.
func allProcesses() []int {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer func() { _ = dir.Close() }()
	names, _ := dir.Readdirnames(-1)
	var pids []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}
