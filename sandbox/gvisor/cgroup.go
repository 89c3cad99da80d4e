package gvisor

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lull-dev/lull"
)

// What a sandbox needs besides its app, on top of the app's limits.
const (
	// overheadMemory is for the sentry's and the gofer's own heaps, stacks and page tables. An idle sandbox was measured
	// at 9 MB, each open connection at 7 KB more: it is enough for 7,000 of them. What gVisor uses more than this the app
	// has less.
	overheadMemory = 64 * lull.MB
	// overheadProcesses is for the threads of the sentry and the gofer. Every process of the app costs at least one
	// thread of the host as well, every thread may.
	overheadProcesses = 512
)

const (
	cgroupRoot = "/sys/fs/cgroup"
	cpuPeriod  = 100 * time.Millisecond // the kernel's default
)

// cgroupHost is the machine's cgroup hierarchy: version 2, or the separate hierarchies of version 1.
type cgroupHost struct {
	root string
	v2   bool
}

func findCgroups() (cgroupHost, error) {
	var info unix.Statfs_t
	if err := unix.Statfs(cgroupRoot, &info); err != nil {
		return cgroupHost{}, fmt.Errorf("look for cgroups: %w", err)
	}
	host := cgroupHost{root: cgroupRoot, v2: info.Type == unix.CGROUP2_SUPER_MAGIC}
	for _, dir := range host.dirs("") {
		if _, err := os.Stat(dir); err != nil {
			return cgroupHost{}, fmt.Errorf("look for cgroup controllers: %w", err)
		}
	}
	return host, nil
}

var controllersV1 = []string{"memory", "cpu", "cpuacct", "pids"}

// dirs returns the directories that make up the cgroup of this name.
func (h cgroupHost) dirs(name string) (dirs []string) {
	if h.v2 {
		return []string{filepath.Join(h.root, name)}
	}
	for _, controller := range controllersV1 {
		dirs = append(dirs, filepath.Join(h.root, controller, name))
	}
	return dirs
}

// remove removes a cgroup that has no processes, or will have none in a moment: the kernel takes a while to let go.
func (h cgroupHost) remove(name string) error {
	var errs []error
	deadline := time.Now().Add(5 * time.Second)
	for _, dir := range h.dirs(name) {
		err := unix.Rmdir(dir)
		for errors.Is(err, unix.EBUSY) && time.Now().Before(deadline) {
			time.Sleep(2 * time.Millisecond)
			err = unix.Rmdir(dir)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove cgroup %s: %w", dir, err))
		}
	}
	return errors.Join(errs...)
}

// tidy removes a cgroup that others may be in as well, or have been: not if it has members or children.
func (h cgroupHost) tidy(name string) {
	for _, dir := range h.dirs(name) {
		_ = unix.Rmdir(dir)
	}
}

// cgroup is the cgroup of one sandbox.
type cgroup struct {
	host cgroupHost
	name string // below the root: lull3/chat-1
	cpu  float64
}

// setting is a value for a control file. One that is optional may be missing in the kernel.
type setting struct {
	controller, file, value string // controller: of version 1
	optional                bool
}

// make makes the cgroup with its limits, except that of the CPU: see limitCPU.
func (h cgroupHost) make(name string, limits lull.Resources) (_ *cgroup, err error) {
	c := &cgroup{host: h, name: name, cpu: limits.CPU}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("make cgroup %s: %w", name, err), h.remove(name))
		}
	}()
	if h.v2 {
		if err := h.delegate(filepath.Dir(name)); err != nil {
			return nil, err
		}
	}
	for _, dir := range h.dirs(name) {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	return c, c.apply(h.limits(limits))
}

// delegate switches the controllers on for the children of parent, which in version 2 each level has to do.
func (h cgroupHost) delegate(parent string) error {
	if err := os.MkdirAll(filepath.Join(h.root, parent), 0o755); err != nil {
		return err
	}
	for _, dir := range []string{h.root, filepath.Join(h.root, parent)} {
		if err := writeControl(filepath.Join(dir, "cgroup.subtree_control"), "+memory +cpu +pids"); err != nil {
			return err
		}
	}
	return nil
}

func (h cgroupHost) limits(limits lull.Resources) (settings []setting) {
	if limits.Memory > 0 {
		bytes := strconv.FormatInt(int64(limits.Memory+overheadMemory), 10)
		if h.v2 {
			settings = append(settings, setting{file: "memory.max", value: bytes},
				setting{file: "memory.swap.max", value: "0", optional: true},
				setting{file: "memory.oom.group", value: "1"})
		} else {
			settings = append(settings, setting{controller: "memory", file: "memory.limit_in_bytes", value: bytes},
				setting{controller: "memory", file: "memory.memsw.limit_in_bytes", value: bytes, optional: true})
		}
	}
	if limits.Processes > 0 {
		count := strconv.Itoa(4*limits.Processes + overheadProcesses)
		settings = append(settings, setting{controller: "pids", file: "pids.max", value: count})
	}
	return settings
}

// limitCPU sets the limit of the CPU.
func (c *cgroup) limitCPU() error {
	if c.cpu <= 0 {
		return nil
	}
	period := strconv.FormatInt(cpuPeriod.Microseconds(), 10)
	quota := strconv.FormatInt(int64(math.Ceil(c.cpu*float64(cpuPeriod.Microseconds()))), 10)
	if c.host.v2 {
		return c.apply([]setting{{file: "cpu.max", value: quota + " " + period}})
	}
	return c.apply([]setting{{controller: "cpu", file: "cpu.cfs_period_us", value: period}, {controller: "cpu", file: "cpu.cfs_quota_us", value: quota}})
}

func (c *cgroup) apply(settings []setting) error {
	for _, s := range settings {
		err := writeControl(c.file(s.controller, s.file), s.value)
		if err != nil && !(s.optional && errors.Is(err, fs.ErrNotExist)) {
			return err
		}
	}
	return nil
}

func writeControl(file, value string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0) // not created if the kernel does not have it
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// file returns the path of a control file. The controller matters in version 1 only.
func (c *cgroup) file(controller, name string) string {
	if c.host.v2 {
		return filepath.Join(c.host.root, c.name, name)
	}
	return filepath.Join(c.host.root, controller, c.name, name)
}

// joins returns the files that a process writes 0 to, to become a member.
func (c *cgroup) joins() (files []string) {
	for _, dir := range c.host.dirs(c.name) {
		files = append(files, filepath.Join(dir, "cgroup.procs"))
	}
	return files
}

// kill sends SIGKILL to all members.
func (c *cgroup) kill() {
	if c.host.v2 && writeControl(c.file("", "cgroup.kill"), "1") == nil {
		return
	}
	data, _ := os.ReadFile(c.file("pids", "cgroup.procs"))
	for pid := range strings.FieldsSeq(string(data)) {
		if n, err := strconv.Atoi(pid); err == nil && n > 1 {
			_ = unix.Kill(n, unix.SIGKILL)
		}
	}
}

func (c *cgroup) remove() error { return c.host.remove(c.name) }

// memory returns the memory held, without file pages the kernel would give away first.
func (c *cgroup) memory() (lull.Size, error) {
	file, inactive := c.file("memory", "memory.usage_in_bytes"), "total_inactive_file"
	if c.host.v2 {
		file, inactive = c.file("", "memory.current"), "inactive_file"
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	held, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	if err != nil {
		return 0, err
	}
	spare, err := c.counter("memory", "memory.stat", inactive)
	return lull.Size(max(0, held-spare)), err
}

// cpuTime returns the CPU time used.
func (c *cgroup) cpuTime() (time.Duration, error) {
	if c.host.v2 {
		used, err := c.counter("", "cpu.stat", "usage_usec")
		return time.Duration(used) * time.Microsecond, err
	}
	data, err := os.ReadFile(c.file("cpuacct", "cpuacct.usage"))
	if err != nil {
		return 0, err
	}
	used, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	return time.Duration(used), err
}

// starved returns how often the kernel killed a member for want of memory.
func (c *cgroup) starved() int64 {
	file := "memory.oom_control"
	if c.host.v2 {
		file = "memory.events"
	}
	n, _ := c.counter("memory", file, "oom_kill")
	return n
}

// crowded returns how often a member was refused a process or thread.
func (c *cgroup) crowded() int64 {
	n, _ := c.counter("pids", "pids.events", "max")
	return n
}

// counter reads one line of a file of lines "name value".
func (c *cgroup) counter(controller, file, name string) (int64, error) {
	data, err := os.ReadFile(c.file(controller, file))
	if err != nil {
		return 0, err
	}
	return findCounter(data, name), nil
}

func findCounter(data []byte, name string) int64 {
	for line := range bytes.Lines(data) {
		fields := strings.Fields(string(line))
		if len(fields) == 2 && fields[0] == name {
			n, _ := strconv.ParseInt(fields[1], 10, 64)
			return n
		}
	}
	return 0
}
