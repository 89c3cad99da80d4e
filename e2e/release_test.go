package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A new release takes over while a download runs and a client asks all the time: the download ends whole, nobody sees a
// failure, and a release that does not come up is never seen at all. Going back works the same way.
func TestReleaseSwitchWithoutAGap(t *testing.T) {
	t.Parallel()
	s := sharedNode(t)
	dir := copyApp(t, "versions", nil)
	s.deploy(dir, "versions")

	hammer := s.startHammer("versions")
	download := s.startDownload("1")
	replaceIn(t, filepath.Join(dir, "package.json"), "1.0.0", "2.0.0")
	if second := s.deploy(dir, "versions"); second.Release != 2 {
		t.Errorf("the second deploy made release %d", second.Release)
	}
	hammer.expect("2.0.0")
	download.wait()

	t.Run("broken", func(t *testing.T) { s.with(t).deployBroken(dir) })
	hammer.expect("2.0.0")

	download = s.startDownload("2")
	back, err := s.Rollback(within(t, time.Minute), "versions", 0)
	if err != nil || back.Release != 1 {
		t.Fatalf("lull rollback: release %d, %v", back.Release, err)
	}
	hammer.expect("1.0.0")
	download.wait()
	s.checkReleases("versions", 1, 1, 2)

	seen := hammer.stop()
	if diff := cmp.Diff([]string{"1.0.0", "2.0.0", "1.0.0"}, seen); diff != "" {
		t.Errorf("the client saw these versions, one after the other (-want +got):\n%s", diff)
	}
}

func (s *stage) with(t *testing.T) *stage { return &stage{t: t, Node: s.Node} }

// deployBroken deploys a release that dies at its start.
func (s *stage) deployBroken(dir string) {
	broken := copyApp(s.t, "versions", map[string]string{"server.js": "console.log('no database'); process.exit(3);\n"})
	result := s.command("deploy", broken, "--name", "versions")
	if result.Code != 1 || result.Stdout != "" || !strings.Contains(result.Stderr, "no database") {
		s.t.Errorf("deploy of a broken release, want exit code 1 and its last output: %s", result)
	}
	s.checkReleases("versions", 2, 1, 2)
}

// checkReleases checks that lull releases lists exactly these.
func (s *stage) checkReleases(app string, current int, numbers ...int) {
	s.t.Helper()
	releases, err := s.Releases(within(s.t, 20*time.Second), app)
	if err != nil {
		s.t.Fatal(err)
	}
	want := map[int]bool{}
	for _, number := range numbers {
		want[number] = number == current
	}
	got := map[int]bool{}
	for _, release := range releases {
		got[release.Release] = release.Current
	}
	if diff := cmp.Diff(want, got); diff != "" {
		s.t.Errorf("releases of %s, and whether they are current (-want +got):\n%s", app, diff)
	}
}

// hammer is a client that asks for a page all the time.
type hammer struct {
	s      *stage
	app    string
	cancel context.CancelFunc
	ended  sync.WaitGroup

	mu    sync.Mutex
	seen  []string // versions, each time one differs from that before; guarded by mu
	fails []string // guarded by mu
	asked int      // guarded by mu
}

func (s *stage) startHammer(app string) *hammer {
	ctx, cancel := context.WithCancel(s.t.Context())
	h := &hammer{s: s, app: app, cancel: cancel}
	h.ended.Go(func() { h.run(ctx) })
	s.t.Cleanup(func() {
		cancel()
		h.ended.Wait()
	})
	return h
}

func (h *hammer) run(ctx context.Context) {
	client := h.s.Client()
	defer client.CloseIdleConnections()
	for ctx.Err() == nil {
		// The request itself is not cut off, so that its end counts.
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		a, err := ask(limit, client, http.MethodGet, h.s.URL(h.app, "/"), "")
		cancel()
		h.note(a, err)
	}
}

func (h *hammer) note(a answer, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked++
	switch {
	case err != nil || a.Status != http.StatusOK:
		h.fails = append(h.fails, fmt.Sprintf("request %d: %d %q %v", h.asked, a.Status, a.Body, err))
	case len(h.seen) == 0 || h.seen[len(h.seen)-1] != a.Body:
		h.seen = append(h.seen, a.Body)
	}
}

// expect checks that whoever asks from now on gets this version.
func (h *hammer) expect(version string) {
	h.s.t.Helper()
	for range 20 {
		if got := h.s.get(h.app, "/").Body; got != version {
			h.s.t.Errorf("a new request got version %s, want %s", got, version)
		}
	}
}

// stop ends the hammering and returns the versions seen; no request may have failed.
func (h *hammer) stop() []string {
	h.s.t.Helper()
	h.cancel()
	h.ended.Wait()
	if len(h.fails) > 0 {
		h.s.t.Errorf("%d of %d requests failed: %s", len(h.fails), h.asked, strings.Join(h.fails[:min(5, len(h.fails))], "; "))
	}
	h.s.t.Logf("%d requests", h.asked)
	return h.seen
}

// download is one that takes about four seconds.
type download struct {
	s     *stage
	want  byte
	ended chan reply // one value
}

const downloadBlocks = 40

// startDownload begins a download and returns when its first bytes are there.
func (s *stage) startDownload(version string) *download {
	s.t.Helper()
	url := s.URL("versions", fmt.Sprintf("/download?blocks=%d&every=100", downloadBlocks))
	req, err := http.NewRequestWithContext(within(s.t, time.Minute), http.MethodGet, url, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := s.Client().Do(req)
	if err != nil {
		s.t.Fatalf("start a download: %v", err)
	}
	first := make([]byte, 1)
	if _, err := io.ReadFull(resp.Body, first); err != nil || resp.StatusCode != http.StatusOK {
		s.t.Fatalf("start a download: %s, %v", resp.Status, err)
	}
	d := &download{s: s, want: version[0], ended: make(chan reply, 1)}
	go func() {
		defer resp.Body.Close()
		rest, err := io.ReadAll(resp.Body)
		d.ended <- reply{answer{Body: string(first) + string(rest)}, err}
	}()
	return d
}

func (d *download) wait() {
	d.s.t.Helper()
	r := <-d.ended
	if r.err != nil {
		d.s.t.Fatalf("the download ended after %d bytes: %v", len(r.Body), r.err)
	}
	if want := strings.Repeat(string(d.want), downloadBlocks<<16); r.Body != want {
		d.s.t.Errorf("the download is not whole: %d bytes, want %d", len(r.Body), len(want))
	}
}
