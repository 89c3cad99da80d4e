package archive

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// TestIgnoreDoesWhatGitDoes compares with "git check-ignore" on patterns and paths made at random.
func TestIgnoreDoesWhatGitDoes(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Fatal("git is needed to compare with: install it")
	}
	repository := t.TempDir()
	git(t, repository, "", "init", "-q")
	name := rapid.SampledFrom([]string{"a", "b", "ab", "a.js", "b.txt", "foo", "[x]", "a b", "!n", "#h"})
	glob := rapid.SampledFrom([]string{"a", "b", "ab", "*", "*.js", "?", "??", "a*", "**", "[ab]", "[!a]", "[a-c]*", "foo", `\!n`, `\#h`,
		"[[:alpha:]]", `\[x\]`, "a b", "a?b", "*.t?t", "[]x]", "[a"})
	rapid.Check(t, func(rt *rapid.T) {
		var lines, paths []string
		for range rapid.IntRange(1, 4).Draw(rt, "lines") {
			line := strings.Join(rapid.SliceOfN(glob, 1, 3).Draw(rt, "globs"), "/")
			line = rapid.SampledFrom([]string{"", "", "/", "!"}).Draw(rt, "before") + line
			lines = append(lines, line+rapid.SampledFrom([]string{"", "", "/", " ", "\r"}).Draw(rt, "after"))
		}
		for range 8 {
			paths = append(paths, strings.Join(rapid.SliceOfN(name, 1, 3).Draw(rt, "path"), "/"))
		}
		text := strings.Join(lines, "\n")
		if strings.Contains(text, "\r") { // git takes a carriage return for a part of the name; we do not
			text = strings.ReplaceAll(text, "\r", "")
		}
		if err := os.WriteFile(filepath.Join(repository, ".git/info/exclude"), []byte(text), 0o644); err != nil {
			rt.Fatal(err)
		}
		ig := &ignore{rules: gitRules(text), root: emptyRoot(t)}
		answer := git(t, repository, strings.Join(paths, "\x00"), "check-ignore", "--no-index", "-z", "--stdin")
		for _, p := range paths {
			want := slices.Contains(strings.Split(answer, "\x00"), p)
			if got := ignoredOnTheWay(ig, p); got != want {
				rt.Fatalf("patterns %q, path %q: ignored %v, git says %v", lines, p, got, want)
			}
		}
	})
}

// ignoredOnTheWay walks down to a file as Pack does: nothing below an ignored directory is looked at.
func ignoredOnTheWay(ig *ignore, name string) bool {
	for i, c := range name {
		if c == '/' {
			if ignored, _ := ig.match(name[:i], true, false); ignored {
				return true
			}
		}
	}
	ignored, _ := ig.match(name, false, false)
	return ignored
}

func git(t *testing.T, dir, stdin string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(stdin)
	out, err := cmd.Output()
	if err != nil && cmd.ProcessState.ExitCode() != 1 { // 1: nothing is ignored
		t.Fatalf("git %v: %v", args, err)
	}
	return string(out)
}

func emptyRoot(t *testing.T) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

func TestPackLeavesOut(t *testing.T) {
	dependencies := `{"dependencies": {"ws": "8"}}`
	for _, c := range []struct {
		name  string
		files map[string]string
		want  []string
	}{
		{"what never belongs in", map[string]string{"a.js": "", ".git/HEAD": "", "lull-data/token": "", "sub/lull-data/x": "",
			"__pycache__/a.pyc": "", "sub/b.pyc": "", ".DS_Store": "", ".env": "", ".lull/bin/app": ""},
			[]string{".env", "a.js", "sub/", "sub/lull-data/", "sub/lull-data/x"}},
		{"installed modules", map[string]string{"package.json": dependencies, "node_modules/ws/index.js": "", "web/node_modules/x": ""},
			[]string{"package.json", "web/"}},
		{"modules nobody would install", map[string]string{"package.json": `{}`, "node_modules/mine.js": ""},
			[]string{"node_modules/", "node_modules/mine.js", "package.json"}},
		{"modules taken back", map[string]string{"package.json": dependencies, "node_modules/x": "", ".lullignore": "!node_modules\n"},
			[]string{".lullignore", "node_modules/", "node_modules/x", "package.json"}},
		{"a virtual environment", map[string]string{"main.py": "", "env/pyvenv.cfg": "", "env/bin/python": ""}, []string{"main.py"}},
		{"lullignore wins", map[string]string{".lullignore": "*.log\n/tmp\n", ".dockerignore": "keep\n", "a.log": "", "keep": "",
			"tmp/x": "", "sub/tmp/y": "", "sub/b.log": ""},
			[]string{".dockerignore", ".lullignore", "keep", "sub/", "sub/tmp/", "sub/tmp/y"}},
		{"genezioignore", map[string]string{".genezioignore": "*.log\nsecret/\n", ".dockerignore": "keep\n", "a.log": "", "keep": "", "secret/x": "", ".git/HEAD": ""},
			[]string{".dockerignore", ".genezioignore", "keep"}},
		{"dockerignore is anchored", map[string]string{".dockerignore": "*.log\ntmp\n", "a.log": "", "tmp/x": "", "sub/b.log": "", "sub/tmp/y": ""},
			[]string{".dockerignore", "sub/", "sub/b.log", "sub/tmp/", "sub/tmp/y"}},
		{"dockerignore takes back", map[string]string{".dockerignore": "*\n!src\nsrc/no\n", "src/a": "", "src/no": "", "b": "", "lull.yaml": ""},
			[]string{".dockerignore", "lull.yaml", "src/", "src/a"}},
		{"dockerignore takes back below", map[string]string{".dockerignore": "**\n!src/deep/a\n", "src/deep/a": "", "src/deep/b": "", "b": ""},
			[]string{".dockerignore", "src/deep/a"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := names(t, pack(t, tree(t, c.files), Upload()))
			slices.Sort(c.want)
			slices.Sort(got)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPackTakesRules(t *testing.T) {
	options := Upload()
	options.Rules = "*.log\n/tmp/\n"
	dir := tree(t, map[string]string{".genezioignore": "!keep.log\n", "a.log": "", "keep.log": "", "tmp/x": "", "sub/tmp/y": ""})
	got := names(t, pack(t, dir, options))
	slices.Sort(got)
	if diff := cmp.Diff([]string{".genezioignore", "keep.log", "sub/", "sub/tmp/", "sub/tmp/y"}, got); diff != "" {
		t.Error(diff)
	}
}

func FuzzIgnore(f *testing.F) {
	f.Add("*.js\n!a/**/b\n[a-z]/\n", "a/x/b")
	f.Fuzz(func(t *testing.T, text, name string) {
		ig := &ignore{root: emptyRoot(t), rules: gitRules(text)}
		ig.addDocker(text)
		ig.match(name, false, false)
	})
}

// What builds an image is sent, even if .dockerignore leaves it out of that image.
func TestDockerfileIsAlwaysSent(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{".dockerignore": "Dockerfile\n.dockerignore\n*.log\n", "Dockerfile": "FROM scratch\n", "a.log": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var packed bytes.Buffer
	if err := Pack(&packed, dir, Upload()); err != nil {
		t.Fatal(err)
	}
	into := t.TempDir()
	if err := Unpack(&packed, into, Upload()); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(into)
	if err != nil || len(entries) != 2 || entries[0].Name() != ".dockerignore" || entries[1].Name() != "Dockerfile" {
		t.Errorf("%v, %v", entries, err)
	}
}
