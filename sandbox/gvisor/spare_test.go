package gvisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/sandbox"
)

// haveSpare has a spare made if there is none, and returns it.
func haveSpare(tb testing.TB, d *Driver) *box {
	tb.Helper()
	d.spares.want()
	deadline := time.Now().Add(10 * time.Second)
	for pause := time.NewTicker(2 * time.Millisecond); ; <-pause.C {
		d.spares.mu.Lock()
		spare := d.spares.ready
		d.spares.mu.Unlock()
		if spare != nil {
			return spare
		}
		if time.Now().After(deadline) {
			tb.Fatal("there is no spare")
		}
	}
}

// account answers each connection with what the app sees of its sandbox.
const account = `
const {readFileSync: read, writeSync, openSync, readdirSync} = require("fs")
const {spawnSync} = require("child_process")
const held = openSync("/app/greeting")
require("net").createServer(c => {
  const said = {}
  const of = (name, fn) => { try { said[name] = String(fn()) } catch (e) { said[name] = e.code } }
  of("greeting", () => read("/app/greeting"))
  of("held", () => read(held))
  of("extra", () => read("/opt/tools/extra"))
  of("home", () => readdirSync("/home"))
  of("memory", () => /MemTotal: *(\d+)/.exec(read("/proc/meminfo"))[1])
  of("cpus", () => require("os").availableParallelism())
  of("uid", () => process.getuid())
  of("root", () => { require("fs").mkdirSync("/home/app/x"); return "written" })
  of("lower", () => { require("fs").writeFileSync("/app/greeting", "changed"); return "written" })
  of("disk", () => { const fd = openSync("/tmp/big", "w"); for (;;) writeSync(fd, Buffer.alloc(1 << 20)) })
  of("processes", () => spawnSync("sh", ["-c", "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do sleep 1000 & done"], {stdio: "ignore"}).status)
  c.end(JSON.stringify(said) + "\n")
}).listen(8080)
`

// An app that is restored in a spare has what is its own: its files, user and limits; and so has the next one. A spare
// that was an environment once can go to disk as such, and be restored anew or in another.
func TestSpare(t *testing.T) {
	d := newDriver(t)
	release, tools := t.TempDir(), t.TempDir()
	for path, text := range map[string]string{filepath.Join(release, "greeting"): "hello", filepath.Join(tools, "extra"): "tool"} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	spec := helloSpec("spared", release)
	spec.Args = []string{"node", "-e", account}
	spec.User = "1234:1234"
	spec.Mounts = append(spec.Mounts, sandbox.Mount{Source: tools, Target: "/opt/tools", Mode: sandbox.Layered})
	spec.Limits.Memory, spec.Limits.Disk, spec.Limits.Processes = 200*lull.MB, 8*lull.MB, 16
	dir := asleep(t, d, spec)

	want := map[string]string{
		"greeting": "hello", "held": "", "extra": "tool", "home": "app", "memory": fmt.Sprint(int64(200*lull.MB) / 1024),
		"cpus": fmt.Sprint(processors(spec.Limits.CPU)), "uid": "1234", "root": "written", "lower": "written", "disk": "ENOSPC",
	}
	for _, how := range []string{"anew", "spare", "spare", "anew"} {
		if err := d.spares.drop(); err != nil {
			t.Fatal(err)
		}
		var spare *box
		if how == "spare" {
			spare = haveSpare(t, d)
		}
		var refused []sandbox.Limit
		spec.Limited = func(l sandbox.Limit) { refused = append(refused, l) }
		sb, err := d.Restore(t.Context(), spec, dir)
		if err != nil {
			t.Fatal(err)
		}
		if got := sb.(*box); (got == spare) != (how == "spare") || got.ID() != "spared" {
			t.Errorf("%s: restored in %s", how, got.dir)
		}
		if dir, err := filepath.EvalSymlinks(filepath.Join(d.dir, sandboxesDir, "spared")); err != nil || dir != sb.(*box).dir {
			t.Errorf("%s: its files are in %s, by its name one comes to %s (%v)", how, sb.(*box).dir, dir, err)
		}
		again := snapshotOf(t, sb) // of what it is before it is asked
		if err := sb.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		conn, err := sb.Dial(t.Context(), 8080)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		if err := json.NewDecoder(conn).Decode(&got); err != nil {
			t.Fatal(err)
		}
		conn.Close()
		delete(got, "processes")
		want["held"] = got["held"]
		if got["held"] != "hello" {
			t.Errorf("%s: the open file holds %q", how, got["held"])
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", how, diff)
		}
		if err := sb.Close(); err != nil {
			t.Fatal(err)
		}
		if text := fmt.Sprint(refused); !strings.Contains(text, fmt.Sprint(sandbox.LimitDisk)) || !strings.Contains(text, fmt.Sprint(sandbox.LimitProcesses)) {
			t.Errorf("%s: refused were %v", how, refused)
		}
		if found := belongings(t, d); len(found) > 0 {
			t.Errorf("%s: left are\n%s", how, strings.Join(found, "\n"))
		}
		dir = again
	}
	if text, _ := os.ReadFile(filepath.Join(release, "greeting")); string(text) != "hello" {
		t.Errorf("the release was changed: %q", text)
	}
}

// A spare whose processes have ended is noticed, and one that cannot be adopted is replaced by a sandbox made anew.
func TestSpareIsOfNoUse(t *testing.T) {
	d := newDriver(t)
	spec := suiteSpec("unfit")
	dir := asleep(t, d, spec)
	before := 0
	for name, harm := range map[string]func(*box) error{
		"nothing":        func(*box) error { return nil },
		"sentry":         func(b *box) error { return killed(b.sentry.Getpid()) },
		"gofer":          func(b *box) error { return killed(b.container.GoferPid.Load()) },
		"stopped sentry": func(b *box) error { return stopped(b.sentry.Getpid()) },
		"stopped gofer":  func(b *box) error { return stopped(b.container.GoferPid.Load()) },
		"silent": func(b *box) error { // as if its sentry did not answer: another gets the answer
			b.line.mu.Lock()
			defer b.line.mu.Unlock()
			b.line.waiting = append(b.line.waiting, make(chan string, 1))
			return nil
		},
		"line":   func(b *box) error { return unix.Shutdown(int(b.line.conn.Fd()), unix.SHUT_RD) },
		"cgroup": func(b *box) error { b.cgroup.name += "-lost"; return nil },
	} {
		if err := d.spares.drop(); err != nil {
			t.Fatal(err)
		}
		spare := haveSpare(t, d)
		cgroup := *spare.cgroup
		if err := harm(spare); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		sb, err := d.Restore(t.Context(), spec, dir)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("%s: the restore took %s", name, took)
		}
		if (sb.(*box) == spare) != (name == "nothing") {
			t.Errorf("%s: restored in %s", name, sb.(*box).dir)
		}
		if name == "cgroup" {
			if err := cgroup.remove(); err != nil {
				t.Error(err)
			}
		}
		if err := errors.Join(sb.Pause(t.Context()), sb.Snapshot(t.Context(), t.TempDir()), sb.Vacate()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{filepath.Join(d.slot.Dir(), "netns", "unfit")}, ofSandboxes(belongings(t, d))); diff != "" {
			t.Errorf("%s: left are (-want +got)\n%s", name, diff)
		}
		if after := openFiles(t); before > 0 && after > before+readyNamespaces {
			t.Errorf("%s: %d files are open, %d were before", name, after, before)
		} else if before == 0 {
			before = after
		}
	}
}

// killed kills a child and waits until it has ended, without reaping it.
func killed(pid int) error {
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		return err
	}
	var info unix.Siginfo
	return unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT, nil)
}

// stopped stops a child and waits until it has.
func stopped(pid int) error {
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		return err
	}
	var info unix.Siginfo
	return unix.Waitid(unix.P_PID, pid, &info, unix.WSTOPPED|unix.WNOWAIT, nil)
}

// gone waits until a child has been reaped.
func gone(pid int, within time.Duration) error {
	deadline := time.Now().Add(within)
	for pause := time.NewTicker(time.Millisecond); ; <-pause.C {
		if errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("process %d is still there", pid)
		}
	}
}

// A spare is not for everybody.
func TestGraftable(t *testing.T) {
	layered := func(target string) sandbox.Spec {
		return sandbox.Spec{Mounts: []sandbox.Mount{{Source: "/x", Target: target, Mode: sandbox.Layered}}}
	}
	for _, target := range []string{lull.AppDir, "/home/app/data", "/srv/a/b"} {
		if !graftable(layered(target)) {
			t.Errorf("%s: not graftable", target)
		}
	}
	nested := layered("/data/inner")
	nested.Mounts = append(nested.Mounts, layered("/data").Mounts...)
	if graftable(nested) {
		t.Error("a mount in another: graftable")
	}
	for _, target := range []string{"/usr/local", "/usr", "/etc/passwd", "/tmp", "/lib/x", "/var/run"} {
		if graftable(layered(target)) {
			t.Errorf("%s: graftable", target)
		}
	}
	if graftable(sandbox.Spec{Mounts: []sandbox.Mount{{Source: "/x", Target: "/data", Mode: sandbox.ReadWrite}}}) {
		t.Error("a mount of gVisor's own: graftable")
	}
}

// One spare is made for several wishes, none while a sandbox is started, and it does not last.
func TestSpares(t *testing.T) {
	d := newDriver(t)
	done := d.spares.busy(false)
	d.spares.want()
	d.spares.mu.Lock()
	if d.spares.timer != nil || d.spares.working != nil {
		t.Error("a spare is made while a sandbox is started")
	}
	d.spares.mu.Unlock()
	done()
	first := haveSpare(t, d)
	if haveSpare(t, d) != first {
		t.Error("there are two spares")
	}
	d.spares.mu.Lock()
	d.spares.timer.Reset(0)
	d.spares.mu.Unlock()
	if err := gone(first.sentry.Getpid(), 10*time.Second); err != nil {
		t.Error(err)
	}
	if found := belongings(t, d); len(found) > 0 {
		t.Errorf("left are\n%s", strings.Join(found, "\n"))
	}
	_ = haveSpare(t, d) // for Close to remove
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if found := belongings(t, d); len(found) > 0 {
		t.Errorf("closed: left are\n%s", strings.Join(found, "\n"))
	}
}

func TestErrandIsReadAsSent(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	sent := errand{Processes: 7, Wider: []widened{{Port: 80, Asked: netip.MustParseAddr("127.0.0.1")}}}
	if _, err := unix.Write(pair[0], sent.question()[1:]); err != nil {
		t.Fatal(err)
	}
	in := &inside{line: pair[1], wider: map[boundPort]netip.Addr{}}
	if err := in.adopt(); err != nil {
		t.Fatal(err)
	}
	if got := in.wider[boundPort{port: 80}]; in.processes.Load() != 7 || got != sent.Wider[0].Asked {
		t.Errorf("got %d, %v", in.processes.Load(), got)
	}
}
