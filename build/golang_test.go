package build

import (
	"bytes"
	"debug/elf"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lull-dev/lull"
)

// newGoBench makes a builder that uses the machine's own build cache: compiling the standard library takes a while.
func newGoBench(t *testing.T) *bench {
	t.Helper()
	b := newBench(t)
	cache, err := exec.Command("go", "env", "GOCACHE").Output()
	check(t, err)
	b.config.Env = append(b.config.Env, "GOCACHE="+strings.TrimSpace(string(cache)), "GOPROXY=off")
	return b
}

func TestGo(t *testing.T) {
	t.Parallel()
	code := `package main
import ("os"; "example.com/app/word")
func main() { text, _ := os.ReadFile("static/index.html"); os.Stdout.WriteString(word.Hello + " " + string(text)) }`
	for name, at := range map[string]string{"at the top": "main.go", "the only one in cmd": "cmd/server/main.go"} {
		t.Run(name, func(t *testing.T) {
			src := app(t, map[string]string{"go.mod": "module example.com/app\n\ngo 1.21\n", at: code, "word/word.go": "package word\n\nconst Hello = \"hello\"\n",
				"static/index.html": "page", "main_test.go": "package main\n"})
			result, out := build(t, newGoBench(t), src)
			if !strings.Contains(out, "$ go build -trimpath -o ./.lull/bin/app") {
				t.Error(out)
			}
			if got := start(t, result); got != "hello page" {
				t.Errorf("printed %q", got)
			}
			file, err := elf.Open(filepath.Join(result.Root, result.Process.Args[0]))
			check(t, err)
			defer file.Close()
			if libraries, _ := file.ImportedLibraries(); len(libraries) > 0 {
				t.Errorf("it is not static: %v", libraries)
			}
		})
	}
}

func TestGoBuildsWhatRunNames(t *testing.T) {
	t.Parallel()
	src := app(t, map[string]string{"go.mod": "module example.com/app\n\ngo 1.21\n", "main.go": "package main\n\nfunc main() { print() }\n"})
	src.Manifest.Run = "./server -x"
	result, _ := build(t, newGoBench(t), src)
	if got := start(t, result); got != "" {
		t.Errorf("printed %q", got)
	}
}

func TestGoFails(t *testing.T) {
	t.Parallel()
	src := app(t, map[string]string{"go.mod": "module example.com/app\n\ngo 1.21\n", "main.go": "package main\nfunc main() { none() }\n"})
	_, err := newGoBench(t).Build(t.Context(), src, &bytes.Buffer{})
	if lull.KindOf(err) != lull.KindBuild || !strings.Contains(err.Error(), "main.go:2:15: undefined: none") {
		t.Error(err)
	}
}
