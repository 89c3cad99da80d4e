package host

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/lull-dev/lull"
)

func TestCheck(t *testing.T) {
	names := map[string]bool{}
	for _, f := range Check(t.Context()) {
		t.Logf("%-12s %-5v %s | %s", f.Name, f.OK, f.Detail, f.Fix)
		if f.Name == "" || f.Detail == "" || names[f.Name] {
			t.Errorf("finding %+v is nameless, says nothing, or is there twice", f)
		}
		if !f.OK && f.Fix == "" {
			t.Errorf("%s: nothing is said about how to put it right", f.Name)
		}
		names[f.Name] = true
	}
	for _, name := range []string{"root", "cgroups", "nftables", "veth", "platform", "disk", "node", "python3"} {
		if !names[name] {
			t.Errorf("nothing about %s", name)
		}
	}
}

func TestFirewallThatDropsIsFound(t *testing.T) {
	needRoot(t)
	check := func(want bool, about string) {
		t.Helper()
		if f := checkFirewall(); f.OK != want || !strings.Contains(f.Detail, about) {
			t.Errorf("finding is %+v, want %v and %q", f, want, about)
		}
	}
	must(t, Elsewhere(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		check(true, "none")
		drop := nftables.ChainPolicyDrop
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		table := conn.AddTable(&nftables.Table{Name: "mine", Family: nftables.TableFamilyINet})
		chain := conn.AddChain(&nftables.Chain{Table: table, Name: "through", Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &drop})
		if err := conn.Flush(); err != nil {
			return err
		}
		check(false, "mine")
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte("lull")},
			&expr.Verdict{Kind: expr.VerdictAccept},
		}})
		if err := conn.Flush(); err != nil {
			return err
		}
		check(true, "none")
		return nil
	}))
}

func TestCgroupControllers(t *testing.T) {
	file := func(path, text string) {
		t.Helper()
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(text), 0o644))
	}
	two, lacking, one := t.TempDir(), t.TempDir(), t.TempDir()
	file(filepath.Join(two, "cgroup.controllers"), "cpuset cpu io memory pids\n")
	file(filepath.Join(lacking, "cgroup.controllers"), "cpu pids\n")
	for _, controller := range []string{"memory", "cpu", "cpuacct", "pids"} {
		file(filepath.Join(one, controller, "cgroup.procs"), "")
	}
	for dir, want := range map[string]string{two: "version 2", one: "version 1"} {
		if detail, err := cgroupControllers(dir); err != nil || !strings.HasPrefix(detail, want) {
			t.Errorf("got %q, %v, want %s", detail, err, want)
		}
	}
	for dir, want := range map[string]string{lacking: "memory", t.TempDir(): "memory"} {
		if _, err := cgroupControllers(dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want one about %s", err, want)
		}
	}
}

func TestKernelAtLeast(t *testing.T) {
	for release, want := range map[string]bool{
		"6.1.0-18-amd64": true, "5.6": true, "5.5.19": false, "4.19.0": false, "10.0.1": true, "": false, "six": false,
	} {
		if got := kernelAtLeast(release, 5, 6); got != want {
			t.Errorf("%q: %v, want %v", release, got, want)
		}
	}
}

func TestMemoryAvailable(t *testing.T) {
	if got := memoryAvailable([]byte("MemTotal: 100 kB\nMemAvailable:  2048 kB\n")); got != 2*lull.MB {
		t.Errorf("got %s, want 2MB", got)
	}
	if got := memoryAvailable([]byte("MemAvailable: lots\n")); got != 0 {
		t.Errorf("got %s from nonsense", got)
	}
}
