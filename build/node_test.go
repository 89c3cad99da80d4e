package build

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lull-dev/lull"
)

// These tests use the real npm and its registry.

const usesWS = `const {WebSocketServer} = require('ws'); console.log('ws is ' + typeof WebSocketServer, process.env.NODE_ENV)`

func TestNodeInstallsAndReuses(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	files := map[string]string{"package.json": `{"name": "chat", "dependencies": {"ws": "8.18.0"}}`, "server.js": usesWS}
	src := app(t, files)
	result, out := build(t, b, src)
	if !strings.Contains(out, "$ npm install --omit=dev\n") {
		t.Errorf("without a lock file: %s", out)
	}
	if got := start(t, result); got != "ws is function production\n" {
		t.Errorf("printed %q", got)
	}

	lock, err := os.ReadFile(filepath.Join(src.Dir, "package-lock.json"))
	check(t, err)
	files["package-lock.json"] = string(lock)
	if _, out = build(t, b, app(t, files)); !strings.Contains(out, "$ npm ci --omit=dev\n") {
		t.Errorf("with a lock file: %s", out)
	}
	steps := b.driver.started.Load()
	result, out = build(t, b, app(t, files))
	if !strings.Contains(out, "dependencies unchanged, reused\n") || b.driver.started.Load() != steps {
		t.Errorf("the second time: %s", out)
	}
	if got := start(t, result); got != "ws is function production\n" {
		t.Errorf("printed %q", got)
	}

	// Neither another lock file nor another app gets what was kept.
	files["package.json"] = strings.Replace(files["package.json"], "chat", "chat2", 1)
	if _, out = build(t, b, app(t, files)); strings.Contains(out, "reused") {
		t.Errorf("with another package.json: %s", out)
	}
	other := app(t, files)
	other.App = "other"
	if _, out = build(t, b, other); strings.Contains(out, "reused") {
		t.Errorf("another app: %s", out)
	}
	if kept, err := os.ReadDir(filepath.Join(b.dir, "cache", "app", "installed")); err != nil || len(kept) != 2 {
		t.Errorf("kept %v %v", kept, err)
	}
}

func TestNodeCacheSurvivesDamage(t *testing.T) {
	b := newBench(t)
	j := jobOf(t, b, app(t, map[string]string{"node_modules/x": "good"}))
	check(t, j.keep(filepath.Join(j.installed(), "k.tar.zst"), "node_modules"))
	fresh := jobOf(t, b, app(t, nil))
	if !fresh.restore(filepath.Join(j.installed(), "k.tar.zst"), "node_modules") || !fresh.has("node_modules/x") {
		t.Error("not restored")
	}
	check(t, os.Truncate(filepath.Join(j.installed(), "k.tar.zst"), 20))
	damaged := jobOf(t, b, app(t, nil))
	if damaged.restore(filepath.Join(j.installed(), "k.tar.zst"), "node_modules") || damaged.isRealDir("node_modules") {
		t.Error("a damaged archive is used")
	}
	for _, name := range []string{"1.tar.zst", "2.tar.zst", "3.tar.zst", "4.tar.zst", "new-123"} {
		check(t, os.WriteFile(filepath.Join(j.installed(), name), nil, 0o600))
	}
	check(t, j.trim())
	if kept, _ := os.ReadDir(j.installed()); len(kept) != keptInstalls {
		t.Errorf("kept %v", kept)
	}
}

func TestNodeKeepsNoLinks(t *testing.T) {
	secret := t.TempDir()
	check(t, os.WriteFile(filepath.Join(secret, "key"), nil, 0o600))
	b := newBench(t)
	j := jobOf(t, b, app(t, nil))
	check(t, os.Symlink(secret, filepath.Join(j.dir, "node_modules")))
	kept := filepath.Join(j.installed(), "k.tar.zst")
	check(t, j.keep(kept, "node_modules"))
	if _, err := os.Stat(kept); err == nil {
		t.Error("a directory outside of the app was kept")
	}
}

func TestNodeBuildScript(t *testing.T) {
	t.Parallel()
	src := app(t, map[string]string{
		"package.json": `{"scripts": {"build": "mkdir dist && node make.js", "start": "node dist/server.js"}, "dependencies": {"ws": "8.18.0"}, "devDependencies": {"ms": "2.1.3"}}`,
		"make.js":      `require('fs').writeFileSync('dist/server.js', "console.log(" + require('ms')('1s') + ", typeof require('ws'), require('fs').existsSync('node_modules/ms'))")`,
	})
	result, out := build(t, newBench(t), src)
	var steps []string
	for line := range strings.Lines(out) {
		if step, ok := strings.CutPrefix(line, "$ "); ok {
			steps = append(steps, strings.TrimSpace(step))
		}
	}
	if diff := cmp.Diff([]string{"npm install --include=dev", "npm run build", "npm prune --omit=dev"}, steps); diff != "" {
		t.Error(diff)
	}
	if got := start(t, result); got != "1000 function false\n" {
		t.Errorf("printed %q", got)
	}
}

func TestNodeOtherManagers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ manager, lock, install string }{
		{"yarn@1.22.22", "yarn.lock", "$ npx --yes yarn@1.22.22 install --non-interactive --no-progress --frozen-lockfile --production=true"},
		{"pnpm@9.15.9", "pnpm-lock.yaml", "$ npx --yes pnpm@9.15.9 install --frozen-lockfile --prod"},
	} {
		t.Run(c.manager, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			files := map[string]string{"package.json": `{"packageManager": "` + c.manager + `", "dependencies": {"ws": "8.18.0"}}`, "server.js": usesWS}
			first := app(t, files)
			build(t, b, first)
			lock, err := os.ReadFile(filepath.Join(first.Dir, c.lock))
			check(t, err)
			files[c.lock] = string(lock)
			result, out := build(t, b, app(t, files))
			if !strings.Contains(out, c.install) {
				t.Errorf("with a lock file: %s", out)
			}
			if got := start(t, result); got != "ws is function production\n" {
				t.Errorf("printed %q", got)
			}
			if _, out = build(t, b, app(t, files)); !strings.Contains(out, "reused") {
				t.Errorf("the second time: %s", out)
			}
		})
	}
}

// TestNodeOtherManagersPrune checks that only what runs stays: no development dependencies, no store of downloads.
func TestNodeOtherManagersPrune(t *testing.T) {
	t.Parallel()
	for _, manager := range []string{"yarn@4.5.3", "pnpm@9.15.9"} {
		t.Run(manager, func(t *testing.T) {
			t.Parallel()
			src := app(t, map[string]string{"server.js": usesWS, "make.js": "require('ms')", "package.json": `{"packageManager": "` + manager + `",
				"scripts": {"build": "node make.js"}, "dependencies": {"ws": "8.18.0"}, "devDependencies": {"ms": "2.1.3"}}`})
			result, _ := build(t, newBench(t), src)
			if got := start(t, result); got != "ws is function production\n" {
				t.Errorf("printed %q", got)
			}
			for _, left := range []string{"node_modules/ms", ".pnpm-store", ".yarn/cache"} {
				if _, err := os.Stat(filepath.Join(result.Root, left)); err == nil {
					t.Errorf("%s is part of the release", left)
				}
			}
		})
	}
}

func TestNodeChoosesTheManager(t *testing.T) {
	for _, c := range []struct {
		files map[string]string
		want  string
	}{
		{map[string]string{"package-lock.json": "{}", "yarn.lock": ""}, "npm ci --omit=dev"},
		{map[string]string{"npm-shrinkwrap.json": "{}"}, "npm ci --omit=dev"},
		{map[string]string{"bun.lock": ""}, "npm install --omit=dev"},
		{map[string]string{"yarn.lock": "# yarn lockfile v1\n"}, "npx --yes yarn@1 install --non-interactive --no-progress --frozen-lockfile --production=true"},
		{map[string]string{"yarn.lock": "__metadata:\n  version: 8\n"}, "npx --yes @yarnpkg/cli-dist@4 workspaces focus --all --production"},
		{map[string]string{"pnpm-lock.yaml": "lockfileVersion: '9.0'\n"}, "npx --yes pnpm@9 install --frozen-lockfile --prod"},
		{map[string]string{"pnpm-lock.yaml": "lockfileVersion: '6.0'\n"}, "npx --yes pnpm@8 install --frozen-lockfile --prod"},
		{map[string]string{"pnpm-lock.yaml": "lockfileVersion: 5.4\n"}, "npx --yes pnpm@7 install --frozen-lockfile --prod"},
		{map[string]string{"package.json": `{"packageManager": "pnpm@8.6.0+sha512.abc"}`}, "npx --yes pnpm@8.6.0 install --no-frozen-lockfile --prod"},
	} {
		c.files["server.js"] = ""
		j := jobOf(t, newBench(t), app(t, c.files))
		node, err := findNode(j)
		check(t, err)
		m, err := node.manager(j)
		check(t, err)
		if got := strings.Join(m.production, " "); !strings.HasPrefix(got+" ", c.want+" ") {
			t.Errorf("%v: %s, want %s", c.files, got, c.want)
		}
	}
}

func TestNodeInstallFails(t *testing.T) {
	t.Parallel()
	src := app(t, map[string]string{"package.json": `{"dependencies": {"ws": "0.0.0-none"}}`, "server.js": ""})
	var out bytes.Buffer
	_, err := newBench(t).Build(t.Context(), src, &out)
	if lull.KindOf(err) != lull.KindBuild || !strings.Contains(err.Error(), "build: npm install --omit=dev exited with code 1") || !strings.Contains(err.Error(), "ETARGET") {
		t.Error(err)
	}
}

// TestNodeKeyKnowsItsLimits lists apps whose node_modules follow from more than their lock file.
func TestNodeKeyKnowsItsLimits(t *testing.T) {
	for text, want := range map[string]bool{
		`{}`: true, `{"scripts": {"postinstall": "x"}}`: false, `{"scripts": {"prepare": "x"}}`: false, `{"workspaces": ["a"]}`: false,
		`{"dependencies": {"a": "file:./a"}}`: false, `{"dependencies": {"a": "^1"}}`: true,
	} {
		j := jobOf(t, newBench(t), app(t, map[string]string{"package.json": text, "package-lock.json": "{}"}))
		node, err := findNode(j)
		check(t, err)
		m, err := node.manager(j)
		check(t, err)
		if key, err := node.key(j, m, m.production); err != nil || (key != "") != want {
			t.Errorf("%s: key %q %v", text, key, err)
		}
	}
}

func build(t *testing.T, b *bench, src Source) (Result, string) {
	t.Helper()
	var out bytes.Buffer
	result, err := b.Build(t.Context(), src, &out)
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	return result, out.String()
}

func jobOf(t *testing.T, b *bench, src Source) *job {
	t.Helper()
	j, err := b.open("app", src, newOutput(&bytes.Buffer{}))
	check(t, err)
	t.Cleanup(func() { j.root.Close() })
	return j
}
