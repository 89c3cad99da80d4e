// Package e2e tells the stories of people who use Lull, with the real binary, real sandboxes, real packages and real
// clients. Whatever it checks a stranger could check too.
//
// It needs Linux, root and what make/deps.sh installs. LULL_BINARY names a binary to test; without it one is built.
package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lull-dev/lull/e2e/rig"
)

// scene is what all tests share: one binary and one node.
var scene struct {
	dir    string
	binary string
	node   func() (*rig.Node, error) // starts it on first use
	crowd  func() (string, error)    // builds the program on first use
}

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		os.Exit(m.Run()) // each test says that it cannot run
	}
	os.Exit(play(m))
}

func play(m *testing.M) int {
	dir, err := os.MkdirTemp("", "lull-e2e-")
	if err != nil {
		return broken(err)
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	scene.dir = dir
	if scene.binary, err = rig.Build(ctx, dir); err != nil {
		return broken(err)
	}
	if scene.binary, err = ownCopy(scene.binary, dir); err != nil {
		return broken(err)
	}
	var node *rig.Node
	scene.node = sync.OnceValues(func() (*rig.Node, error) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		var err error
		node, err = rig.Start(ctx, rig.Options{Binary: scene.binary, Dir: dir, Sandbox: "gvisor"})
		return node, err
	})
	scene.crowd = sync.OnceValues(func() (string, error) {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute) // its own: it may be wanted late
		defer cancel()
		return rig.BuildCrowd(ctx, dir)
	})
	code := m.Run()
	if node == nil {
		return code
	}
	return max(code, closeScene(node))
}

// closeScene stops the shared node, after all it has been through, and counts what is left of it.
func closeScene(node *rig.Node) int {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := node.Stop(ctx); err != nil {
		return broken(err)
	}
	if left := rig.Remains(node.Slot, scene.binary); len(left) > 0 {
		return broken(fmt.Errorf("the shared node left behind:\n%s", strings.Join(left, "\n")))
	}
	return 0
}

func broken(err error) int {
	fmt.Fprintln(os.Stderr, "FAIL: end-to-end tests:", err)
	return 1
}

// ownCopy makes processes of these tests known by their program: no other node runs from that file.
func ownCopy(binary, dir string) (string, error) {
	// A process that another test starts meanwhile would inherit the open file, and the kernel runs no program that is
	// open for writing.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	own := filepath.Join(dir, "bin", "lull")
	if err := os.MkdirAll(filepath.Dir(own), 0o755); err != nil {
		return "", err
	}
	from, err := os.Open(binary)
	if err != nil {
		return "", err
	}
	defer from.Close()
	to, err := os.OpenFile(own, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		return "", err
	}
	_, err = io.Copy(to, from)
	if closeErr := to.Close(); err == nil {
		err = closeErr
	}
	return own, err
}

// needRoot ends a test that this machine cannot run. In CI that is a failure.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	const reason = "sandboxes need root: run the tests as root"
	if os.Getenv("CI") == "true" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// sharedNode returns the node that the tests share.
func sharedNode(t *testing.T) *stage {
	t.Helper()
	needRoot(t)
	node, err := scene.node()
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{t: t, Node: node}
	s.logOnFailure()
	return s
}

// logOnFailure shows what the node has said since, if the test fails.
func (s *stage) logOnFailure() {
	before := len(s.Log())
	s.t.Cleanup(func() {
		if s.t.Failed() {
			lines := strings.Split(s.Log()[before:], "\n")
			last := max(0, len(lines)-40)
			var worries []string
			for _, line := range lines[:last] {
				if strings.Contains(line, "level=WARN") || strings.Contains(line, "level=ERROR") {
					worries = append(worries, line)
				}
			}
			worries = worries[max(0, len(worries)-40):]
			s.t.Logf("the node meanwhile:\n%s", strings.Join(append(worries, lines[last:]...), "\n"))
		}
	})
}

// ownNode starts a node for one test. dir is what it keeps; tests that start one again pass it again.
func ownNode(t *testing.T, binary, dir string, args ...string) *stage {
	t.Helper()
	node, err := rig.Start(within(t, 30*time.Second), rig.Options{Binary: binary, Dir: dir, Sandbox: "gvisor", Args: args})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(node.Kill) // if the test did not get as far as ending it
	s := &stage{t: t, Node: node}
	s.logOnFailure()
	return s
}

// within returns a context that ends with the test, and after d at the latest.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits until check says ok. It fails with what check saw last when d has passed.
func eventually(t *testing.T, d time.Duration, what string, check func() (ok bool, seen any)) {
	t.Helper()
	deadline, again := time.NewTimer(d), time.NewTicker(50*time.Millisecond)
	defer deadline.Stop()
	defer again.Stop()
	for {
		ok, seen := check()
		if ok {
			return
		}
		select {
		case <-deadline.C:
			t.Fatalf("not within %s: %s; last seen: %+v", d, what, seen)
		case <-again.C:
		}
	}
}

// copyApp copies a fixture to a directory of the test's own and lays files over it.
func copyApp(t *testing.T, fixture string, files map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), fixture)
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("apps", fixture))); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		writeFile(t, filepath.Join(dir, name), []byte(text))
	}
	return dir
}

func writeFile(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// replaceIn changes a text in a file that must hold it.
func replaceIn(t *testing.T, path, old, new string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(data, []byte(old)) {
		t.Fatalf("%s does not hold %q", path, old)
	}
	writeFile(t, path, bytes.ReplaceAll(data, []byte(old), []byte(new)))
}
