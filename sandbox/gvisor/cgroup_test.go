package gvisor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lull-dev/lull"
)

var someLimits = lull.Resources{Memory: 128 * lull.MB, CPU: 0.5, Processes: 32}

// The machine that tests run on has one version; the other is played by files.
func TestCgroupSettings(t *testing.T) {
	for name, c := range map[string]struct {
		v2   bool
		want map[string]string
	}{
		"version 1": {false, map[string]string{
			"memory/lull0/app/memory.limit_in_bytes": "201326592",
			"cpu/lull0/app/cpu.cfs_period_us":        "100000",
			"cpu/lull0/app/cpu.cfs_quota_us":         "50000",
			"pids/lull0/app/pids.max":                "640",
		}},
		"version 2": {true, map[string]string{
			"cgroup.subtree_control":       "+memory +cpu +pids",
			"lull0/cgroup.subtree_control": "+memory +cpu +pids",
			"lull0/app/memory.max":         "201326592",
			"lull0/app/memory.oom.group":   "1",
			"lull0/app/cpu.max":            "50000 100000",
			"lull0/app/pids.max":           "640",
		}},
	} {
		host := cgroupHost{root: t.TempDir(), v2: c.v2}
		for path := range c.want {
			writeFiles(t, host.root, map[string]string{path: ""})
		}
		group, err := host.make("lull0/app", someLimits)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := group.limitCPU(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for path, want := range c.want {
			if got, err := os.ReadFile(filepath.Join(host.root, path)); string(got) != want {
				t.Errorf("%s: %s holds %q (%v), want %q", name, path, got, err, want)
			}
		}
	}
}

func TestCgroupCounters(t *testing.T) {
	for name, c := range map[string]struct {
		v2    bool
		files map[string]string
	}{
		"version 1": {false, map[string]string{
			"memory/a/memory.usage_in_bytes": "5000\n", "memory/a/memory.stat": "cache 1\ninactive_file 7\ntotal_inactive_file 1000\n",
			"memory/a/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
			"cpuacct/a/cpuacct.usage":     "3000000\n", "pids/a/pids.events": "max 4\n",
		}},
		"version 2": {true, map[string]string{
			"a/memory.current": "5000\n", "a/memory.stat": "anon 1\ninactive_file 1000\n", "a/memory.events": "oom 9\noom_kill 2\n",
			"a/cpu.stat": "usage_usec 3000\nuser_usec 1\n", "a/pids.events": "max 4\n",
		}},
	} {
		host := cgroupHost{root: t.TempDir(), v2: c.v2}
		writeFiles(t, host.root, c.files)
		group := &cgroup{host: host, name: "a"}
		memory, err := group.memory()
		if memory != 4000 || err != nil {
			t.Errorf("%s: memory is %d, %v", name, memory, err)
		}
		cpu, err := group.cpuTime()
		if cpu != 3*time.Millisecond || err != nil {
			t.Errorf("%s: CPU is %v, %v", name, cpu, err)
		}
		if starved, crowded := group.starved(), group.crowded(); starved != 2 || crowded != 4 {
			t.Errorf("%s: starved %d, crowded %d", name, starved, crowded)
		}
	}
}

func TestCgroupIsUndone(t *testing.T) {
	host := cgroupHost{root: t.TempDir()}
	writeFiles(t, host.root, map[string]string{"memory/file": "", "cpu/file": "", "cpuacct/file": "", "pids/file": ""})
	if _, err := host.make("lull0/app", someLimits); err == nil || !strings.Contains(err.Error(), "memory.limit_in_bytes") {
		t.Errorf("error is %v, want one about the control file that is not there", err)
	}
	for _, controller := range controllersV1 {
		if exists(filepath.Join(host.root, controller, "lull0/app")) {
			t.Errorf("%s is left", controller)
		}
	}
}

func TestFindCounter(t *testing.T) {
	data := []byte("max 5\noom_kill 3\nodd\nbad x\n")
	got := map[string]int64{}
	for _, name := range []string{"max", "oom_kill", "oom", "odd", "bad"} {
		got[name] = findCounter(data, name)
	}
	want := map[string]int64{"max": 5, "oom_kill": 3, "oom": 0, "odd": 0, "bad": 0}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
