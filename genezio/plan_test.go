package genezio

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/manifest"
)

var update = flag.Bool("update", false, "write what came out into the files of testdata/plans")

// TestPlans reads projects from testdata/plans. In each archive the files are the project's; "plan" is what comes out, and
// the comment may hold lines for the options: "stage NAME", "name NAME", "env NAME=value" (of the process), "file NAME=value",
// "node NAME" (a variable that every app has on the node), "template".
func TestPlans(t *testing.T) {
	files, err := filepath.Glob("testdata/plans/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no projects", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			var want string
			for _, f := range archive.Files {
				if f.Name == "plan" {
					want = string(f.Data)
					continue
				}
				write(t, filepath.Join(dir, f.Name), string(f.Data))
			}
			got := planText(t, dir, options(dir, string(archive.Comment)))
			if !*update {
				if diff := cmp.Diff(want, got); diff != "" {
					t.Error(diff)
				}
				return
			}
			archive.Files = slices.DeleteFunc(archive.Files, func(f txtar.File) bool { return f.Name == "plan" })
			archive.Files = append(archive.Files, txtar.File{Name: "plan", Data: []byte(got)})
			if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func options(dir, comment string) Options {
	o := Options{Dir: dir, URL: "http://<app>.localhost:8080/", Env: map[string]string{}}
	process := map[string]string{}
	o.Getenv = func(name string) string { return process[name] }
	var known []string
	o.Variables = func(string) ([]string, error) { return known, nil }
	for line := range strings.Lines(comment) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		name, value, _ := strings.Cut(rest, "=")
		switch word {
		case "stage":
			o.Stage = rest
		case "name":
			o.Name = rest
		case "env":
			process[name] = value
		case "file":
			o.Env[name] = value
		case "node":
			known = append(known, rest)
		case "template":
			o.Template = true
		}
	}
	return o
}

// planText writes a plan, or what is wrong with the file, for a person to compare.
func planText(t *testing.T, dir string, o Options) string {
	t.Helper()
	file, err := Load(dir)
	var plan Plan
	if err == nil {
		plan, err = file.Plan(o)
	}
	if err != nil {
		if lull.KindOf(err) != lull.KindInvalid {
			t.Errorf("kind %q", lull.KindOf(err))
		}
		return err.Error() + "\n"
	}
	var out strings.Builder
	for _, note := range plan.Notes {
		fmt.Fprintf(&out, "note: %s\n", note)
	}
	for _, app := range plan.Apps {
		below, _ := filepath.Rel(dir, app.Dir)
		fmt.Fprintf(&out, "== %s: %s in %s at %s\n", app.Name, app.What, below, app.URL)
		for _, command := range app.Local {
			fmt.Fprintf(&out, "# local: %s\n", command)
		}
		for rule := range strings.Lines(app.Ignore) {
			fmt.Fprintf(&out, "# ignore: %s", rule)
		}
		text, err := manifest.Format(app.Manifest)
		if err != nil {
			t.Errorf("%s cannot be written: %v", app.Name, err)
		}
		out.Write(text)
	}
	return out.String()
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
