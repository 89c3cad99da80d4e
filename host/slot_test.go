package host

import (
	"bufio"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lull-dev/lull"
)

// TestMain is also the entry of a node that is going to be killed: see startNode.
func TestMain(m *testing.M) {
	if dir := os.Getenv("LULL_TEST_NODE"); dir != "" {
		runNode(dir)
		return
	}
	os.Exit(m.Run())
}

func TestClaimTakesTheLowestFreeSlot(t *testing.T) {
	dir := t.TempDir()
	first, second, third := claimed(t, dir), claimed(t, dir), claimed(t, dir)
	if !(first.Index() < second.Index() && second.Index() < third.Index()) {
		t.Errorf("claimed %d, %d, %d: want them to rise", first.Index(), second.Index(), third.Index())
	}
	if want := fmt.Sprintf("lull%d", second.Index()); second.Name() != want || second.Dir() != filepath.Join(dir, want) {
		t.Errorf("slot is called %s and lies in %s, want %s in %s", second.Name(), second.Dir(), want, dir)
	}
	must(t, second.Release())
	if again := claimed(t, dir); again.Index() > third.Index() {
		t.Errorf("claimed %d although %d was free", again.Index(), second.Index())
	}
}

func TestSlotsOfOtherDirectoriesAreNotClaimed(t *testing.T) {
	first, second := claimed(t, t.TempDir()), claimed(t, t.TempDir())
	if first.Index() == second.Index() {
		t.Errorf("two nodes hold slot %d", first.Index())
	}
}

// It takes all slots there are, so it does that where they are nobody else's: in a network namespace of its own.
func TestClaimSaysWhenAllAreHeld(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	must(t, inNewNamespace(func() error {
		for range Slots {
			slot, err := Claim(dir)
			if err != nil {
				return err
			}
			t.Cleanup(func() { _ = slot.Release() })
		}
		if _, err := Claim(dir); lull.KindOf(err) != lull.KindConflict || lull.HintOf(err) == "" {
			t.Errorf("claim of one too many: %v, want a conflict with a hint", err)
		}
		return nil
	}))
}

func TestReleaseTwice(t *testing.T) {
	slot := claimed(t, t.TempDir())
	must(t, slot.Release())
	must(t, slot.Release())
	if _, err := os.Stat(slot.Dir()); !os.IsNotExist(err) {
		t.Errorf("the slot's directory is still there: %v", err)
	}
}

func TestSweepRemovesWhatADeadNodeLeft(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	dead := startNode(t, dir)
	own := claimed(t, dir)
	var also []string
	note := func(name string) error { also = append(also, name); return nil }

	must(t, own.Sweep(slog.New(slog.DiscardHandler), bundleIn, note)) // it lives: nothing may happen to it
	if len(leftovers(t, dead.dir, dead.name)) != dead.parts {
		t.Fatalf("a living node was swept: %v are left", leftovers(t, dead.dir, dead.name))
	}
	must(t, dead.cmd.Process.Kill())
	_ = dead.cmd.Wait()
	if len(leftovers(t, dead.dir, dead.name)) != dead.parts {
		t.Fatalf("the dead node left %v, the test is about %d parts", leftovers(t, dead.dir, dead.name), dead.parts)
	}

	must(t, own.Sweep(slog.New(slog.NewTextHandler(t.Output(), nil)), bundleIn, note))
	if left := leftovers(t, dead.dir, dead.name); len(left) > 0 {
		t.Errorf("left after the sweep: %v", left)
	}
	if unix.Kill(dead.orphan, 0) == nil && !zombie(dead.orphan) {
		t.Errorf("process %d still runs", dead.orphan)
	}
	if unix.Kill(dead.stray, 0) == nil && !zombie(dead.stray) {
		t.Errorf("process %d still runs, which was stopped before it joined its cgroup", dead.stray)
	}
	if unix.Kill(dead.namesake, 0) != nil || zombie(dead.namesake) {
		t.Errorf("process %d was killed, which sees another directory under the same name", dead.namesake)
	}
	must(t, own.Sweep(slog.New(slog.DiscardHandler), bundleIn, note)) // again does no harm
	if !slices.Contains(also, own.Name()) || !slices.Contains(also, dead.name) {
		t.Errorf("the cleaner was called for %v: %s or %s is missing", also, own.Name(), dead.name)
	}
}

// bundleIn stands for gvisor.BundleOf.
func bundleIn(args []string) string {
	for _, arg := range args {
		if dir, ok := strings.CutPrefix(arg, "--bundle="); ok {
			return dir
		}
	}
	return ""
}

// deadNode is a node that makes a bit of everything and waits to be killed.
type deadNode struct {
	cmd       *exec.Cmd
	dir, name string
	orphan    int // a process in its cgroups
	stray     int // a process that was to join them
	namesake  int // a process that a node of the same name might have started in a container
	parts     int
}

func startNode(t *testing.T, dir string) deadNode {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "LULL_TEST_NODE="+dir)
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	must(t, err)
	node := deadNode{cmd: cmd}
	if _, err := fmt.Sscan(line, &node.dir, &node.name, &node.orphan, &node.stray, &node.namesake, &node.parts); err != nil {
		t.Fatalf("node says %q: %v", line, err)
	}
	t.Cleanup(func() {
		for _, pid := range []int{node.orphan, node.stray, node.namesake} {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	})
	return node
}

// runNode is the process that startNode starts.
func runNode(dir string) {
	slot, err := Claim(dir)
	check(err)
	check(os.MkdirAll(filepath.Join(slot.Dir(), "mnt"), 0o755))
	check(unix.Mount("tmpfs", filepath.Join(slot.Dir(), "mnt"), "tmpfs", 0, "size=64k"))
	orphan := exec.Command("sleep", "600")
	check(orphan.Start())
	stray := exec.Command("sh", "-c", "kill -STOP $$", "--bundle="+filepath.Join(slot.Dir(), "mnt"))
	check(stray.Start())
	namesake := exec.Command(stray.Path, stray.Args[1:]...)
	namesake.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	namesake.Args[2] = "mount -t tmpfs none " + filepath.Join(slot.Dir(), "mnt") + "; echo; sleep 600"
	ready, err := namesake.StdoutPipe()
	check(err)
	check(namesake.Start())
	_, err = ready.Read(make([]byte, 1))
	check(err)
	cgroups := cgroupDirs(slot.Name() + "/env-1")
	for _, cgroup := range cgroups {
		check(os.MkdirAll(cgroup, 0o755))
		check(os.WriteFile(filepath.Join(cgroup, "cgroup.procs"), fmt.Append(nil, orphan.Process.Pid), 0))
		_ = os.WriteFile(filepath.Join(cgroup, "freezer.state"), []byte("FROZEN"), 0) // version 1
		_ = os.WriteFile(filepath.Join(cgroup, "cgroup.freeze"), []byte("1"), 0)      // version 2
	}
	fmt.Println(slot.Dir(), slot.Name(), orphan.Process.Pid, stray.Process.Pid, namesake.Process.Pid, len(cgroups)+2) // a mount and a file besides
	select {}
}

// cgroupDirs are the places of a cgroup in all hierarchies of this machine that a process can be moved to.
func cgroupDirs(name string) []string {
	mounts, err := Mounts()
	check(err)
	var dirs []string
	for _, mount := range mounts {
		switch {
		case mount.Type == "cgroup2", mount.Type == "cgroup" && filepath.Base(mount.Point) != "cpuset": // needs settings first
			dirs = append(dirs, filepath.Join(mount.Point, name))
		}
	}
	return dirs
}

func leftovers(t *testing.T, dir, name string) []string {
	t.Helper()
	var left []string
	for _, cgroup := range cgroupDirs(name) {
		if _, err := os.Stat(cgroup); err == nil {
			left = append(left, cgroup)
		}
	}
	mounts, err := Mounts()
	must(t, err)
	for _, mount := range mounts {
		if mount.Point == filepath.Join(dir, "mnt") {
			left = append(left, "mount on "+mount.Point)
		}
	}
	files, _ := os.ReadDir(dir)
	for _, file := range files {
		left = append(left, filepath.Join(dir, file.Name()))
	}
	return left
}

func zombie(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || len(data) > 0 && containsState(data, 'Z')
}

func containsState(stat []byte, state byte) bool {
	for i := len(stat) - 1; i > 0; i-- {
		if stat[i] == ')' {
			return i+2 < len(stat) && stat[i+2] == state
		}
	}
	return false
}

func claimed(t *testing.T, dir string) *Slot {
	t.Helper()
	slot, err := Claim(dir)
	must(t, err)
	t.Cleanup(func() { _ = slot.Release() })
	return slot
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// needRoot ends the test where it may not do what it is about. In CI that is a failure.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("this test needs root")
	}
	t.Skip("this test needs root")
}
