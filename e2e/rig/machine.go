package rig

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// runDir is where nodes keep what lives only as long as they do.
const runDir = "/run/lull"

// slotOf returns the name of the slot that a node holds: it keeps the slot's file open as long as it lives.
func slotOf(pid int) string {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, _ := os.ReadDir(dir)
	for _, entry := range entries {
		target, _ := os.Readlink(filepath.Join(dir, entry.Name()))
		if number, ok := strings.CutPrefix(target, runDir+"/slot-"); ok {
			return "lull" + number
		}
	}
	return ""
}

// RSS returns the resident memory of a process in bytes.
func RSS(pid int) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "VmRSS:" {
			kilobytes, err := strconv.ParseInt(fields[1], 10, 64)
			return kilobytes << 10, err
		}
	}
	return 0, fmt.Errorf("process %d has no VmRSS", pid)
}

// StreamsThatFit returns how many of the wanted streams one node can have on this machine: each takes two of the files that
// its process may have open, the client's side and the environment's. It raises the limit for this process, and so for
// the node it starts, as far as it may.
func StreamsThatFit(wanted int) int {
	const others = 600 // of the node's own: sandboxes, storage, the pool of connections
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	need := uint64(2*wanted + others)
	if limit.Max < need {
		raised := syscall.Rlimit{Cur: need, Max: need}
		if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &raised) == nil {
			limit = raised
		}
	}
	return min(wanted, (int(min(limit.Max, need))-others)/2)
}

// CPU returns the processor time, user and system, that a process itself has used.
func CPU(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name, in parentheses, may hold anything: the fields are counted from behind it. utime and stime are the 14th
	// and 15th of all.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux that Go runs on
	return time.Duration(user+system) * tick, errors.Join(err1, err2)
}

// CgroupCPU returns the processor time that the cgroups of an environment count, as the kernel prints it; an error if
// there is no such cgroup. It reads cgroup v1 and v2.
func CgroupCPU(slot, environment string) (string, error) {
	var counters []string
	for _, dir := range cgroups(slot) {
		if !strings.Contains(dir, environment) {
			continue
		}
		if usage, err := os.ReadFile(filepath.Join(dir, "cpuacct.usage")); err == nil {
			counters = append(counters, dir+" "+strings.TrimSpace(string(usage)))
		}
		if stat, err := os.ReadFile(filepath.Join(dir, "cpu.stat")); err == nil {
			if line, _, _ := strings.Cut(string(stat), "\n"); strings.HasPrefix(line, "usage_usec") {
				counters = append(counters, dir+" "+line)
			}
		}
	}
	if len(counters) == 0 {
		return "", fmt.Errorf("no cgroup of %s below %s counts processor time", environment, slot)
	}
	sort.Strings(counters)
	return strings.Join(counters, "\n"), nil
}

// Remains lists everything on this machine that belongs to a slot or runs from a binary: processes, network namespaces,
// interfaces, mounts, nftables tables, cgroups of every hierarchy, run-time files. Of a node that has ended there must
// be none. Either argument may be "".
func Remains(slot, binary string) []string {
	found := Processes(binary)
	if slot == "" {
		return found
	}
	// While this holds the slot no other node can take it, and what is counted is not another's.
	hold, err := holdSlot(slot)
	if err != nil {
		return append(found, fmt.Sprintf("(%s cannot be counted: %v)", slot, err))
	}
	defer hold.Close()
	return append(found, Holdings(slot)...)
}

// Holdings lists what a slot has on this machine, but for processes: network namespaces, interfaces, mounts, nftables
// tables, cgroups, run-time files.
func Holdings(slot string) []string {
	var found []string
	for _, dir := range cgroups(slot) {
		found = append(found, "cgroup "+dir)
	}
	found = append(found, named("interface", "/sys/class/net", slot)...)
	found = append(found, named("network namespace", "/run/netns", slot)...)
	if entries, err := os.ReadDir(filepath.Join(runDir, slot)); err == nil && len(entries) > 0 {
		found = append(found, fmt.Sprintf("files %s/%s: %s …", runDir, slot, entries[0].Name()))
	}
	mounts, _ := os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 1 && strings.HasPrefix(fields[1], filepath.Join(runDir, slot)+"/") {
			found = append(found, "mount "+fields[1])
		}
	}
	tables, err := exec.Command("nft", "list", "tables").Output()
	if err != nil {
		found = append(found, fmt.Sprintf("(nftables cannot be listed: %v)", err))
	}
	for line := range strings.Lines(string(tables)) {
		if fields := strings.Fields(line); len(fields) == 3 && belongs(fields[2], slot) {
			found = append(found, "nftables "+strings.TrimSpace(line))
		}
	}
	return found
}

// holdSlot takes the lock of a slot that no node holds; closing the file gives it back.
func holdSlot(slot string) (*os.File, error) {
	if err := os.MkdirAll(runDir, 0o755); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(filepath.Join(runDir, "slot-"+strings.TrimPrefix(slot, "lull")), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", file.Name(), err), file.Close())
	}
	return file, nil
}

// Processes lists those whose program is binary, also if the file has been removed since.
func Processes(binary string) []string {
	if binary == "" {
		return nil
	}
	var found []string
	links, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, link := range links {
		target, _ := os.Readlink(link)
		if strings.TrimSuffix(target, " (deleted)") == binary {
			command, _ := os.ReadFile(filepath.Join(filepath.Dir(link), "cmdline"))
			text := strings.TrimSpace(strings.ReplaceAll(string(command), "\x00", " "))
			found = append(found, fmt.Sprintf("process %s: %.100s", filepath.Base(filepath.Dir(link)), text))
		}
	}
	return found
}

// cgroups lists the cgroups of a slot in every hierarchy.
func cgroups(slot string) []string {
	var found []string
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return nil // gone meanwhile, or a file
		}
		for part := range strings.SplitSeq(path, "/") {
			if belongs(part, slot) {
				found = append(found, path)
				break
			}
		}
		return nil
	})
	return found
}

func named(what, dir, slot string) []string {
	var found []string
	entries, _ := os.ReadDir(dir)
	for _, entry := range entries {
		if belongs(entry.Name(), slot) {
			found = append(found, what+" "+entry.Name())
		}
	}
	return found
}

var digits = regexp.MustCompile(`^[0-9]`)

// belongs reports whether a name is a slot's: lull1-a3 is one of lull1, lull12 is not.
func belongs(name, slot string) bool {
	rest, ok := strings.CutPrefix(name, slot)
	return ok && !digits.MatchString(rest)
}
