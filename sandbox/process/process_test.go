package process

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lull-dev/lull/sandbox"
	"github.com/lull-dev/lull/sandbox/sandboxtest"
)

const wait = 20 * time.Second

// TestMain is also the entry of a node that is going to be killed.
func TestMain(m *testing.M) {
	if os.Getenv("LULL_TEST_NODE") != "" {
		runNode()
		return
	}
	os.Exit(m.Run())
}

func TestConformance(t *testing.T) {
	sandboxtest.Run(t, func(t *testing.T) sandbox.Driver { return newDriver(t) })
}

// Processes that have left the group, the session and their parent are still paused, counted and killed.
func TestRunawaysAreFollowed(t *testing.T) {
	for name, run := range map[string]string{
		"other group":                       `set -m; sleep 601 & echo pid $!; wait`,
		"other session":                     `setsid sh -c 'echo pid $$; exec sleep 602' & wait`,
		"other session, no parent, no file": `(setsid sh -c 'echo pid $$; exec sleep 603 <&- >&- 2>&-' &) ; sleep 604`,
		"other environment":                 `env -i /usr/bin/setsid /bin/sh -c 'echo pid $$; exec /bin/sleep 605' & wait`,
	} {
		t.Run(name, func(t *testing.T) {
			var out transcript
			b := start(t, newDriver(t), sandbox.Spec{Args: []string{"sh", "-c", run}, Stdout: &out})
			runaway := out.number(t, "pid ")
			if found := members(b.pid, b.mark); len(found) < 2 {
				t.Errorf("found %v, want the leader and %d", found, runaway)
			}
			must(t, b.Pause(t.Context()))
			waitFor(t, "the runaway to stop", func() any { return stateOf(runaway) }, "T")
			must(t, b.Resume(t.Context()))
			waitFor(t, "the runaway to go on", func() any { return stateOf(runaway) }, "S")
			must(t, b.Close())
			if state := stateOf(runaway); state != "" && state != "Z" {
				t.Errorf("process %d is in state %s after Close", runaway, state)
			}
		})
	}
}

func TestNothingOutlivesTheMainProcess(t *testing.T) {
	var out transcript
	b := start(t, newDriver(t), sandbox.Spec{Args: []string{"sh", "-c", "setsid sleep 606 & echo pid $!; exit 3"}, Stdout: &out})
	select {
	case <-b.Done():
	case <-time.After(wait):
		t.Fatal("not done although the main process has exited")
	}
	if b.Exit().Code != 3 {
		t.Errorf("exit is %+v, want code 3", b.Exit())
	}
	if state := stateOf(out.number(t, "pid ")); state != "" && state != "Z" {
		t.Errorf("what it has started is in state %s", state)
	}
}

// A node that is killed takes its app along, and the next node ends what the app had started.
func TestKilledNodeLeavesNothing(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "LULL_TEST_NODE=1")
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	lines := bufio.NewScanner(out)
	pids := map[string]int{}
	for len(pids) < 2 && lines.Scan() {
		if name, number, found := strings.Cut(lines.Text(), " "); found {
			pids[name], _ = strconv.Atoi(number)
		}
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if pids["app"] == 0 || pids["child"] == 0 {
		t.Fatalf("the node says %v", pids)
	}
	waitFor(t, "the app to die", func() any { return dead(pids["app"]) }, true)
	if dead(pids["child"]) {
		t.Fatal("the app's child died as well: the rest of this test is void")
	}
	start(t, newDriver(t), sandbox.Spec{Args: []string{"true"}})
	waitFor(t, "the app's child to die", func() any { return dead(pids["child"]) }, true)
}

func runNode() {
	driver := New(slog.New(slog.DiscardHandler))
	_, err := driver.Start(context.Background(), sandbox.Spec{
		ID: "killed", Dir: "/", Args: []string{"sh", "-c", "setsid sleep 607 & echo app $$; echo child $!; wait"},
		Env: []string{"PATH=" + os.Getenv("PATH")}, Stdout: os.Stdout,
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	select {}
}

func TestPathsAreTranslated(t *testing.T) {
	release, cache := t.TempDir(), t.TempDir()
	must(t, os.MkdirAll(filepath.Join(release, "bin"), 0o755))
	must(t, os.WriteFile(filepath.Join(release, "bin", "tool"), []byte("#!/bin/sh\necho $PWD $1 $2 $LIST $PATH\n"), 0o755))
	for name, args := range map[string][]string{
		"absolute":           {"/app/bin/tool", "/app/x", "--app=/app"},
		"relative":           {"bin/tool", "/app/x", "--app=/app"},
		"looked up":          {"tool", "/app/x", "--app=/app"},
		"in a relative PATH": {"tool", "/app/x", "--app=/app"},
	} {
		t.Run(name, func(t *testing.T) {
			path := "/app/bin:/usr/bin:/bin"
			want := release + "/bin:/usr/bin:/bin"
			if name == "in a relative PATH" {
				path, want = "bin:/usr/bin:/bin", "bin:/usr/bin:/bin"
			}
			var out transcript
			b := start(t, newDriver(t), sandbox.Spec{
				Mounts: []sandbox.Mount{
					{Source: "/nowhere", Target: "/app"}, {Source: release, Target: "/app", Mode: sandbox.Layered},
					{Source: cache, Target: "/app/cache", Mode: sandbox.ReadWrite},
				},
				Args: args, Dir: "/app", Env: []string{"PATH=" + path, "LIST=/app/cache/x:/application:/app"}, Stdout: &out,
			})
			<-b.Done()
			line := strings.Join([]string{release, release + "/x", "--app=/app", cache + "/x:/application:" + release, want}, " ") + "\n"
			if out.text() != line {
				t.Errorf("got  %swant %s", out.text(), line)
			}
		})
	}
}

func TestStartSaysWhatIsMissing(t *testing.T) {
	driver := newDriver(t)
	for want, spec := range map[string]sandbox.Spec{
		"/no/such/dir":  {Args: []string{"true"}, Dir: "/no/such/dir"},
		"no-such-tool":  {Args: []string{"no-such-tool"}},
		"/etc/hostname": {Args: []string{"/etc/hostname"}},
	} {
		spec.ID, spec.Env = "missing", []string{"PATH=/usr/bin:/bin"}
		if spec.Dir == "" {
			spec.Dir = "/"
		}
		if _, err := driver.Start(t.Context(), spec); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want one that names %s", err, want)
		}
	}
}

// Dial goes to the sandbox's own sockets only: the port may be somebody else's on this host.
func TestDialRefusesOthersPorts(t *testing.T) {
	driver := newDriver(t)
	listener := sandboxtest.Command("serve", "127.0.0.1:0")
	var out transcript
	owner := start(t, driver, sandbox.Spec{Args: listener, Stdout: &out})
	out.wait(t, "ready")
	listeners, err := owner.Listeners(t.Context())
	must(t, err)
	if len(listeners) != 1 {
		t.Fatalf("listeners are %v, want one", listeners)
	}
	port := int(listeners[0].Addr.Port())
	other := start(t, driver, sandbox.Spec{Args: []string{"sleep", "608"}})
	if conn, err := other.Dial(t.Context(), port); err == nil {
		_ = conn.Close()
		t.Errorf("connected to port %d of another sandbox", port)
	}
	conn, err := owner.Dial(t.Context(), port)
	must(t, err)
	_ = conn.Close()
}

func TestManyListenersAreFound(t *testing.T) {
	const count = 200
	command := sandboxtest.Command("serve")
	for range count {
		command = append(command, "127.0.0.1:0")
	}
	var out transcript
	b := start(t, newDriver(t), sandbox.Spec{Args: command, Stdout: &out})
	out.wait(t, "ready")
	listeners, err := b.Listeners(t.Context())
	must(t, err)
	if len(listeners) != count || !slices.IsSortedFunc(listeners, byPort) {
		t.Errorf("%d listeners, want %d in order of port: %v", len(listeners), count, listeners)
	}
}

func byPort(a, b sandbox.Listener) int { return int(a.Addr.Port()) - int(b.Addr.Port()) }

func TestCloseWhileStarting(t *testing.T) {
	for range 20 {
		driver := New(slog.New(slog.DiscardHandler))
		var all sync.WaitGroup
		for i := range 4 {
			all.Go(func() {
				b, err := driver.Start(context.Background(), sandbox.Spec{ID: fmt.Sprint(i), Dir: "/", Args: []string{"/bin/sleep", "609"}})
				if err == nil {
					<-b.Done() // the driver's Close must end it
				}
			})
		}
		must(t, driver.Close())
		all.Wait()
	}
}

func newDriver(t *testing.T) *Driver {
	driver := New(slog.New(slog.NewTextHandler(t.Output(), nil)))
	t.Cleanup(func() {
		if err := driver.Close(); err != nil {
			t.Error(err)
		}
	})
	return driver
}

func start(t *testing.T, driver *Driver, spec sandbox.Spec) *box {
	t.Helper()
	spec.ID = fmt.Sprintf("test-%d", newMark())
	if spec.Dir == "" {
		spec.Dir = "/"
	}
	if spec.Env == nil {
		spec.Env = []string{"PATH=" + os.Getenv("PATH")}
	}
	b, err := driver.Start(t.Context(), spec)
	must(t, err)
	t.Cleanup(func() { must(t, b.Close()) })
	return b.(*box)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// waitFor waits until look returns want.
func waitFor(t *testing.T, what string, look func() any, want any) {
	t.Helper()
	deadline := time.After(wait)
	again := time.NewTicker(2 * time.Millisecond)
	defer again.Stop()
	for {
		saw := look()
		if saw == want {
			return
		}
		select {
		case <-again.C:
		case <-deadline:
			t.Fatalf("waited %s for %s; last seen: %v", wait, what, saw)
		}
	}
}

func dead(pid int) bool { return unix.Kill(pid, 0) == unix.ESRCH || stateOf(pid) == "Z" }

// stateOf returns a process's state as ps shows it, "" if there is none.
func stateOf(pid int) string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	return string(bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:])[0])
}

// transcript keeps what is written to it.
type transcript struct {
	mu   sync.Mutex
	kept bytes.Buffer
}

func (o *transcript) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.kept.Write(p)
}

func (o *transcript) text() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.kept.String()
}

func (o *transcript) wait(t *testing.T, text string) {
	t.Helper()
	waitFor(t, text, func() any { return strings.Contains(o.text(), text) }, true)
}

// number waits for a line that begins with prefix and returns the number behind it.
func (o *transcript) number(t *testing.T, prefix string) int {
	t.Helper()
	waitFor(t, "a line with "+prefix, func() any {
		return strings.Contains(o.text(), prefix) && strings.HasSuffix(o.text(), "\n")
	}, true)
	for line := range strings.Lines(o.text()) {
		if text, ok := strings.CutPrefix(line, prefix); ok {
			number, err := strconv.Atoi(strings.TrimSpace(text))
			must(t, err)
			return number
		}
	}
	t.Fatalf("no %q in %q", prefix, o.text())
	return 0
}
