package gvisor

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
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
	"github.com/lull-dev/lull/sandbox/sandboxtest"
)

// suiteSpec describes a sandbox that runs the conformance suite's program, which listens on port 8080.
func suiteSpec(id string) sandbox.Spec {
	return sandbox.Spec{
		ID: id, Args: sandboxtest.Command("serve", "0.0.0.0:8080"), Env: []string{"PATH=/usr/bin"}, Dir: "/tmp",
		Limits: lull.Resources{Memory: 128 * lull.MB, CPU: 1, Disk: 16 * lull.MB, Processes: 64},
		Egress: lull.Egress{lull.EgressNone},
	}
}

// start starts a sandbox that is closed at the end of the test, and waits until it listens.
func start(t *testing.T, d *Driver, spec sandbox.Spec) sandbox.Sandbox {
	t.Helper()
	sb, err := d.Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sb.Close() })
	awaitListeners(t, sb, nil)
	return sb
}

// snapshotOf pauses and saves.
func snapshotOf(t *testing.T, sb sandbox.Sandbox) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := errors.Join(sb.Pause(t.Context()), sb.Snapshot(t.Context(), dir)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// asleep starts a sandbox and puts it on disk.
func asleep(t *testing.T, d *Driver, spec sandbox.Spec) (dir string) {
	t.Helper()
	sb := start(t, d, spec)
	dir = snapshotOf(t, sb)
	if err := sb.Vacate(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Restores that fail at any point leave what Vacate has kept, the link, and nothing else.
func TestFailedRestoresLeaveNothing(t *testing.T) {
	d := newDriver(t)
	spec := suiteSpec("left")
	dir := asleep(t, d, spec)
	kept := []string{filepath.Join(d.slot.Dir(), "netns", "left")}
	expect := func(when string, want []string) {
		t.Helper()
		if diff := cmp.Diff(want, ofSandboxes(belongings(t, d))); diff != "" {
			t.Errorf("%s: left are (-want +got)\n%s", when, diff)
		}
	}
	expect("vacated", kept)
	before := openFiles(t)
	for i := range 12 {
		ctx, cancel := context.WithTimeout(t.Context(), rand.N(70*time.Millisecond))
		sb, err := d.Restore(ctx, spec, dir)
		cancel()
		if err == nil { // it was faster
			if err := errors.Join(sb.Pause(t.Context()), sb.Snapshot(t.Context(), t.TempDir()), sb.Vacate()); err != nil {
				t.Fatal(err)
			}
		}
		expect(fmt.Sprint("called off ", i), kept)
	}
	for _, name := range snapshotFiles {
		copied := copyOf(t, dir)
		data, _ := os.ReadFile(filepath.Join(copied, name))
		data[len(data)/3] ^= 1
		if err := os.WriteFile(filepath.Join(copied, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Restore(t.Context(), spec, copied); !errors.Is(err, sandbox.ErrSnapshot) {
			t.Errorf("%s: %v", name, err)
		}
		expect("damaged "+name, kept)
	}
	if after := openFiles(t); after > before+readyNamespaces {
		t.Errorf("%d files are open, %d were before", after, before)
	}
	d.Release("left")
	expect("released", nil)
}

// ofSandboxes leaves out the network's own mounts, of the files it is asked for by name.
func ofSandboxes(found []string) (kept []string) {
	for _, each := range found {
		if !strings.HasPrefix(each, "mount ") {
			kept = append(kept, each)
		}
	}
	return kept
}

func copyOf(t *testing.T, dir string) string {
	t.Helper()
	copied := t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return copied
}

// A state that is damaged and passes the check nevertheless may be restored or not, and the sentry may panic; but it is
// over soon, and nothing is left.
func TestWrongStateEnds(t *testing.T) {
	d := newDriver(t)
	spec := suiteSpec("wrong")
	dir := asleep(t, d, spec)
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 16 {
		copied := copyOf(t, dir)
		path := filepath.Join(copied, snapshotFiles[round%2])
		data, _ := os.ReadFile(path)
		for range 3 {
			data[random.IntN(len(data))] ^= byte(1 + random.IntN(255))
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := blessed(copied); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		began := time.Now()
		sb, err := d.Restore(ctx, spec, copied)
		cancel()
		if took := time.Since(began); took > 4*time.Second {
			t.Errorf("round %d took %v", round, took)
		}
		t.Logf("round %d: %.200v", round, err)
		if err == nil {
			sb.Close()
		}
		for _, each := range ofSandboxes(belongings(t, d)) {
			if filepath.Base(filepath.Dir(each)) != "netns" {
				t.Errorf("round %d: left is %s", round, each)
			}
		}
	}
}

// What is done ahead for speed is done for a restore as well: see TestFastPathsAreTaken.
func TestFastPathsOfARestore(t *testing.T) {
	for name, spare := range map[string]bool{"anew": false, "in a spare": true} {
		t.Run(name, func(t *testing.T) {
			d := newDriver(t)
			spec := suiteSpec("fast")
			dir := asleep(t, d, spec)
			if err := d.spares.drop(); err != nil {
				t.Fatal(err)
			}
			logs := t.TempDir()
			extraSettings = map[string]string{"debug": "true", "debug-log": logs + "/"}
			defer func() { extraSettings = nil }()
			if spare {
				haveSpare(t, d)
			}
			sb, err := d.Restore(t.Context(), spec, dir)
			if err != nil {
				t.Fatal(err)
			}
			sb.Close()
			files, err := filepath.Glob(filepath.Join(logs, "*.boot.*"))
			if err != nil || len(files) != 1 {
				t.Fatalf("logs are %v, %v", files, err)
			}
			text, _ := os.ReadFile(files[0])
			if !strings.Contains(string(text), "Loaded precompiled seccomp instructions") {
				t.Error("the precompiled seccomp program is not used")
			}
			if took := between(t, string(text), "start signal received at", "signal forwarding started at"); took > 5*time.Millisecond {
				t.Errorf("asking for signals took %v: it was not done ahead", took)
			}
		})
	}
}

// between returns the time between two points of the sentry's timeline.
func between(t *testing.T, log, from, to string) time.Duration {
	t.Helper()
	at := func(point string) int64 {
		_, rest, _ := strings.Cut(log, point)
		_, rest, _ = strings.Cut(rest, "unix nanos: ")
		text, _, _ := strings.Cut(rest, ")")
		nanos, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			t.Fatalf("no %q in the sentry's log", point)
		}
		return nanos
	}
	return time.Duration(at(to) - at(from))
}

// blessed makes the files of a snapshot those that should be there.
func blessed(dir string) error {
	path := filepath.Join(dir, snapshotFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var s snapshot
	if err := json.Unmarshal(data, &s); err != nil {
		return err
	}
	if s.Files, err = readContents(dir); err != nil {
		return err
	}
	if data, err = json.Marshal(s); err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o600)
}

// What was made with something else is refused before anything is started.
func TestSnapshotsOfOthersAreRefused(t *testing.T) {
	d := newDriver(t)
	spec := suiteSpec("others")
	dir := asleep(t, d, spec)
	for name, change := range map[string]func(*maker){
		"gVisor":       func(m *maker) { m.GVisor = "v0.0.1" },
		"executable":   func(m *maker) { m.Executable = "1234" },
		"processor":    func(m *maker) { m.CPU = "Another 1234" },
		"architecture": func(m *maker) { m.Arch = "arm" },
	} {
		copied := copyOf(t, dir)
		path := filepath.Join(copied, snapshotFile)
		data, _ := os.ReadFile(path)
		var s snapshot
		if err := json.Unmarshal(data, &s); err != nil {
			t.Fatal(err)
		}
		change(&s.Maker)
		data, _ = json.Marshal(s)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Restore(t.Context(), spec, copied); !errors.Is(err, sandbox.ErrSnapshot) || !strings.Contains(err.Error(), name) {
			t.Errorf("another %s: %v", name, err)
		}
	}
}

func TestProcessorIn(t *testing.T) {
	one := processorIn([]byte("processor: 0\nvendor_id\t: Make\nflags\t: a b c\n\nprocessor: 1\nflags: d\n"))
	if !strings.HasPrefix(one, "Make ") || one != processorIn([]byte("vendor_id: Make\nflags: c b a\n")) {
		t.Errorf("the order of flags matters: %q", one)
	}
	if one == processorIn([]byte("vendor_id: Make\nflags: a b\n")) {
		t.Error("a missing flag does not matter")
	}
}

// The sentry dies while it writes.
func TestSentryDiesInSnapshot(t *testing.T) {
	d := newDriver(t)
	sb := start(t, d, suiteSpec("dying"))
	if err := sb.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(10*time.Millisecond, func() { _ = unix.Kill(sb.(*box).sentry.Getpid(), unix.SIGKILL) })
	if err := sb.Snapshot(t.Context(), t.TempDir()); err != nil && !errors.Is(err, sandbox.ErrExited) {
		t.Errorf("error is %v", err)
	}
	<-sb.Done()
	if err := sb.Vacate(); !errors.Is(err, sandbox.ErrExited) {
		t.Errorf("vacated a dead sandbox: %v", err)
	}
}

// A sentry that does not answer is killed some time after the time for a verb is over.
func TestSentryHangs(t *testing.T) {
	const limit = 200 * time.Millisecond
	d := newDriver(t)
	t.Run("verbs", func(t *testing.T) {
		for name, c := range map[string]struct {
			paused bool
			verb   func(ctx context.Context, sb sandbox.Sandbox) error
		}{
			"pause":    {false, func(ctx context.Context, sb sandbox.Sandbox) error { return sb.Pause(ctx) }},
			"resume":   {true, func(ctx context.Context, sb sandbox.Sandbox) error { return sb.Resume(ctx) }},
			"snapshot": {true, func(ctx context.Context, sb sandbox.Sandbox) error { return sb.(*box).checkpoint(ctx, t.TempDir()) }},
			"stop":     {false, func(_ context.Context, sb sandbox.Sandbox) error { sb.Stop(limit); return sandbox.ErrExited }},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				sb := start(t, d, suiteSpec("hanging-"+name))
				if c.paused {
					if err := sb.Pause(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				if err := stopped(sb.(*box).sentry.Getpid()); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				defer cancel()
				if err := c.verb(ctx, sb); err == nil {
					t.Error("it went well")
				}
				<-sb.Done()
				if err := sb.Close(); err != nil {
					t.Error(err)
				}
			})
		}
	})
	if found := ofSandboxes(belongings(t, d)); len(found) > 0 {
		t.Errorf("left are\n%s", strings.Join(found, "\n"))
	}
}

// A driver that is closed gives up what was kept.
func TestCloseGivesUpWhatWasKept(t *testing.T) {
	d := newDriver(t)
	asleep(t, d, suiteSpec("kept"))
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if found := belongings(t, d); len(found) > 0 {
		t.Errorf("left are\n%s", strings.Join(found, "\n"))
	}
}

// watcher is a server that says hello to whoever connects, and which of its connections ended and how.
const watcher = `
const net = require("net")
const ended = []
net.createServer(c => {
  c.on("error", e => ended.push(e.code)).on("close", () => ended.push("close"))
  c.write("hello\n")
}).listen(8080)
net.createServer(c => c.end(JSON.stringify({ended}) + "\n")).listen(8081)
`

// Without its address an app sees every connection end, also where it gets the same address by chance; and so do those
// who were connected.
func TestConnectionsEndWithoutTheAddress(t *testing.T) {
	for name, pool := range map[string]string{"another address": "198.18.0.0/15", "the same address": "198.18.0.0/24"} {
		t.Run(name, func(t *testing.T) {
			d := newDriverIn(t, netip.MustParsePrefix(pool))
			spec := helloSpec("cut", helloDir(t))
			spec.Args = []string{"node", "-e", watcher}
			sb := start(t, d, spec)
			awaitListeners(t, sb, []string{"[::]:8080", "[::]:8081"})
			var conns []net.Conn
			for range 30 {
				conns = append(conns, greeted(t, sb))
			}
			addr := sb.(*box).link.Addr()
			dir := snapshotOf(t, sb)
			if err := sb.Vacate(); err != nil {
				t.Fatal(err)
			}
			d.Release("cut")
			sb, err := d.Restore(t.Context(), spec, dir)
			if err != nil {
				t.Fatal(err)
			}
			defer sb.Close()
			if same := sb.(*box).link.Addr() == addr; same != (name == "the same address") {
				t.Fatalf("the address was %v and is %v", addr, sb.(*box).link.Addr())
			}
			deadline := time.Now().Add(10 * time.Second)
			var got struct{ Ended []string }
			for again := time.NewTicker(10 * time.Millisecond); ; <-again.C {
				got.Ended = nil
				conn, err := sb.Dial(t.Context(), 8081)
				if err != nil {
					t.Fatal(err)
				}
				if err := json.NewDecoder(conn).Decode(&got); err != nil {
					t.Fatal(err)
				}
				conn.Close()
				closed := 0
				for _, how := range got.Ended {
					if how == "close" {
						closed++
					}
				}
				if closed == len(conns) {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("the app has seen %v", got.Ended)
				}
			}
			t.Logf("the app has seen %v", got.Ended[:4])
			greeted(t, sb)
		})
	}
}

// greeted connects and waits for the greeting.
func greeted(t *testing.T, sb sandbox.Sandbox) net.Conn {
	t.Helper()
	conn, err := sb.Dial(t.Context(), 8080)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if said, err := bufio.NewReader(conn).ReadString('\n'); err != nil || said != "hello\n" {
		t.Fatalf("said %q, %v", said, err)
	}
	return conn
}

// newDriverIn is newDriver for one pool of addresses, and no network made ahead.
func newDriverIn(t *testing.T, pool netip.Prefix) *Driver {
	t.Helper()
	needRoot(t)
	slot, err := host.Claim(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	net, err := network.Open(slot, network.Options{Pool: pool, Ready: -1})
	if err != nil {
		t.Fatal(errors.Join(err, slot.Release()))
	}
	d, err := New(Options{Slot: slot, Network: net, Executable: executable(t), Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(errors.Join(err, net.Close(), slot.Release()))
	}
	t.Cleanup(func() {
		if err := errors.Join(d.Close(), net.Close(), slot.Release()); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	return d
}
