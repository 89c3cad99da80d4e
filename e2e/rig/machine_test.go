package rig

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The counter of what is left must be able to find something.
func TestRemainsFindsWhatIsThere(t *testing.T) {
	needRoot(t)
	const slot = "lull61" // nodes take the lowest that is free
	if left := Remains(slot, ""); len(left) > 0 {
		t.Fatalf("before the test there is %q", left)
	}
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	files := filepath.Join(runDir, slot)
	run("mkdir", "-p", filepath.Join(files, "mnt"))
	t.Cleanup(func() { run("rm", "-r", files) })
	run("mount", "-t", "tmpfs", "none", filepath.Join(files, "mnt"))
	t.Cleanup(func() { run("umount", filepath.Join(files, "mnt")) })
	run("ip", "link", "add", slot+"-7", "type", "veth", "peer", "name", slot+"-8")
	t.Cleanup(func() { run("ip", "link", "delete", slot+"-7") })
	run("ip", "netns", "add", slot+"-7")
	t.Cleanup(func() { run("ip", "netns", "delete", slot+"-7") })
	run("nft", "add", "table", "inet", slot)
	t.Cleanup(func() { run("nft", "delete", "table", "inet", slot) })
	cgroup := someCgroup(t, slot)

	left := strings.Join(Remains(slot, ""), "\n")
	for _, want := range []string{"files " + files, "mount " + files, "interface " + slot, "network namespace " + slot, "nftables table inet " + slot, "cgroup " + cgroup} {
		if !strings.Contains(left, want) {
			t.Errorf("%q is not found, only:\n%s", want, left)
		}
	}
	if others := Remains("lull6", ""); strings.Contains(strings.Join(others, "\n"), slot) {
		t.Errorf("what belongs to lull61 is counted as of lull6: %q", others)
	}
}

// someCgroup makes a cgroup in whatever hierarchy there is.
func someCgroup(t *testing.T, name string) string {
	t.Helper()
	for _, hierarchy := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/unified"} {
		dir := filepath.Join(hierarchy, name)
		if _, err := os.Stat(filepath.Join(hierarchy, "cgroup.procs")); err == nil && os.Mkdir(dir, 0o755) == nil {
			t.Cleanup(func() { os.Remove(dir) })
			return dir
		}
	}
	t.Fatal("there is no cgroup hierarchy to make a cgroup in")
	return ""
}

func TestProcessesFindsThisOne(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if found := Processes(self); len(found) != 1 {
		t.Errorf("processes that run from %s: %q, want this test alone", self, found)
	}
}

func TestCountersOfThisProcess(t *testing.T) {
	before, err := CPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for start := time.Now(); time.Since(start) < 100*time.Millisecond; {
	}
	after, err := CPU(os.Getpid())
	if err != nil || after <= before {
		t.Errorf("busy for 100ms the processor time went from %s to %s: %v", before, after, err)
	}
	if rss, err := RSS(os.Getpid()); err != nil || rss < 1<<20 {
		t.Errorf("this process has %d bytes of memory: %v", rss, err)
	}
}

func TestTook(t *testing.T) {
	for header, want := range map[string]string{
		`lull;desc="resume";dur=0.7`:                 "resume",
		`db;dur=5, lull;dur=0;desc=warm`:             "warm",
		`db;desc="lull";dur=5`:                       "",
		`cache;desc="hit", lull;desc="start";dur=30`: "start",
	} {
		if got := Took(http.Header{"Server-Timing": {header}}); got != want {
			t.Errorf("%s: %q, want %q", header, got, want)
		}
	}
}

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
