package gvisor

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/runsc/cli"
	"gvisor.dev/gvisor/runsc/cmd"
	"gvisor.dev/gvisor/runsc/cmd/sentry/sentrycmd"
	"gvisor.dev/gvisor/runsc/cmd/util"
)

// The parts a sandbox is made of; each is this binary once more.
const (
	partSentry    = "boot"   // the kernel the app sees
	partGofer     = "gofer"  // opens files for the sentry
	partUmounter  = "umount" // a helper of the sentry's while it starts
	invokedPrefix = "runsc"  // what gVisor calls the first two
	invokedSelf   = "/proc/self/exe"
)

// Main is the entry of the sandboxes' own processes. It must be the first thing main calls, and what is done before
// (package variables, init functions) is paid for in every start of a sandbox. In a process that was not started as a
// part of a sandbox it returns false at once; otherwise it runs that part and does not return.
func Main() bool {
	if !isPart(os.Args) {
		return false
	}
	postponeGC()
	if bundle := bundleOf(os.Args); bundle != "" {
		if err := takeOrder(bundle); err != nil {
			_ = os.WriteFile(filepath.Join(bundle, faultFile), []byte(err.Error()), 0o600)
			os.Exit(1)
		}
	}
	cli.Run(nil, map[util.SubCommand]string{
		new(sentrycmd.Boot): "", new(cmd.Gofer): "", new(sentrycmd.Umount): "",
	}, nil)
	return true // not reached
}

// postponeGC keeps the garbage collector out of a start or restore, of which it takes 7 ms: nothing of what is made there
// is garbage.
func postponeGC() {
	const whileStarting = 3 * time.Second
	usual := usualGC()
	debug.SetGCPercent(-1)
	time.AfterFunc(whileStarting, func() { debug.SetGCPercent(usual) })
}

// usualGC is the garbage collector's setting at the start. The first call changes it.
var usualGC = sync.OnceValue(func() int { return debug.SetGCPercent(-1) })

func isPart(args []string) bool {
	return len(args) > 1 && (strings.HasPrefix(args[0], invokedPrefix) || args[0] == invokedSelf) &&
		slices.ContainsFunc([]string{partSentry, partGofer, partUmounter}, func(part string) bool { return slices.Contains(args[1:], part) })
}

// BundleOf returns, of the command line of any process, the bundle of the sandbox it is a part of, or "".
func BundleOf(args []string) string {
	if !isPart(args) {
		return ""
	}
	return bundleOf(args)
}

// bundleOf returns the sandbox's bundle, which gVisor passes as --bundle=DIR or --bundle DIR.
func bundleOf(args []string) string {
	for i, arg := range args {
		if dir, ok := strings.CutPrefix(arg, "--bundle="); ok {
			return dir
		}
		if arg == "--bundle" && i+1 < len(args) {
			return args[i+1]
		}
	}
	return ""
}

// oomScore makes the kernel of a machine that is out of memory end environments rather than the node.
const oomScore = 500

// takeOrder does what has to be done before gVisor takes over, while the process still has its capabilities and sees
// the host's files.
func takeOrder(bundle string) error {
	o, err := readOrder(bundle)
	if err != nil {
		return err
	}
	if err := closeStrangers(lastDonated(os.Args)); err != nil {
		return err
	}
	// gVisor would rather have the node join the cgroup while it starts processes, all of it, and one sandbox at a time.
	for _, file := range o.Cgroups {
		if err := os.WriteFile(file, []byte("0"), 0); err != nil {
			return fmt.Errorf("join cgroup: %w", err)
		}
	}
	if err := writeControl("/proc/self/oom_score_adj", strconv.Itoa(oomScore)); err != nil {
		return err
	}
	if slices.Contains(os.Args, partGofer) {
		os.Args = withoutRootless(os.Args)
		return o.Root.build(filepath.Join(bundle, rootDir))
	}
	in, err := callNode(bundle, o.errand)
	if err != nil {
		return err
	}
	os.Args = sentryArgs(withoutRootless(os.Args), o)
	// A line in the sentry's log would look up the local time zone in a file, which by then is death by seccomp.
	time.Local = time.UTC
	installSeccomp()
	if err := watchKernel(in); err != nil {
		return err
	}
	return patchSyscalls(in)
}

// donated matches an argument that names an open file: --io-fds=7, --pass-fd=12:1. Those a process is given are all
// that there are from 3 up to the highest of them.
var donated = regexp.MustCompile(`^--[a-z-]+-fds?=([0-9]+)(?::[0-9]+)?$`)

func lastDonated(args []string) int {
	last := 2
	for _, arg := range args {
		if match := donated.FindStringSubmatch(arg); match != nil {
			fd, _ := strconv.Atoi(match[1])
			last = max(last, fd)
		}
	}
	return last
}

// closeStrangers closes what this process inherited above the last file it was given. gVisor's code in the node does not
// mark its sockets and eventfds as not to be inherited, as it expects to start one sandbox in its life: what was open for
// another sandbox while this process was started is here as well, even the other's control socket; and where it has one of
// the numbers that gVisor keeps for itself (253 to 255) the sandbox does not start. Files that this process has opened
// itself, the Go runtime's, are marked, and stay.
func closeStrangers(last int) error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, entry := range entries {
		fd, err := strconv.Atoi(entry.Name())
		if err != nil || fd <= last {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			_ = unix.Close(fd)
		}
	}
	return nil
}

// withoutRootless undoes the one setting that is meant for the node's side only: see configure.
func withoutRootless(args []string) []string {
	return slices.DeleteFunc(slices.Clone(args), func(arg string) bool { return strings.HasPrefix(arg, "--rootless=") })
}

// sentryArgs makes the sentry's command line say what the app sees of memory and processors; gVisor knows only what the
// whole machine has, as it is not the one that sets the cgroup's limits.
func sentryArgs(args []string, o order) []string {
	args = slices.Clone(args)
	if i := slices.Index(args, "--total-memory"); i >= 0 && i+1 < len(args) && o.Memory > 0 {
		args[i+1] = strconv.FormatInt(o.Memory, 10)
	}
	if i := slices.Index(args, partSentry); i >= 0 && o.CPUs > 0 {
		args = slices.Insert(args, i+1, "--cpu-num", strconv.Itoa(o.CPUs))
	}
	return args
}
