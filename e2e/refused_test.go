package e2e

import (
	"archive/tar"
	"bytes"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
)

// Deploys that cannot work end with exit code 1 and a sentence that says why, and leave nothing behind.
func TestRefusedDeploys(t *testing.T) {
	t.Parallel()
	s := sharedNode(t)
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.Mkdir(empty, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []struct {
		app  string
		dir  string
		says []string
	}{
		{"bad-empty", empty, []string{"is empty"}},
		{"bad-nowhere", filepath.Join(empty, "nowhere"), []string{"no directory"}},
		{"bad-package", "apps/bad/broken-package", []string{"package.json:6:3"}},
		{"bad-manifest", "apps/bad/manifest", []string{"3 mistakes", "lull.yaml:2:1", "concurency", "lull.yaml:4:8", "scale.max", "lull.yaml:6:10", "idle.pause"}},
		{"bad-build", "apps/bad/failing-build", []string{"src/index.ts(3,7): error TS2322: wrong type", "3"}},
		{"bad-exits", "apps/bad/exits", []string{"code 7", "DATABASE_URL is not set"}},
		{"bad-silent", "apps/bad/never-listens", []string{"5s", "worker: waiting for jobs"}},
	} {
		t.Run(bad.app, func(t *testing.T) {
			s := s.with(t)
			result := s.command("deploy", bad.dir, "--name", bad.app, "--json")
			if result.Code != 1 || result.Stdout != "" {
				t.Errorf("want exit code 1 and nothing on stdout: %s", result)
			}
			for _, want := range bad.says {
				if !strings.Contains(result.Stderr, want) {
					t.Errorf("the message does not say %q:\n%s", want, result.Stderr)
				}
			}
			s.checkNothingOf(bad.app)
		})
	}
}

// checkNothingOf checks that nothing is known or kept of an app.
func (s *stage) checkNothingOf(app string) {
	s.t.Helper()
	apps, err := s.Apps(within(s.t, 20*time.Second))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, known := range apps {
		if known.Name == app {
			s.t.Errorf("after the failed deploy lull apps lists %+v", known)
		}
	}
	if listed := s.command("ps", "--json"); listed.Code != 0 || strings.Contains(listed.Stdout, app) {
		s.t.Errorf("after the failed deploy lull ps lists one of its environments: %s", listed)
	}
	if kept := pathsWith(s.t, s.Data, app); len(kept) > 0 {
		s.t.Errorf("after the failed deploy there is still %q", kept)
	}
}

// Archives that would write outside their directory, sent by somebody who does not use our command line.
func TestHostileArchives(t *testing.T) {
	t.Parallel()
	s := sharedNode(t)
	server := &tar.Header{Name: "server.js", Mode: 0o644}
	for name, hostile := range map[string]*tar.Header{
		"upwards":  {Name: "../../etc/passwd", Mode: 0o644},
		"absolute": {Name: "/etc/lull-e2e-intruder", Mode: 0o644},
		"link":     {Name: "outside", Typeflag: tar.TypeSymlink, Linkname: "/etc"},
		"hardlink": {Name: "outside", Typeflag: tar.TypeLink, Linkname: "../../../../etc/passwd"},
		"device":   {Name: "disk", Typeflag: tar.TypeBlock, Devmajor: 7, Mode: 0o666},
	} {
		t.Run(name, func(t *testing.T) {
			s, app := s.with(t), "hostile-"+name
			passwd, err := os.ReadFile("/etc/passwd")
			if err != nil {
				t.Fatal(err)
			}
			answer := s.post(app, archiveOf(t, server, hostile))
			if !strings.Contains(answer, `"error"`) || strings.Contains(answer, `"done"`) {
				t.Errorf("the archive was not refused: %s", answer)
			}
			t.Log(answer)
			if now, err := os.ReadFile("/etc/passwd"); err != nil || !bytes.Equal(now, passwd) {
				t.Errorf("/etc/passwd has changed: %v", err)
			}
			if _, err := os.Lstat("/etc/lull-e2e-intruder"); err == nil {
				t.Error("the archive has written a file into /etc")
			}
			s.checkNothingOf(app)
		})
	}
}

// post sends an archive to the API by hand and returns the answer, a line for each thing that happens.
func (s *stage) post(app string, archive []byte) string {
	s.t.Helper()
	token, err := s.Token()
	if err != nil {
		s.t.Fatal(err)
	}
	url := s.API + "/v1/releases?app=" + app
	req, err := http.NewRequestWithContext(within(s.t, time.Minute), http.MethodPost, url, bytes.NewReader(archive))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/octet-stream")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatalf("post an archive: %v", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatalf("read the answer to an archive: %v", err)
	}
	return string(answer)
}

func archiveOf(t *testing.T, headers ...*tar.Header) []byte {
	t.Helper()
	var archive bytes.Buffer
	compressed, err := zstd.NewWriter(&archive)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(compressed)
	const text = "intruder:x:0:0::/:/bin/sh\n"
	for _, header := range headers {
		entry, body := *header, ""
		if entry.Typeflag == 0 { // a file
			entry.Size, body = int64(len(text)), text
		}
		if err := w.WriteHeader(&entry); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, body); err != nil {
			t.Fatal(err)
		}
	}
	for _, end := range []io.Closer{w, compressed} {
		if err := end.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return archive.Bytes()
}
