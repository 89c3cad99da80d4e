package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lull-dev/lull"
)

// Finding is one thing that was looked at.
type Finding struct {
	Name   string
	OK     bool
	Detail string // what was found
	Fix    string // what a person can do about it; may be there although OK, for what only some apps need
}

// checkTimeout bounds each check that runs a program.
const checkTimeout = 5 * time.Second

// Check looks at what a node with the gvisor sandbox needs of this machine, and at the runtimes that apps may need. It
// changes nothing.
func Check(ctx context.Context) []Finding {
	findings := []Finding{
		checkKernel(), checkRoot(), checkNamespaces(ctx), checkPlatform(), checkCgroups(),
		checkVeth(), checkNftables(), checkFirewall(), checkNameServers(),
		checkDisk("/var/lib"), checkMemory(), checkFiles(),
	}
	for _, runtime := range runtimes {
		findings = append(findings, checkRuntime(ctx, runtime))
	}
	return findings
}

// found turns the outcome of a check into a finding.
func found(name, detail string, err error, fix string) Finding {
	if err != nil {
		return Finding{Name: name, Detail: err.Error(), Fix: fix}
	}
	return Finding{Name: name, OK: true, Detail: detail}
}

// The oldest kernel with everything Lull asks of it: sets of concatenated ranges in nftables.
const kernelMajor, kernelMinor = 5, 6

func checkKernel() Finding {
	const fix = "install a newer kernel; until then --sandbox process works, for development"
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return found("kernel", "", err, fix)
	}
	release := unix.ByteSliceToString(name.Release[:])
	detail := fmt.Sprintf("Linux %s on %s", release, runtime.GOARCH)
	var err error
	switch {
	case !slices.Contains([]string{"amd64", "arm64"}, runtime.GOARCH):
		err = fmt.Errorf("%s: gVisor runs on amd64 and arm64 only", detail)
	case !kernelAtLeast(release, kernelMajor, kernelMinor):
		err = fmt.Errorf("%s: Lull needs Linux %d.%d", detail, kernelMajor, kernelMinor)
	}
	return found("kernel", detail, err, fix)
}

// kernelAtLeast compares a release such as 6.1.0-18-amd64.
func kernelAtLeast(release string, major, minor int) bool {
	var gotMajor, gotMinor int
	if _, err := fmt.Sscanf(release, "%d.%d", &gotMajor, &gotMinor); err != nil {
		return false
	}
	return gotMajor > major || gotMajor == major && gotMinor >= minor
}

func checkRoot() Finding {
	var err error
	if os.Geteuid() != 0 {
		err = fmt.Errorf("this is user %d", os.Geteuid())
	}
	return found("root", "this is root", err, "run `sudo lull serve`; without root only --sandbox process works, for development")
}

// checkNamespaces starts a program the way a sandbox is started.
func checkNamespaces(ctx context.Context) Finding {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "true")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("a process cannot have namespaces of its own: %w", err)
	}
	return found("namespaces", "user, pid, mount, ipc, uts and network namespaces can be made", err,
		"run `sysctl -w user.max_user_namespaces=15000`; in a container, start that one with --privileged")
}

func checkPlatform() Finding {
	const fix = "start the kernel with seccomp, and run `sysctl -w kernel.yama.ptrace_scope=1` if that is 3"
	actions, err := os.ReadFile("/proc/sys/kernel/seccomp/actions_avail")
	if err == nil && !slices.Contains(strings.Fields(string(actions)), "trap") {
		err = fmt.Errorf("seccomp cannot trap system calls: it knows %s", strings.TrimSpace(string(actions)))
	}
	if scope, readErr := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope"); readErr == nil && strings.TrimSpace(string(scope)) == "3" {
		err = errors.New("tracing is switched off for good (kernel.yama.ptrace_scope is 3)")
	}
	return found("platform", "gVisor's systrap can run; KVM is not needed", err, fix)
}

// checkDisk looks at the file system that a node's data is on by default.
func checkDisk(dir string) Finding {
	const least = 2 * lull.GB
	var stat unix.Statfs_t
	err := unix.Statfs(dir, &stat)
	free := lull.Size(stat.Bavail * uint64(stat.Bsize))
	if err == nil && free < least {
		err = fmt.Errorf("%s free in %s, which releases and snapshots fill soon", free, dir)
	}
	return found("disk", fmt.Sprintf("%s free in %s", free, dir), err, "make room, or choose another disk with `lull serve --data DIR`")
}

func checkMemory() Finding {
	const least = 512 * lull.MB
	data, err := os.ReadFile("/proc/meminfo")
	available := memoryAvailable(data)
	if err == nil && available < least {
		err = fmt.Errorf("%s available: an environment needs its app's memory and some 50MB", available)
	}
	return found("memory", available.String()+" available", err, "stop something, or give the machine more memory")
}

// memoryAvailable reads the format of /proc/meminfo.
func memoryAvailable(meminfo []byte) lull.Size {
	for line := range strings.Lines(string(meminfo)) {
		if words := strings.Fields(line); len(words) >= 2 && words[0] == "MemAvailable:" {
			kilobytes, err := strconv.ParseInt(words[1], 10, 64)
			if err == nil {
				return lull.Size(kilobytes) * lull.KB
			}
		}
	}
	return 0
}

func checkFiles() Finding {
	const least, ample = 4096, 65536 // an open stream takes two
	const fix = "raise the limit: `ulimit -Hn 1048576`, or LimitNOFILE=1048576 in the systemd unit"
	var limit unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
	detail := fmt.Sprintf("a process may open %d, two for every open stream", limit.Max)
	if err == nil && limit.Max < least {
		err = errors.New(detail)
	}
	finding := found("open files", detail, err, fix)
	if limit.Max < ample {
		finding.Fix = fix
	}
	return finding
}

// program is a runtime that apps without an image of their own use from the host.
type program struct {
	name, flag string
	apps       string // who needs it
	install    string
}

var runtimes = []program{
	{"node", "--version", "Node apps", "apt-get install nodejs"},
	{"npm", "--version", "Node apps with dependencies", "apt-get install npm"},
	{"python3", "--version", "Python apps", "apt-get install python3"},
	{"pip3", "--version", "Python apps with dependencies", "apt-get install python3-pip"},
	{"go", "version", "Go apps that are built here", "apt-get install golang"},
}

// checkRuntime never fails: a machine need not have a runtime that none of its apps uses.
func checkRuntime(ctx context.Context, p program) Finding {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	path := inSandboxes(p.name)
	if path == "" {
		return Finding{Name: p.name, OK: true, Detail: "not installed below /usr; only " + p.apps + " need it", Fix: "`" + p.install + "`"}
	}
	out, err := exec.CommandContext(ctx, path, p.flag).Output()
	if err != nil {
		return Finding{Name: p.name, OK: true, Detail: fmt.Sprintf("%s does not run: %v", path, err), Fix: "`" + p.install + "`"}
	}
	version, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return Finding{Name: p.name, OK: true, Detail: fmt.Sprintf("%s: %s", path, version)}
}

// inSandboxes looks a program up where sandboxes do: they see of the host what is below /usr.
func inSandboxes(name string) string {
	for _, dir := range []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/usr/local/go/bin", "/usr/lib/go/bin"} {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && !info.IsDir() && info.Mode()&0o111 != 0 {
			return path
		}
	}
	return ""
}
