package templates

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lull-dev/lull/genezio"
	"github.com/lull-dev/lull/manifest"
)

func TestEveryTemplateHasWhatADeployNeeds(t *testing.T) {
	for _, template := range All() {
		t.Run(template.Name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "app")
			if taken, err := template.Write(dir); err != nil || taken != nil {
				t.Fatalf("write: taken %v, error %v", taken, err)
			}
			ignore := ".lullignore"
			if strings.HasPrefix(template.Name, "genezio-") {
				ignore = ".genezioignore"
				checkGenezio(t, dir)
			} else {
				checkManifest(t, dir)
			}
			for _, name := range []string{"README.md", ignore} {
				if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func checkManifest(t *testing.T, dir string) {
	t.Helper()
	m, found, err := manifest.Load(dir)
	if err != nil || !found {
		t.Fatalf("manifest: found %v, error %v", found, err)
	}
	if m.Name != "" {
		t.Errorf("the manifest says name: %s; the directory should name the app", m.Name)
	}
}

func checkGenezio(t *testing.T, dir string) {
	t.Helper()
	file, err := genezio.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := file.Plan(genezio.Options{Dir: dir, URL: "http://<app>.localhost/", Getenv: func(string) string { return "" }})
	if err != nil || len(plan.Apps) != 1 {
		t.Errorf("%+v, %v", plan, err)
	}
}

// What is embedded is listed file by file: a new file must not be forgotten there.
func TestNothingIsLeftOutOfTheBinary(t *testing.T) {
	for _, template := range All() {
		embedded := map[string]bool{}
		for _, name := range template.Files() {
			embedded[name] = true
		}
		err := filepath.WalkDir(template.Name, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() && entry.Name() == "node_modules" {
				return filepath.SkipDir
			}
			name, _ := filepath.Rel(template.Name, path)
			if err == nil && !entry.IsDir() && !embedded[strings.TrimSuffix(filepath.ToSlash(name), suffix)] {
				t.Errorf("%s is not embedded", path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestWriteTouchesNothingThatIsThere(t *testing.T) {
	template, ok := Find(Default)
	if !ok {
		t.Fatal("no default template")
	}
	dir := t.TempDir()
	mine := filepath.Join(dir, "server.js")
	if err := os.WriteFile(mine, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	taken, err := template.Write(dir)
	if err != nil || len(taken) != 1 || taken[0] != "server.js" {
		t.Errorf("taken %v, error %v", taken, err)
	}
	if data, _ := os.ReadFile(mine); string(data) != "mine" {
		t.Errorf("server.js was written over: %q", data)
	}
	if _, err := os.Stat(filepath.Join(dir, "package.json")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("package.json was written: %v", err)
	}
}

// A lock file that names a registry's host would tie everybody to it.
func TestLockFilesNameNoRegistry(t *testing.T) {
	for _, template := range All() {
		data, err := fs.ReadFile(template.FS(), "package-lock.json")
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var lock struct {
			Packages map[string]struct{ Integrity, Resolved string }
		}
		if err := json.Unmarshal(data, &lock); err != nil {
			t.Fatal(err)
		}
		for name, p := range lock.Packages {
			if p.Resolved != "" || strings.HasPrefix(name, "node_modules/") && p.Integrity == "" {
				t.Errorf("%s: %s: resolved %q, integrity %q", template.Name, name, p.Resolved, p.Integrity)
			}
		}
	}
}
