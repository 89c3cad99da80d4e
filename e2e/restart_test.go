package e2e

import (
	"bufio"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lull-dev/lull/e2e/rig"
)

// A node is ended in good order and by force, at moments that hurt, again and again over the same data. After each start
// every deploy that was acknowledged serves, and nothing of the node before is left on the machine.
func TestRestart(t *testing.T) {
	t.Parallel()
	needRoot(t)
	r := &restarts{t: t, dir: t.TempDir()}
	var err error
	if r.binary, err = ownCopy(scene.binary, r.dir); err != nil {
		t.Fatal(err)
	}
	r.app = copyApp(t, "versions", map[string]string{"lull.yaml": "idle: {pause: 300ms}\n"})
	r.start()
	r.empty = r.settledHoldings()
	r.deploy("1.0.0")

	r.t.Log("SIGTERM while a download runs")
	whole := r.startDownload("1")
	r.stop()
	whole.wait()
	r.startAgain()

	r.t.Log("SIGKILL while a download runs")
	broken := r.startDownload("1")
	r.Kill()
	if end := <-broken.ended; end.err == nil {
		t.Errorf("the download ended without an error after %d bytes", len(end.Body))
	}
	r.startAgain()

	r.t.Log("SIGKILL while an environment is paused")
	r.get("/")
	r.awaitState("versions", "paused")
	r.Kill()
	r.startAgain()

	for i, moment := range []string{"uploading", "storing", "starting", "is at"} {
		r.t.Logf("SIGKILL while a deploy says %q", moment)
		r.killWhileDeploying(fmt.Sprintf("%d.0.0", i+2), moment)
		r.startAgain()
	}

	r.t.Log("after all that")
	r.deploy("9.0.0")
	r.stop()
	if left := rig.Remains(r.Slot, r.binary); len(left) > 0 {
		t.Errorf("the last node has left:\n%s", strings.Join(left, "\n"))
	}
}

// restarts is the life of one data directory under one node after another.
type restarts struct {
	t      *testing.T
	dir    string // of the node
	binary string // of its own, so that its processes are known by it
	app    string // directory of the app
	empty  []string
	want   []string // versions that may be served: the last acknowledged, and one that was under way when the node died
	*stage
}

func (r *restarts) start() { r.stage = ownNode(r.t, r.binary, r.dir) }

// startAgain starts a node after another has ended, and checks what there is.
func (r *restarts) startAgain() {
	r.t.Helper()
	r.start()
	if running := rig.Processes(r.binary); len(running) != 1 {
		r.t.Errorf("besides the node there are processes of the one before:\n%s", strings.Join(running, "\n"))
	}
	eventually(r.t, 10*time.Second, "before its first request the node holds what it held when it was new", func() (bool, any) {
		diff := cmp.Diff(r.empty, r.holdings())
		return diff == "", "(-new +now)\n" + diff
	})
	got := r.get("/")
	if !slices.Contains(r.want, got) {
		r.t.Fatalf("version %q is served, want one of %q\nnode:\n%s", got, r.want, tail(r.Log()))
	}
	r.want = []string{got}
	r.checkCurrent()
}

// checkCurrent checks that exactly one release is current.
func (r *restarts) checkCurrent() {
	r.t.Helper()
	releases, err := r.Releases(within(r.t, 20*time.Second), "versions")
	if err != nil {
		r.t.Fatal(err)
	}
	current := 0
	for _, release := range releases {
		if release.Current {
			current++
		}
	}
	if current != 1 {
		r.t.Errorf("%d releases are current: %+v", current, releases)
	}
}

func (r *restarts) stop() {
	r.t.Helper()
	if err := r.Stop(within(r.t, 40*time.Second)); err != nil {
		r.t.Fatal(err)
	}
}

func (r *restarts) get(path string) string {
	r.t.Helper()
	return r.must(http.MethodGet, "versions", path, "").Body
}

func (r *restarts) setVersion(version string) {
	r.t.Helper()
	writeFile(r.t, filepath.Join(r.app, "package.json"), fmt.Appendf(nil,
		`{"name": "versions", "version": %q, "private": true, "scripts": {"start": "node server.js"}}`, version))
}

// deploy deploys a version and waits for the outcome.
func (r *restarts) deploy(version string) {
	r.t.Helper()
	r.setVersion(version)
	r.stage.deploy(r.app, "versions")
	r.want = []string{version}
	if got := r.get("/"); got != version {
		r.t.Errorf("after its deploy %s is not served, but %s", version, got)
	}
}

// killWhileDeploying kills the node as soon as the deploy of a version says something.
func (r *restarts) killWhileDeploying(version, moment string) {
	r.t.Helper()
	r.setVersion(version)
	cmd := r.Command(within(r.t, time.Minute), "deploy", r.app, "--name", "versions")
	talk, err := cmd.StderrPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	var said strings.Builder
	for lines := bufio.NewScanner(talk); lines.Scan(); {
		fmt.Fprintln(&said, lines.Text())
		if strings.Contains(lines.Text(), moment) {
			r.Kill()
		}
	}
	err = cmd.Wait()
	r.Kill() // if the moment has not come
	if !strings.Contains(said.String(), moment) {
		r.t.Errorf("the deploy never said %q:\n%s", moment, &said)
	}
	r.want = append(r.want, version)
	if err == nil { // acknowledged
		r.want = []string{version}
	}
	r.t.Logf("the deploy ended with %v", err)
}

// settledHoldings is holdings once they have not changed for a second: a node makes some things ahead.
func (r *restarts) settledHoldings() (held []string) {
	since := time.Now()
	eventually(r.t, 10*time.Second, "what a new node holds stays the same", func() (bool, any) {
		if now := r.holdings(); !slices.Equal(now, held) {
			held, since = now, time.Now()
		}
		return time.Since(since) > time.Second, held
	})
	return held
}

// holdings lists what the node has on the machine, whatever its slot is called.
func (r *restarts) holdings() []string {
	var held []string
	for _, item := range rig.Holdings(r.Slot) {
		held = append(held, strings.ReplaceAll(item, r.Slot, "SLOT"))
	}
	slices.Sort(held)
	return held
}
