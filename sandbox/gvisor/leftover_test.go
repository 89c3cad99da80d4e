package gvisor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/host"
	"github.com/lull-dev/lull/network"
	"github.com/lull-dev/lull/sandbox"
)

// quietSpec describes a sandbox that does nothing, for long.
func quietSpec(id string) sandbox.Spec {
	return sandbox.Spec{
		ID: id, Args: []string{"sleep", "1000"}, Env: []string{"PATH=/usr/bin"}, Dir: "/tmp",
		Limits: lull.Resources{Memory: 64 * lull.MB, CPU: 1, Disk: 16 * lull.MB, Processes: 16},
		Egress: lull.Egress{lull.EgressNone},
	}
}

// belongings is everything of a driver's sandboxes that can be seen from outside, but for the spare, which it drops.
func belongings(t *testing.T, d *Driver) (found []string) {
	t.Helper()
	if err := d.spares.drop(); err != nil {
		t.Error(err)
	}
	for _, pattern := range []string{
		filepath.Join(d.dir, sandboxesDir, "*"), filepath.Join(d.slot.Dir(), "netns", "*"),
		"/sys/fs/cgroup/*/" + d.slot.Name() + "/*/cgroup.procs", "/sys/fs/cgroup/" + d.slot.Name() + "/*/cgroup.procs",
	} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, paths...)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, d.slot.Dir()+"/") {
			found = append(found, "mount "+line)
		}
	}
	for _, pid := range children(t) {
		found = append(found, "process "+pid)
	}
	return found
}

// children returns the processes whose parent this one is.
func children(t *testing.T) (pids []string) {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range stats {
		data, _ := os.ReadFile(file)
		_, rest, _ := bytes.Cut(data, []byte(") "))
		if fields := strings.Fields(string(rest)); len(fields) > 1 && fields[1] == fmt.Sprint(os.Getpid()) {
			pids = append(pids, filepath.Base(filepath.Dir(file))+" "+string(data[:min(len(data), 40)]))
		}
	}
	return pids
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// readyNamespaces is how many files the network may hold more or less of: the namespaces it keeps ready.
const readyNamespaces = 4

func TestNothingIsLeft(t *testing.T) {
	d := newDriver(t)
	runAndClose := func(name string, start func(spec sandbox.Spec) (sandbox.Sandbox, error)) {
		sb, err := start(quietSpec("left-" + name))
		if err == nil {
			err = sb.Close()
			<-sb.Done()
		}
		t.Logf("%s: %v", name, err)
		if found := belongings(t, d); len(found) > 0 {
			t.Errorf("%s: left are\n%s", name, strings.Join(found, "\n"))
		}
	}
	plain := func(change func(*sandbox.Spec)) func(sandbox.Spec) (sandbox.Sandbox, error) {
		return func(spec sandbox.Spec) (sandbox.Sandbox, error) {
			change(&spec)
			return d.Start(t.Context(), spec)
		}
	}
	runAndClose("first", plain(func(*sandbox.Spec) {}))
	before := openFiles(t)

	runAndClose("closed", plain(func(*sandbox.Spec) {}))
	runAndClose("killed", func(spec sandbox.Spec) (sandbox.Sandbox, error) {
		sb, err := d.Start(t.Context(), spec)
		if err != nil {
			return nil, err
		}
		return sb, killSentry(t, sb)
	})
	runAndClose("no-program", plain(func(spec *sandbox.Spec) { spec.Args = []string{"no-such-program"} }))
	runAndClose("no-mount", plain(func(spec *sandbox.Spec) { spec.Mounts = []sandbox.Mount{{Source: "/no/such", Target: "/x"}} }))
	runAndClose("no-place", plain(func(spec *sandbox.Spec) {
		spec.Mounts = []sandbox.Mount{{Source: "/usr", Target: "/dev/null/x"}}
	}))
	runAndClose("no-user", plain(func(spec *sandbox.Spec) { spec.User = "nobody-here" }))
	runAndClose("no-scratch", func(spec sandbox.Spec) (sandbox.Sandbox, error) {
		defer func(scratch string) { d.scratch = scratch }(d.scratch)
		d.scratch = "/no/such/directory"
		return d.Start(t.Context(), spec)
	})
	for i := range 10 {
		runAndClose(fmt.Sprint("called-off-", i), func(spec sandbox.Spec) (sandbox.Sandbox, error) {
			ctx, cancel := context.WithTimeout(t.Context(), rand.N(100*time.Millisecond))
			defer cancel()
			return d.Start(ctx, spec)
		})
	}
	if after := openFiles(t); after > before+readyNamespaces {
		t.Errorf("%d files are open, %d were before", after, before)
	}
}

// killSentry kills a sandbox from outside and waits until that is noticed.
func killSentry(t *testing.T, sb sandbox.Sandbox) error {
	t.Helper()
	if err := unix.Kill(sb.(*box).sentry.Getpid(), unix.SIGKILL); err != nil {
		return err
	}
	select {
	case <-sb.Done():
	case <-time.After(5 * time.Second):
		return errors.New("the end was not noticed")
	}
	if diff := cmp.Diff(sandbox.Exit{Code: -1, Signal: "SIGKILL"}, sb.Exit()); diff != "" {
		t.Errorf("killed from outside: (-want +got)\n%s", diff)
	}
	return nil
}

// The executable is not what it should be: every start fails, and says so.
func TestWrongExecutable(t *testing.T) {
	d := newDriver(t)
	right := executable(t)
	for path, want := range map[string]string{"/bin/true": "", "/bin/false": ""} {
		if err := useExecutable(path); err != nil {
			t.Fatal(err)
		}
		if sb, err := d.Start(t.Context(), quietSpec("wrong")); err == nil {
			sb.Close()
			t.Errorf("%s: a sandbox was started", path)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
		if found := belongings(t, d); len(found) > 0 {
			t.Errorf("%s: left are\n%s", path, strings.Join(found, "\n"))
		}
	}
	if err := useExecutable(right); err != nil {
		t.Fatal(err)
	}
	if err := useExecutable("/no/such/file"); err == nil {
		t.Error("an executable that is not there was accepted")
	}
}

const (
	envNode = "LULL_TEST_NODE_SLOTS" // makes the test binary a node that starts a sandbox, makes a spare, and then waits
	envPart = "LULL_TEST_NODE_PART"
	envHang = "LULL_TEST_HANG" // makes the gofer hang before it does anything else
)

// runNode is what the test binary does with envNode set.
func runNode() error {
	slot, err := host.Claim(os.Getenv(envNode))
	if err != nil {
		return err
	}
	net, err := network.Open(slot, network.Options{})
	if err != nil {
		return err
	}
	d, err := New(Options{Slot: slot, Network: net, Executable: os.Getenv(envPart)})
	if err != nil {
		return err
	}
	sb, err := d.Start(context.Background(), quietSpec("orphan"))
	if err != nil {
		return err
	}
	spare, err := d.makeSpare()
	if err != nil {
		return err
	}
	fmt.Println(slot.Name())
	for _, b := range []*box{sb.(*box), spare} {
		fmt.Println(b.sentry.Getpid(), b.container.GoferPid.Load())
	}
	<-sb.Done()
	return nil
}

// A node that is killed takes its sandboxes along, and what it made goes with the next sweep.
func TestNodeIsKilled(t *testing.T) {
	needRoot(t)
	slots := t.TempDir()
	node := exec.Command(os.Args[0])
	node.Env = append(os.Environ(), envNode+"="+slots, envPart+"="+executable(t))
	node.Stderr = os.Stderr
	out, err := node.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	var name string
	var sentry, gofer, spareSentry, spareGofer int
	if _, err := fmt.Fscan(out, &name, &sentry, &gofer, &spareSentry, &spareGofer); err != nil {
		t.Fatalf("node did not start: %v", err)
	}
	if err := node.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = node.Wait()
	deadline := time.After(10 * time.Second)
	for _, pid := range []int{sentry, gofer, spareSentry, spareGofer} {
		pidfd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue // gone already
		}
		ended := make(chan error, 1)
		go func() { // ends with the process, or a little later than the deadline; the select below waits for it
			_, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 11_000)
			ended <- err
		}()
		select {
		case <-ended:
		case <-deadline:
			t.Errorf("process %d is still there", pid)
		}
		unix.Close(pidfd)
	}
	sweepSlots(t, slots)
	if left, _ := filepath.Glob("/sys/fs/cgroup/*/" + name + "/*"); len(left) > 0 {
		t.Errorf("left are %v", left)
	}
}

// A part of a sandbox that hangs before it has joined its cgroup, or was stopped, does not outlive the next start of a
// node.
func TestHangingPartIsSwept(t *testing.T) {
	needRoot(t)
	slots := t.TempDir()
	node := exec.Command(os.Args[0])
	node.Env = append(os.Environ(), envNode+"="+slots, envPart+"="+executable(t), envHang+"=1")
	node.Stderr = os.Stderr
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	defer node.Process.Kill() // once more, if it fails before it is to be killed
	hanging := 0
	deadline := time.Now().Add(10 * time.Second)
	for pause := time.NewTicker(2 * time.Millisecond); hanging == 0; <-pause.C {
		if hanging = goferIn(slots); hanging == 0 && time.Now().After(deadline) {
			t.Fatal("no gofer was started")
		}
	}
	defer unix.Kill(hanging, unix.SIGKILL)
	if err := node.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = node.Wait()
	if goferIn(slots) != hanging {
		t.Fatal("the gofer has ended before the sweep")
	}
	// What the node was forking when it was killed holds the slot for a moment longer.
	for pause := time.NewTicker(100 * time.Millisecond); goferIn(slots) != 0; <-pause.C {
		if sweepSlots(t, slots); goferIn(slots) != 0 && time.Now().After(deadline) {
			t.Fatalf("process %d is still there", hanging)
		}
	}
}

// goferIn returns the gofer of a sandbox in one of the slots, or 0.
func goferIn(slots string) int {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range lines {
		line, _ := os.ReadFile(file)
		args := strings.Split(string(line), "\x00")
		if slices.Contains(args, partGofer) && strings.HasPrefix(bundleOf(args), slots) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			return pid
		}
	}
	return 0
}

func sweepSlots(t *testing.T, slots string) {
	t.Helper()
	slot, err := host.Claim(slots)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(slot.Sweep(slog.New(slog.DiscardHandler), BundleOf, network.Sweep), slot.Release()); err != nil {
		t.Error(err)
	}
}
