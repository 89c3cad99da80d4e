package genezio

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"pgregory.net/rapid"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/manifest"
)

// checkPlan is what holds for every plan: names and URLs are valid and different, and every manifest is one that a node
// takes and that lull.yaml can say.
func checkPlan(t interface{ Errorf(string, ...any) }, plan Plan) {
	if len(plan.Apps) == 0 {
		t.Errorf("a plan without apps")
	}
	seen := map[string]bool{}
	for _, app := range plan.Apps {
		if !lull.ValidName(app.Name) || seen[app.Name] || app.Manifest.Name != app.Name || !strings.Contains(app.URL, "//"+app.Name+".") {
			t.Errorf("names: %+v", app)
		}
		seen[app.Name] = true
		if problems := manifest.Check(app.Manifest); problems != nil {
			t.Errorf("%s: %v", app.Name, problems)
		}
		if _, err := manifest.Format(app.Manifest); err != nil {
			t.Errorf("%s: %v", app.Name, err)
		}
	}
	for _, note := range plan.Notes {
		if strings.Contains(note, "\n") {
			t.Errorf("a note of several lines: %q", note)
		}
	}
}

func checkError(t interface{ Errorf(string, ...any) }, err error) {
	var broken *manifest.Error
	if !errors.As(err, &broken) || len(broken.Problems) == 0 {
		t.Errorf("%#v", err)
		return
	}
	for _, p := range broken.Problems {
		if p.Line < 1 || p.Column < 1 || p.Message == "" {
			t.Errorf("a problem without place or message: %+v", p)
		}
	}
}

func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/plans/*.txtar")
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for _, part := range archive.Files {
			if part.Name == FileName {
				f.Add(part.Data)
			}
		}
	}
	f.Add([]byte("name: x\nyamlVersion: 2\nbackend: {path: ., environment: {A: '${{'}, functions: {name: a, entry: a.js}}\n"))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Parse(data)
		if err != nil {
			checkError(t, err)
			return
		}
		plan, err := file.Plan(Options{Dir: dir, URL: "http://<app>.localhost:8080/"})
		if err != nil {
			checkError(t, err)
			return
		}
		checkPlan(t, plan)
	})
}

// TestPlansAreValid makes projects with names and values of all kinds.
func TestPlansAreValid(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.StringMatching(`[A-Za-z0-9 _./äé-]{0,50}`)
		var text strings.Builder
		say := func(format string, args ...any) { fmt.Fprintf(&text, format+"\n", args...) }
		say("name: %q\nyamlVersion: 2", "p"+word.Draw(t, "project"))
		say("backend:\n  path: .\n  functions:")
		for i := range rapid.IntRange(1, 6).Draw(t, "functions") {
			say("    - {name: %q, entry: %s, type: %s, timeout: %d, cooldownTime: %d, instanceSize: %s}",
				fmt.Sprint(word.Draw(t, "name"), i), rapid.SampledFrom([]string{"index.js", "src/main.py", "a b.mjs"}).Draw(t, "entry"),
				rapid.SampledFrom(functionTypes).Draw(t, "type"), rapid.IntRange(1, 900).Draw(t, "timeout"),
				rapid.IntRange(0, 1e6).Draw(t, "cooldown"), rapid.SampledFrom([]string{"tiny", "medium", "large"}).Draw(t, "size"))
		}
		for range rapid.IntRange(0, 1).Draw(t, "frontends") {
			say("frontend:\n  - {name: web, subdomain: %q}\n  - {path: .}", word.Draw(t, "subdomain"))
		}
		file, err := Parse([]byte(text.String()))
		if err != nil {
			t.Fatalf("%v\n%s", err, text.String())
		}
		stage := rapid.SampledFrom([]string{"", "prod", "dev", "a long stage with spaces"}).Draw(t, "stage")
		plan, err := file.Plan(Options{Dir: dir, Stage: stage, URL: "http://<app>.localhost:8080/"})
		if err != nil {
			var broken *manifest.Error
			if errors.As(err, &broken) && strings.Contains(err.Error(), "handler") {
				return // longer than a handler may be
			}
			t.Fatalf("%v\n%s", err, text.String())
		}
		checkPlan(t, plan)
		again, _ := file.Plan(Options{Dir: dir, Stage: stage, URL: "http://<app>.localhost:8080/"})
		if diff := cmp.Diff(plan, again); diff != "" {
			t.Errorf("planned twice: %s", diff)
		}
	})
}

func TestParseRefusesBombs(t *testing.T) {
	for name, text := range map[string]string{
		"size":        strings.Repeat("#\n", manifest.MaxSize),
		"flow":        strings.Repeat("[", 100_000),
		"aliases":     "a: &a [x,x]\nb: &b [*a,*a]\n",
		"list":        "- a\n- b\n",
		"empty":       "",
		"expressions": "name: x\nyamlVersion: 2\nbackend: {path: ., scripts: {deploy: '" + strings.Repeat("${{x}} ", 30_000) + "'}, functions: [{name: a, entry: a.js}]}",
	} {
		start := time.Now()
		file, err := Parse([]byte(text))
		if err == nil {
			_, err = file.Plan(Options{Dir: t.TempDir()})
		}
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%s took %s", name, took)
		}
	}
}

func TestNodeThatFailsIsHeard(t *testing.T) {
	dir := t.TempDir()
	file, err := Parse([]byte("name: x\nyamlVersion: 2\nbackend: {path: ., functions: [{name: a, entry: a.js}]}\nservices: {databases: [{name: db}]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	gone := errors.New("gone")
	if _, err := file.Plan(Options{Dir: dir, Variables: func(string) ([]string, error) { return nil, gone }}); !errors.Is(err, gone) {
		t.Errorf("%v", err)
	}
}

func TestAppName(t *testing.T) {
	for text, want := range map[string]string{
		"shop-api": "shop-api", "My Shop_2-Größe": "my-shop-2-gr-e", "--": "app", "": "app",
		strings.Repeat("a", 40):       strings.Repeat("a", 40),
		strings.Repeat("long-", 8):    strings.Repeat("long-", 7) + "long",
		strings.Repeat("a", 41):       strings.Repeat("a", 33) + "-04ed77",
		strings.Repeat("a", 41) + "b": strings.Repeat("a", 33) + "-84dff8",
	} {
		got := appName(text, "")
		if !lull.ValidName(got) || got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
		if other := appName(text, "x"); !lull.ValidName(other) || other == got {
			t.Errorf("%s: %s", text, other)
		}
	}
}

func TestRulesBelow(t *testing.T) {
	got := rulesBelow("# comment\n*.log\n\n/server/tmp\nserver/a/b/\n!server/a/keep\nclient/x\n./dist\n**/y/z\n/server/\n", "server")
	if diff := cmp.Diff("*.log\n/tmp\n/a/b/\n!/a/keep\ndist\n**/y/z\n", got); diff != "" {
		t.Error(diff)
	}
}

func TestParseEnv(t *testing.T) {
	got, err := ParseEnv([]byte("\ufeff# c\r\nA=1\r\nexport B = two words # c\nC='a # $x\\n'\nD=\"a\\nb\\\"\\$\\x\"\nE=\nF=\"one\ntwo\" # c\nG=a#b=c\nH=#\n"), ".env")
	want := map[string]string{"A": "1", "B": "two words", "C": `a # $x\n`, "D": "a\nb\"$\\x", "E": "", "F": "one\ntwo", "G": "a#b=c", "H": ""}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	_, err = ParseEnv([]byte("A=1\nsecret words\n1X=2\nK=\"never\nends\n"), "my.env")
	if diff := cmp.Diff("my.env:2:1: is not NAME=value\nmy.env:3:1: is not NAME=value\nmy.env:4:1: K: begins with a quote that does not end", err.Error()); diff != "" {
		t.Error(diff)
	}
}

func FuzzParseEnv(f *testing.F) {
	f.Add([]byte("A=1\nB='x\ny' # z\nC=\"\\\"\"\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		env, err := ParseEnv(data, ".env")
		if err != nil {
			checkError(t, err)
			return
		}
		m := lull.DefaultManifest()
		m.Env = env
		if problems := m.Validate(); problems != nil {
			t.Errorf("%v", problems)
		}
	})
}

// TestScriptRuns runs what a build is told, in a shell.
func TestScriptRuns(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	s := withTools(dir, script{setup: []string{"export A=" + quote("it's $HOME")}, commands: []string{"cd sub && pwd >where", `echo "$A" >a`, "yarn --version || true", "false", "touch never"}})
	out, err := runShell(t, dir, "command() { return 1; }\nnpx() { echo \"npx $*\"; }\n"+s.String())
	if err == nil {
		t.Error("it went on after a failure")
	}
	if !strings.Contains(out, "npx --yes yarn@1 --version") {
		t.Errorf("output %q", out)
	}
	for name, want := range map[string]bool{"sub/where": true, "a": true, "never": false} {
		if got := has(dir, name); got != want {
			t.Errorf("%s: %t\n%s", name, got, s)
		}
	}
	if text, _ := os.ReadFile(filepath.Join(dir, "a")); string(text) != "it's $HOME\n" {
		t.Errorf("%q", text)
	}
}

// TestScriptStops runs commands of which one fails, or goes elsewhere.
func TestScriptStops(t *testing.T) {
	for _, c := range []struct {
		commands []string
		want     string // what they print
		fails    bool
	}{
		{commands: []string{"false && echo never", "echo next"}, fails: true},
		{commands: []string{"echo a && false", "echo next"}, want: "a\n", fails: true},
		{commands: []string{"false || echo a", "echo next"}, want: "a\nnext\n"},
		{commands: []string{"echo a; false", "echo next"}, want: "a\n", fails: true},
		{commands: []string{"echo a # && false", "echo next"}, want: "a\nnext\n"},
		{commands: []string{"true && cd sub && basename $PWD", "ls"}, want: "sub\nsub\n"},
		{commands: []string{"cd sub\nbasename $PWD", "ls"}, want: "sub\nsub\n"},
		{commands: []string{"echo a\nfalse\necho never"}, want: "a\n", fails: true},
		{commands: []string{"echo next; false && echo never"}, want: "next\n", fails: true},
	} {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "sub"), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, setup := range [][]string{nil, {"export A=1"}} {
			text := script{setup: setup, commands: c.commands}.String()
			if out, err := runShell(t, dir, text); out != c.want || (err != nil) != c.fails {
				t.Errorf("%s\nprints %q and ends with %v", text, out, err)
			}
		}
	}
	if got := (script{commands: []string{"npm install && npm run build"}}).String(); got != "npm install && npm run build" {
		t.Errorf("a single command becomes %q", got)
	}
}

// TestToolsAreFetched runs package managers that the machine does not have.
func TestToolsAreFetched(t *testing.T) {
	for lock, want := range map[string]string{
		"# yarn lockfile v1\n":             "npx --yes yarn@1 install \n",
		"# x\n\n__metadata:\n  version: 8": "npx --yes @yarnpkg/cli-dist@4 install node-modules\n",
	} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "yarn.lock"), lock)
		s := withTools(dir, script{commands: []string{"yarn install", "cd . && pnpm install"}})
		got, err := runShell(t, dir, "command() { return 1; }\nnpx() { echo \"npx $* $YARN_NODE_LINKER\"; }\nHOME=/home\n"+s.String())
		want += "npx --yes pnpm@9 --config.store-dir=/home/.pnpm-store install \n"
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Error(diff, err)
		}
	}
}

// TestPageIsBuiltIfItIsNotThere runs the build of a page without a script.
func TestPageIsBuiltIfItIsNotThere(t *testing.T) {
	for file, want := range map[string]string{
		"dist/index.html": "dist is served as it is\n",
		"dist/.gitkeep":   "npm install 1\nnpm run build 1\n",
		"src/main.js":     "npm install 1\nnpm run build 1\n",
	} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "package.json"), `{"scripts": {"build": "vite build"}, "devDependencies": {"vite": "6"}}`)
		write(t, filepath.Join(dir, file), "")
		parsed, err := Parse([]byte("name: x\nyamlVersion: 2\nfrontend: {path: ., publish: dist, environment: {VITE_X: 1}}\n"))
		if err != nil {
			t.Fatal(err)
		}
		plan, err := parsed.Plan(Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		got, err := runShell(t, dir, "npm() { echo \"npm $* $VITE_X\"; }\n"+plan.Apps[0].Manifest.Build)
		if got != want || err != nil {
			t.Errorf("with %s: %q, %v", file, got, err)
		}
	}
}

func runShell(t *testing.T, dir, text string) (string, error) {
	command := exec.CommandContext(t.Context(), "sh", "-c", text)
	command.Dir = dir
	out, err := command.CombinedOutput()
	return string(out), err
}

// TestPipIsAskedOnlyForWhatIsMissing runs the shell's pip with an interpreter that has one package.
func TestPipIsAskedOnlyForWhatIsMissing(t *testing.T) {
	dir := t.TempDir()
	python := "python3() {\n  case \"$*\" in\n  *there*dry-run*) echo satisfied;;\n  *local*dry-run*) echo 'Would install local';;\n" +
		"  *dry-run*) return 1;;\n  *) echo \"installed $* into ${PIP_TARGET##*/}\";;\n  esac\n}\n"
	s := pythonBuild(dir, "sub", []string{"pip install there", "pip3 install local", "pip install missing", "pip list"})
	out, err := runShell(t, dir, python+s.String())
	want := "python3 of this node has it: pip install there\ninstalled -m pip install local into packages\n" +
		"installed -m pip install missing into packages\ninstalled -m pip list into packages\n"
	if diff := cmp.Diff(want, out); diff != "" || err != nil {
		t.Error(diff, err)
	}
}
