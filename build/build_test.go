package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/manifest"
)

func TestBuildWithoutSteps(t *testing.T) {
	for _, c := range []struct {
		name  string
		files map[string]string
		edit  func(*lull.Manifest)
		run   string
		args  []string
	}{
		{name: "start script", files: map[string]string{"package.json": `{"scripts": {"start": "node server.js --port 1"}}`},
			run: "node server.js --port 1", args: []string{"node", "server.js", "--port", "1"}},
		{name: "start script that runs another", files: map[string]string{"package.json": `{"scripts": {"start": "npm run serve", "serve": "node ."}}`},
			run: "node .", args: []string{"node", "."}},
		{name: "start script with something before", files: map[string]string{"package.json": `{"scripts": {"prestart": "node a", "start": "node b"}}`},
			run: "(node a) && exec node b", args: []string{"sh", "-c", "(node a) && exec node b"}},
		{name: "start script for a shell", files: map[string]string{"package.json": `{"scripts": {"start": "node a && node b"}}`},
			run: "node a && node b", args: []string{"sh", "-c", "node a && node b"}},
		{name: "start script with a variable", files: map[string]string{"package.json": `{"scripts": {"start": "node server.js $PORT"}}`},
			run: "node server.js $PORT", args: []string{"sh", "-c", "exec node server.js $PORT"}},
		{name: "main", files: map[string]string{"package.json": `{"main": "./lib/start"}`, "lib/start.js": ""}, run: "node lib/start.js", args: []string{"node", "lib/start.js"}},
		{name: "main that is not there", files: map[string]string{"package.json": `{"main": "x.js"}`, "index.js": ""}, run: "node index.js", args: []string{"node", "index.js"}},
		{name: "no package.json", files: map[string]string{"server.js": ""}, run: "node server.js", args: []string{"node", "server.js"}},
		{name: "byte order mark", files: map[string]string{"package.json": "\ufeff{}", "app.js": ""}, run: "node app.js", args: []string{"node", "app.js"}},
		{name: "run wins", files: map[string]string{"package.json": `{"scripts": {"start": "x"}}`, "Procfile": "web: y"}, edit: func(m *lull.Manifest) { m.Run = "node z" },
			run: "node z", args: []string{"node", "z"}},
		{name: "run npm start", files: map[string]string{"package.json": `{"scripts": {"start": "node x"}}`}, edit: func(m *lull.Manifest) { m.Run = "npm start" },
			run: "node x", args: []string{"node", "x"}},
		{name: "Procfile", files: map[string]string{"package.json": `{}`, "Procfile": "worker: a\nweb: node w.js\n"}, run: "node w.js", args: []string{"node", "w.js"}},
		{name: "Python", files: map[string]string{"main.py": ""}, run: "python3 main.py", args: []string{"python3", "main.py"}},
		{name: "Python before an idle package.json", files: map[string]string{"app.py": "", "package.json": `{"scripts": {"lint": "x"}}`}, run: "python3 app.py", args: []string{"python3", "app.py"}},
		{name: "the tool of run decides", files: map[string]string{"app.py": "", "package.json": `{"scripts": {"start": "node x"}}`}, edit: func(m *lull.Manifest) { m.Run = "python3 app.py" },
			run: "python3 app.py", args: []string{"python3", "app.py"}},
		{name: "files", files: map[string]string{"serve.rb": ""}, edit: func(m *lull.Manifest) { m.Run = "ruby serve.rb" }, run: "ruby serve.rb", args: []string{"ruby", "serve.rb"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, src := newBench(t), app(t, c.files)
			if c.edit != nil {
				c.edit(&src.Manifest)
			}
			result, err := b.Build(t.Context(), src, io.Discard)
			check(t, err)
			if result.Manifest.Run != c.run || result.Manifest.Name != "app" {
				t.Errorf("run %q, name %q", result.Manifest.Run, result.Manifest.Name)
			}
			if diff := cmp.Diff(c.args, result.Process.Args); diff != "" {
				t.Error(diff)
			}
			if result.Process.Root != lull.RootHost || result.Process.Dir != lull.AppDir || result.Process.Port != lull.DefaultPort {
				t.Errorf("%+v", result.Process)
			}
			if n := b.driver.started.Load(); n != 0 {
				t.Errorf("%d steps ran for nothing", n)
			}
		})
	}
}

// TestRunDecides has files of two languages: the tool that the app is started with says which one counts.
func TestRunDecides(t *testing.T) {
	b := newBench(t)
	for run, want := range map[string]string{
		"":                                   "a Node app",
		"python3 api/main.py":                "a Python app",
		"cd api && exec python3 main.py app": "a Python app",
		"cd api && python3 main.py":          "a Python app",
		"cd 'the api' && exec python3 x.py":  "a Python app",
		`cd 'it'\''s' && exec python3 x.py`:  "a Python app",
		"cd api && exec node index.js":       "a Node app",
		"cd api && exec ./serve python3":     "a Node app",
		"cd python3":                         "a Node app",
	} {
		src := app(t, map[string]string{"package.json": `{"scripts": {"start": "node x"}}`, "requirements.txt": "", "api/main.py": ""})
		src.Manifest.Run = run
		lang, err := jobOf(t, b, src).detect()
		check(t, err)
		if lang.name() != want {
			t.Errorf("%q: found %s, want %s", run, lang.name(), want)
		}
	}
}

func TestBuildSaysWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		name  string
		files map[string]string
		edit  func(*Source)
		kind  lull.Kind
		want  string
	}{
		{name: "empty", kind: lull.KindInvalid, want: "the directory is empty"},
		{name: "only a manifest", files: map[string]string{"lull.yaml": ""}, kind: lull.KindInvalid, want: "the directory is empty"},
		{name: "nothing known", files: map[string]string{"a.txt": "", "b.txt": ""}, kind: lull.KindInvalid, want: "(it has a.txt, b.txt)"},
		{name: "broken package.json", files: map[string]string{"package.json": "{\n  \"name\": \"x\",\n}"}, kind: lull.KindInvalid,
			want: "package.json:3:1: invalid character '}' looking for beginning of object key string"},
		{name: "half a package.json", files: map[string]string{"package.json": `{"name": `}, kind: lull.KindInvalid, want: "package.json:1:9: unexpected end of JSON input"},
		{name: "scripts of the wrong type", files: map[string]string{"package.json": `{"scripts": ["start"]}`}, kind: lull.KindInvalid, want: "scripts must not be a JSON array"},
		{name: "package.json is a directory", files: map[string]string{"package.json/x": ""}, kind: lull.KindInvalid, want: "package.json is not a file"},
		{name: "nothing to start", files: map[string]string{"package.json": "{}"}, kind: lull.KindInvalid, want: "package.json has no start script"},
		{name: "no Python file", files: map[string]string{"requirements.txt": ""}, kind: lull.KindInvalid, want: "there is no Procfile, main.py, app.py or server.py"},
		{name: "no Go program", files: map[string]string{"go.mod": "module x\n", "a.go": "package x\n"}, kind: lull.KindInvalid, want: "there is no Go program to build"},
		{name: "several Go programs", files: map[string]string{"go.mod": "module x\n", "cmd/a/a.go": "package main\n", "cmd/b/b.go": "package main\n"},
			kind: lull.KindInvalid, want: "there are several Go programs: ./cmd/a, ./cmd/b"},
		{name: "a Dockerfile", files: map[string]string{"Dockerfile": "FROM x"}, kind: lull.KindUnsupported, want: "the host sandbox cannot build a Dockerfile"},
		{name: "a Mac program", files: map[string]string{"server": "\xcf\xfa\xed\xfe0000"}, kind: lull.KindInvalid, want: "server is a program for another operating system"},
		{name: "not a name", files: map[string]string{"server.js": ""}, edit: func(s *Source) { s.App = "../../etc" }, kind: lull.KindInvalid, want: "cannot be the name of an app"},
		{name: "build fails", files: map[string]string{"package.json": `{"scripts": {"build": "echo compiling; echo broken >&2; exit 3", "start": "x"}}`},
			kind: lull.KindBuild, want: "build: npm run build exited with code 3"},
		{name: "own build fails", files: map[string]string{"a": ""}, edit: func(s *Source) { s.Manifest.Run, s.Manifest.Build = "x", "echo broken; false" },
			kind: lull.KindBuild, want: "build: echo broken; false exited with code 1\n  $ echo broken; false\n  broken"},
		{name: "no image", edit: func(s *Source) { s.Manifest.Image = "./chat.tar" }, kind: lull.KindInvalid, want: "there is no image file ./chat.tar"},
		{name: "a link out", files: map[string]string{"a": ""}, edit: func(s *Source) { os.Symlink("/etc/hostname", filepath.Join(s.Dir, "package.json")) },
			kind: lull.KindInvalid, want: "package.json is not a file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, src := newBench(t), app(t, c.files)
			if c.edit != nil {
				c.edit(&src)
			}
			_, err := b.Build(t.Context(), src, io.Discard)
			if lull.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.want) {
				t.Errorf("kind %q: %v", lull.KindOf(err), err)
			}
			if _, err := os.Lstat(filepath.Join(src.Dir, ownDir)); err == nil {
				t.Error("files of the build are left")
			}
		})
	}
}

func TestBuildStreamsWhatItDoes(t *testing.T) {
	src := app(t, map[string]string{"a": ""})
	src.Manifest.Run, src.Manifest.Build = "x", `printf 'one\n10%%\r100%%\nno end'; echo "[$CI $HOME $SECRET]"; echo two >&2`
	src.Manifest.Env = map[string]string{"SECRET": "for run time only"}
	var out bytes.Buffer
	b := newBench(t)
	home := strings.TrimPrefix(b.config.Env[0], "HOME=")
	_, err := b.Build(t.Context(), src, &out)
	check(t, err)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	for _, want := range []string{"found files, and how to run them in lull.yaml", "$ " + src.Manifest.Build, "one", "100%", "no end[true " + home + " ]", "two"} {
		found := false
		for _, line := range lines {
			found = found || line == want
		}
		if !found {
			t.Errorf("no line %q in %q", want, lines)
		}
	}
}

func TestBuildOutputIsBounded(t *testing.T) {
	src := app(t, map[string]string{"a": ""})
	src.Manifest.Run, src.Manifest.Build = "x", `head -c 20000000 /dev/zero | tr '\0' a | fold -w 200; head -c 100000 /dev/zero; echo; exit 1`
	var out bytes.Buffer
	_, err := newBench(t).Build(t.Context(), src, &out)
	if lull.KindOf(err) != lull.KindBuild || len(err.Error()) > (tailLines+1)*(maxLine+10) {
		t.Errorf("error of %d bytes", len(err.Error()))
	}
	if out.Len() > maxOutput+100 || !strings.Contains(out.String(), "the rest is left out") {
		t.Errorf("%d bytes", out.Len())
	}
}

func TestBuildEndsInTime(t *testing.T) {
	b := newBench(t)
	b.config.Timeout = 300 * time.Millisecond
	src := app(t, map[string]string{"a": ""})
	src.Manifest.Run, src.Manifest.Build = "x", "echo begun; sleep 600"
	_, err := b.Build(t.Context(), src, io.Discard)
	if lull.KindOf(err) != lull.KindBuild || !strings.Contains(err.Error(), "was stopped: the build was not done after 300ms\n  $ echo begun; sleep 600\n  begun") {
		t.Error(err)
	}
}

func TestBuildIsCalledOff(t *testing.T) {
	b := newBench(t)
	src := app(t, map[string]string{"a": ""})
	src.Manifest.Run, src.Manifest.Build = "x", "echo begun; sleep 600"
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("the client has gone")
	_, err := b.Build(ctx, src, writerFunc(func(p []byte) (int, error) {
		if strings.HasPrefix(string(p), "begun") {
			cancel(gone)
		}
		return len(p), nil
	}))
	if !errors.Is(err, gone) {
		t.Error(err)
	}
}

func TestBuildIsBoundedOnDisk(t *testing.T) {
	b := newBench(t)
	b.limits.resources.Disk, b.limits.look = lull.MB, 10*time.Millisecond
	src := app(t, map[string]string{"a": ""})
	src.Manifest.Run, src.Manifest.Build = "x", "head -c 2000000 /dev/zero > big; sleep 600"
	_, err := b.Build(t.Context(), src, io.Discard)
	if lull.KindOf(err) != lull.KindBuild || !strings.Contains(err.Error(), "it had more than 1MB on disk") {
		t.Error(err)
	}
	b.limits.look = time.Hour
	src.Manifest.Build = "head -c 2000000 /dev/zero > big"
	if _, err = b.Build(t.Context(), src, io.Discard); lull.KindOf(err) != lull.KindTooLarge {
		t.Error(err)
	}
}

// TestBuildLeavesHarmlessFiles checks what becomes of what a stranger's build leaves behind.
func TestBuildLeavesHarmlessFiles(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	check(t, os.WriteFile(outside, []byte("mine"), 0o600))
	src := app(t, map[string]string{"server.js": ""})
	src.Manifest.Build = fmt.Sprintf("umask 077; echo x > private; mkdir d; cp /bin/true d/su; chmod 4755 d/su; mkfifo p; ln -s %s link; ln -s %s .lull; ln -s / node_modules", outside, filepath.Dir(outside))
	result, err := newBench(t).Build(t.Context(), src, io.Discard)
	check(t, err)
	for name, want := range map[string]string{"private": "-rw-r--r--", "d": "drwxr-xr-x", "d/su": "-rwxr-xr-x", "link": "Lrwxrwxrwx"} {
		if info, err := os.Lstat(filepath.Join(result.Root, name)); err != nil || info.Mode().String() != want {
			t.Errorf("%s: %v %v, want %s", name, info.Mode(), err, want)
		}
	}
	if _, err := os.Lstat(filepath.Join(result.Root, "p")); err == nil {
		t.Error("a pipe is part of the release")
	}
	if info, err := os.Stat(outside); err != nil || info.Mode() != 0o600 {
		t.Errorf("a file outside was changed: %v %v", info, err)
	}
}

func TestBuildsOfOneAppTakeTurns(t *testing.T) {
	b := newBench(t)
	dir := t.TempDir()
	var wait sync.WaitGroup
	outs := make([]bytes.Buffer, 4)
	for i := range outs {
		wait.Go(func() {
			src := app(t, map[string]string{"a": ""})
			src.Manifest.Run = "x"
			src.Manifest.Build = fmt.Sprintf("mkdir %[1]s/busy && sleep 0.1 && rmdir %[1]s/busy", dir)
			if _, err := b.Build(t.Context(), src, &outs[i]); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	waited := 0
	for i := range outs {
		if strings.Contains(outs[i].String(), "waiting for another build of app to end") {
			waited++
		}
	}
	if waited != 3 || len(b.apps) != 0 {
		t.Errorf("%d waited, %d turns are left", waited, len(b.apps))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	leave, err := b.enter(t.Context(), "app", newOutput(io.Discard))
	check(t, err)
	if _, err := b.enter(ctx, "app", newOutput(io.Discard)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	leave()
	if len(b.apps) != 0 {
		t.Error("a turn is left")
	}
}

func TestNameAndEnvironment(t *testing.T) {
	src := app(t, map[string]string{"server.js": ""})
	src.App, src.Manifest.Name = "", "named"
	src.Manifest.Env = map[string]string{"LOG": "debug", "NODE_ENV": "test", "PORT": "3000"}
	result, err := newBench(t).Build(t.Context(), src, io.Discard)
	check(t, err)
	want := []string{"HOME=/tmp", "LANG=C.UTF-8", "LOG=debug", "NODE_ENV=test", "PATH=/app/node_modules/.bin:" + toolPath}
	if diff := cmp.Diff(want, result.Process.Env); diff != "" {
		t.Error(diff)
	}
	if result.Manifest.Name != "named" || result.Process.Port != 3000 || result.Manifest.Port != 3000 {
		t.Errorf("name %q, port %d", result.Manifest.Name, result.Process.Port)
	}
}

func TestPort(t *testing.T) {
	for _, c := range []struct {
		text    string
		image   []string
		exposed []int
		want    int
	}{
		{"", nil, nil, 8080}, {"", nil, []int{80}, 80}, {"", nil, []int{443, 80, 9000}, 80}, {"", nil, []int{80, 8080}, 8080},
		{"port: 9000", []string{"PORT=1"}, []int{80}, 9000}, {"port: 8080", nil, []int{80}, 8080},
		{"env: {PORT: 3000}", []string{"PORT=4000"}, []int{80}, 3000}, {"", []string{"PORT=4000"}, []int{80}, 4000}, {"", []string{"PORT=x"}, []int{80}, 80},
	} {
		src := app(t, map[string]string{manifest.FileName: c.text})
		m, _, err := manifest.Load(src.Dir)
		check(t, err)
		j := &job{dir: src.Dir, manifest: m}
		if got := j.port(c.image, c.exposed); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

func TestProgram(t *testing.T) {
	program, err := os.ReadFile("/bin/true")
	check(t, err)
	src := app(t, map[string]string{"server": string(program), "public/index.html": "", "README": ""})
	check(t, os.Chmod(filepath.Join(src.Dir, "server"), 0o644))
	result, err := newBench(t).Build(t.Context(), src, io.Discard)
	check(t, err)
	if diff := cmp.Diff([]string{"./server"}, result.Process.Args); diff != "" {
		t.Error(diff)
	}
	start(t, result)

	two := app(t, map[string]string{"a": string(program), "b": string(program)})
	if _, err := newBench(t).Build(t.Context(), two, io.Discard); !strings.Contains(err.Error(), "there are 2 programs in the directory: a, b") {
		t.Error(err)
	}
	foreign := bytes.Clone(program)
	copy(foreign[18:], []byte{0x16, 0}) // s390x
	other := app(t, map[string]string{"server": string(foreign)})
	if _, err := newBench(t).Build(t.Context(), other, io.Discard); runtime.GOARCH != "s390x" && !strings.Contains(err.Error(), "server is a program for EM_S390; this node is "+runtime.GOARCH) {
		t.Error(err)
	}
}

func TestForgetRemovesTheCache(t *testing.T) {
	b := newBench(t)
	_, err := b.Build(t.Context(), app(t, map[string]string{"server.js": ""}), io.Discard)
	check(t, err)
	cache := filepath.Join(b.dir, "cache", "app")
	if info, err := os.Stat(cache); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("cache: %v %v", info, err)
	}
	check(t, b.Forget("app"))
	check(t, b.Forget("../../.."))
	if _, err := os.Stat(cache); !errors.Is(err, syscall.ENOENT) {
		t.Error(err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
