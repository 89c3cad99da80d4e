package gvisor

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// What holds an environment that was restored in a spare is what holds one that was not: its processes have the same
// rights, filters, namespaces, mounts, limits and open files.
func TestSpareIsHeldAsOthersAre(t *testing.T) {
	d := newDriver(t)
	for _, user := range []string{"", "1234:1234", "0:0"} {
		spec := helloSpec("held-"+strings.ReplaceAll(user, ":", "-"), helloDir(t))
		spec.User = user
		dir := asleep(t, d, spec)
		held := map[string]map[string][]string{}
		for _, how := range []string{"anew", "spare"} {
			if err := d.spares.drop(); err != nil {
				t.Fatal(err)
			}
			var spare *box
			if how == "spare" {
				spare = haveSpare(t, d)
			}
			sb, err := d.Restore(t.Context(), spec, dir)
			if err != nil {
				t.Fatal(err)
			}
			b := sb.(*box)
			if (b == spare) != (how == "spare") {
				t.Fatalf("%s: restored in %s", how, b.dir)
			}
			awaitClosed(t, b, dir)
			held[how] = holds(t, b)
			if err := sb.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(held["anew"], held["spare"]); diff != "" {
			t.Errorf("user %q: (-anew +spare)\n%s", user, diff)
		}
		if len(held["anew"]["sentry mounts"]) == 0 || len(held["anew"]["gofer mounts"]) < 4 || len(held["anew"]["sentry threads"]) == 0 {
			t.Errorf("too little was compared: %q", held["anew"]["gofer mounts"])
		}
	}
}

// rights are the lines of a thread's status that say what it may do.
var rights = regexp.MustCompile(`(?m)^(Uid|Gid|Groups|Cap[A-Za-z]+|NoNewPrivs|Seccomp[a-z_]*|Umask):.*$`)

// holds describes everything the kernel of the host holds a sandbox by, with the names of its own left out.
func holds(t *testing.T, b *box) map[string][]string {
	t.Helper()
	own := strings.NewReplacer(b.dir, "DIR", filepath.Base(b.dir), "ID", b.spec.ID, "ID")
	read := func(format string, args ...any) string {
		data, err := os.ReadFile(fmt.Sprintf(format, args...))
		if err != nil {
			t.Fatal(err)
		}
		return own.Replace(string(data))
	}
	found := map[string][]string{}
	for name, pid := range map[string]int{"sentry": b.sentry.Getpid(), "gofer": b.container.GoferPid.Load()} {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
		for _, file := range threads {
			data, _ := os.ReadFile(file) // it may just have ended
			if text := strings.Join(rights.FindAllString(string(data), -1), "\n"); text != "" {
				found[name+" threads"] = append(found[name+" threads"], text)
			}
		}
		slices.Sort(found[name+" threads"])
		found[name+" threads"] = slices.Compact(found[name+" threads"])
		for _, kind := range []string{"cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "user", "uts"} {
			its, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
			ours, _ := os.Readlink("/proc/self/ns/" + kind)
			found[name+" namespaces"] = append(found[name+" namespaces"], fmt.Sprint(kind, " of its own: ", its != ours, " ", err))
		}
		for line := range strings.Lines(read("/proc/%d/mountinfo", pid)) {
			fields := strings.Fields(line)[3:] // without the numbers
			for i, field := range fields {     // nor those of groups
				fields[i] = regexp.MustCompile(`^(master|shared):\d+$`).ReplaceAllString(field, "$1")
			}
			found[name+" mounts"] = append(found[name+" mounts"], strings.Join(fields, " "))
		}
		slices.Sort(found[name+" mounts"])
		found[name+" limits"] = []string{read("/proc/%d/limits", pid), read("/proc/%d/oom_score_adj", pid), read("/proc/%d/cgroup", pid), read("/proc/%d/environ", pid)}
		root, _ := os.Readlink(fmt.Sprintf("/proc/%d/root", pid))
		cwd, _ := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
		found[name+" place"] = []string{own.Replace(root), own.Replace(cwd)}
		found[name+" files"] = kindsOfFiles(own, pid)
	}
	for _, s := range append(b.cgroup.host.limits(b.spec.Limits), setting{controller: "cpu", file: "cpu.cfs_quota_us"}, setting{controller: "cpu", file: "cpu.max"}) {
		data, _ := os.ReadFile(b.cgroup.file(s.controller, s.file)) // each version of cgroups lacks some
		found["cgroup"] = append(found["cgroup"], s.file+" "+strings.TrimSpace(string(data)))
	}
	return found
}

// awaitClosed waits until the sentry has closed the snapshot, which it does a moment after the app goes on.
func awaitClosed(t *testing.T, b *box, dir string) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for pause := time.NewTicker(2 * time.Millisecond); ; <-pause.C {
		open := false
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", b.sentry.Getpid()))
		for _, file := range files {
			to, _ := os.Readlink(file)
			open = open || strings.HasPrefix(to, dir+"/")
		}
		if !open {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the sentry keeps the snapshot open")
		}
	}
}

// kindsOfFiles says what kinds of files a process holds open, and which by name; not how many.
func kindsOfFiles(own *strings.Replacer, pid int) (kinds []string) {
	number := regexp.MustCompile(`\d+`)
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, file := range files {
		if to, err := os.Readlink(file); err == nil {
			kinds = append(kinds, number.ReplaceAllString(own.Replace(to), "N"))
		}
	}
	slices.Sort(kinds)
	return slices.Compact(kinds)
}
