package build

import (
	"archive/zip"
	"bytes"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lull-dev/lull"
)

// functionApp is an app that is a function.
func functionApp(t *testing.T, runtime, handler string, files map[string]string) Source {
	t.Helper()
	src := app(t, files)
	src.Manifest.Function = lull.DefaultFunction()
	src.Manifest.Function.Runtime, src.Manifest.Function.Handler = runtime, handler
	return src
}

func TestFunction(t *testing.T) {
	for _, c := range []struct {
		name, runtime, handler string
		files                  map[string]string
	}{
		{"module", "nodejs20.x", "index.handler", map[string]string{"index.mjs": ""}},
		{"in a directory", "nodejs20.x", "src/api.routes.get", map[string]string{"src/api.js": "", "package.json": "{}"}},
		{"Python", "python3.11", "main.handler", map[string]string{"main.py": ""}},
		{"Python package", "python3.11", "shop.orders.handler", map[string]string{"shop/orders.py": ""}},
		{"custom", "provided.al2023", "", map[string]string{"bootstrap": "#!/bin/sh\n"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			result, err := b.Build(t.Context(), functionApp(t, c.runtime, c.handler, c.files), io.Discard)
			check(t, err)
			want := []string{"/var/runtime/lull", "function"}
			if diff := cmp.Diff(want, result.Process.Args); diff != "" || !result.Process.Fixed || result.Process.Dir != lull.TaskDir {
				t.Errorf("%+v %s", result.Process, diff)
			}
			if n := b.driver.started.Load(); n != 0 {
				t.Errorf("%d steps ran for nothing", n)
			}
		})
	}
}

func TestFunctionSaysWhatIsMissing(t *testing.T) {
	for _, c := range []struct {
		name, runtime, handler string
		files                  map[string]string
		want                   string
	}{
		{"no file", "nodejs20.x", "index.handler", map[string]string{"main.js": ""}, "there is no index.js"},
		{"no function", "nodejs20.x", "index", map[string]string{"index.js": ""}, "does not name a file and a function"},
		{"no module", "python3.11", "main.handler", map[string]string{"app.py": ""}, "there is no main.py"},
		{"no bootstrap", "provided.al2023", "", map[string]string{"main.c": ""}, "needs a program named bootstrap"},
		{"no layer", "provided.al2023", "", map[string]string{"bootstrap": ""}, "there is no layer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			src := functionApp(t, c.runtime, c.handler, c.files)
			if c.name == "no layer" {
				src.Manifest.Function.Layers = []string{"layer"}
			}
			_, err := newBench(t).Build(t.Context(), src, io.Discard)
			if lull.KindOf(err) != lull.KindInvalid || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestGoFunction(t *testing.T) {
	t.Parallel()
	src := functionApp(t, "provided.al2023", "", map[string]string{"go.mod": "module example.com/f\n\ngo 1.21\n",
		"main.go": "package main\nfunc main() { println(\"hello\") }\n"})
	result, _ := build(t, newGoBench(t), src)
	info, err := os.Stat(filepath.Join(result.Root, "bootstrap"))
	check(t, err)
	if info.Mode()&0o111 == 0 || info.Size() == 0 {
		t.Errorf("bootstrap is %v, %d bytes", info.Mode(), info.Size())
	}
}

func TestLayersComeTogether(t *testing.T) {
	var packed bytes.Buffer
	w := zip.NewWriter(&packed)
	for name, text := range map[string]string{"python/both.txt": "zip", "bin/tool": "#!/bin/sh\n"} {
		header := &zip.FileHeader{Name: name}
		header.SetMode(0o755)
		file, err := w.CreateHeader(header)
		check(t, err)
		_, err = io.WriteString(file, text)
		check(t, err)
	}
	check(t, w.Close())
	src := functionApp(t, "provided.al2023", "", map[string]string{"layer/bootstrap": "#!/bin/sh\n", "layer/python/both.txt": "dir", "more.zip": packed.String()})
	src.Manifest.Function.Layers = []string{"layer", "more.zip"}
	result, _ := build(t, newBench(t), src)
	for name, want := range map[string]string{"bootstrap": "#!/bin/sh\n", "python/both.txt": "zip", "bin/tool": "#!/bin/sh\n"} {
		got, err := os.ReadFile(filepath.Join(result.Root, layersDir, name))
		if err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestLayerCannotLeaveItsPlace(t *testing.T) {
	outside := t.TempDir()
	for name, entries := range map[string][][2]string{
		"dots": {{"../../escaped", "x"}},
		"link": {{"way", "->" + outside}, {"way/escaped", "x"}},
	} {
		t.Run(name, func(t *testing.T) {
			var packed bytes.Buffer
			w := zip.NewWriter(&packed)
			for _, entry := range entries {
				header := &zip.FileHeader{Name: entry[0]}
				header.SetMode(0o644)
				target, isLink := strings.CutPrefix(entry[1], "->")
				if isLink {
					header.SetMode(os.ModeSymlink | 0o777)
				}
				file, err := w.CreateHeader(header)
				check(t, err)
				_, err = io.WriteString(file, target)
				check(t, err)
			}
			check(t, w.Close())
			src := functionApp(t, "provided.al2023", "", map[string]string{"bootstrap": "", "bad.zip": packed.String()})
			src.Manifest.Function.Layers = []string{"bad.zip"}
			if _, err := newBench(t).Build(t.Context(), src, io.Discard); err == nil {
				t.Error("it was built")
			}
			if left, _ := os.ReadDir(outside); len(left) > 0 {
				t.Errorf("%v was written outside", left)
			}
		})
	}
}

// TestLayerIsBounded: sizes beyond 2^63 are not taken for negative ones, which would leave more room than before.
func TestLayerIsBounded(t *testing.T) {
	for name, size := range map[string]uint64{"huge/": math.MaxUint64 - 1<<40, "huge": math.MaxUint64 - 1<<40, "large": 5 << 30} {
		var packed bytes.Buffer
		w := zip.NewWriter(&packed)
		_, err := w.CreateRaw(&zip.FileHeader{Name: name, UncompressedSize64: size})
		check(t, err)
		check(t, w.Close())
		src := functionApp(t, "provided.al2023", "", map[string]string{"bootstrap": "", "layer.zip": packed.String()})
		src.Manifest.Function.Layers = []string{"layer.zip"}
		if _, err := newBench(t).Build(t.Context(), src, io.Discard); lull.KindOf(err) != lull.KindTooLarge {
			t.Errorf("%s of %d bytes: %v", name, size, err)
		}
	}
}

func TestStatic(t *testing.T) {
	src := app(t, map[string]string{"package.json": `{"scripts": {"build": "mkdir dist && echo page > dist/index.html"}}`, "secret.txt": ""})
	src.Manifest.Static.Root = "dist"
	result, _ := build(t, newBench(t), src)
	got, err := os.ReadFile(filepath.Join(result.Root, "index.html"))
	if err != nil || string(got) != "page\n" {
		t.Errorf("%q, %v", got, err)
	}
	entries, err := os.ReadDir(result.Root)
	if err != nil || len(entries) != 1 {
		t.Errorf("the release has %v, %v", entries, err)
	}
	src = app(t, map[string]string{"index.html": ""})
	src.Manifest.Static.Root = "dist"
	if _, err := newBench(t).Build(t.Context(), src, io.Discard); lull.KindOf(err) != lull.KindInvalid {
		t.Errorf("without the directory: %v", err)
	}
}
