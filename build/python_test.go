package build

import (
	"archive/zip"
	"bytes"
	"strings"
	"testing"

	"github.com/lull-dev/lull"
)

const usesGreet = "import greet, os, sys\nprint(greet.hello(), 'PORT' in os.environ)\n"

// wheel makes a package as it lies on an index: a zip file.
func wheel(t *testing.T, name, version, code string) string {
	t.Helper()
	info := name + "-" + version + ".dist-info/"
	var data bytes.Buffer
	w := zip.NewWriter(&data)
	for file, body := range map[string]string{
		name + ".py":       code,
		info + "METADATA":  "Metadata-Version: 2.1\nName: " + name + "\nVersion: " + version + "\n",
		info + "WHEEL":     "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
		info + "RECORD":    name + ".py,,\n" + info + "METADATA,,\n" + info + "WHEEL,,\n" + info + "RECORD,,\n",
		info + "top_level": name,
	} {
		out, err := w.Create(file)
		check(t, err)
		_, err = out.Write([]byte(body))
		check(t, err)
	}
	check(t, w.Close())
	return data.String()
}

func TestPythonWheels(t *testing.T) {
	t.Parallel()
	greet := wheel(t, "greet", "1.2", "def hello(): return 'hello'\n")
	for name, requires := range map[string]map[string]string{
		"requirements.txt": {"requirements.txt": "greet>=1  # friendly\n"},
		"pyproject.toml":   {"pyproject.toml": "[project]\nname = 'x'\ndependencies = ['greet==1.2']\n"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			files := map[string]string{"main.py": usesGreet, "wheels/greet-1.2-py3-none-any.whl": greet}
			for file, text := range requires {
				files[file] = text
			}
			result, out := build(t, b, app(t, files))
			if !strings.Contains(out, "--no-index --find-links wheels") {
				t.Error(out)
			}
			if got := start(t, result); got != "hello True\n" {
				t.Errorf("printed %q", got)
			}
			result, out = build(t, b, app(t, files))
			if !strings.Contains(out, "dependencies unchanged, reused") {
				t.Errorf("the second time: %s", out)
			}
			if got := start(t, result); got != "hello True\n" {
				t.Errorf("printed %q", got)
			}
			files["wheels/greet-1.2-py3-none-any.whl"] = wheel(t, "greet", "1.2", "def hello(): return 'good day'\n")
			if result, _ = build(t, b, app(t, files)); start(t, result) != "good day True\n" {
				t.Error("an old wheel was reused")
			}
		})
	}
}

func TestPythonUsesWhatTheSystemHas(t *testing.T) {
	t.Parallel()
	// pip itself is a package of the system that is there wherever this test can run.
	for file, text := range map[string]string{
		"requirements.txt": "pip>=1.0 ; python_version >= '3'\nnot-for-here ; python_version < '3'\n-r more.txt\n",
		"pyproject.toml":   "[project]\nname = 'x'\ndependencies = ['pip']\n",
	} {
		src := app(t, map[string]string{"app.py": "import pip; print('fine')", file: text, "more.txt": "PIP # again\n"})
		result, out := build(t, newBench(t), src)
		if !strings.Contains(out, "python3 of this node has all that "+file+" names") {
			t.Error(out)
		}
		if got := start(t, result); got != "fine\n" {
			t.Errorf("printed %q", got)
		}
	}
}

func TestPythonSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, file, text string
		kind             lull.Kind
		want, hint       string
	}{
		{"no index", "requirements.txt", "greet-nobody==1\nother\n", lull.KindBuild, "pip install --target .lull/python -r requirements.txt exited with code 1", "pip download -d wheels -r requirements.txt"},
		{"not a requirement", "requirements.txt", "a b c\n", lull.KindInvalid, "requirements.txt: ", ""},
		{"a file that is not there", "requirements.txt", "-r none.txt\n", lull.KindInvalid, "requirements.txt: it names a file that is not there: none.txt", ""},
		{"broken TOML", "pyproject.toml", "[project\n", lull.KindInvalid, "pyproject.toml: ", ""},
		{"Poetry", "pyproject.toml", "[tool.poetry.dependencies]\nflask = '^3'\n", lull.KindInvalid, "poetry export -o requirements.txt", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			b.config.Env = append(b.config.Env, "PIP_INDEX_URL=http://127.0.0.1:1/simple", "PIP_RETRIES=0")
			_, err := b.Build(t.Context(), app(t, map[string]string{"main.py": "", c.file: c.text}), &bytes.Buffer{})
			if lull.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.want) || !strings.Contains(lull.HintOf(err), c.hint) {
				t.Errorf("kind %q: %v\nhint: %s", lull.KindOf(err), err, lull.HintOf(err))
			}
		})
	}
	b := newBench(t)
	src := app(t, map[string]string{"main.py": "", "requirements.txt": "greet\n", "wheels/other-1-py3-none-any.whl": wheel(t, "other", "1", "")})
	if _, err := b.Build(t.Context(), src, &bytes.Buffer{}); lull.KindOf(err) != lull.KindBuild || !strings.Contains(lull.HintOf(err), "only what lies in wheels") {
		t.Errorf("a wheel is missing: %v\nhint: %s", err, lull.HintOf(err))
	}
}
