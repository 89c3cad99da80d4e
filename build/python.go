package build

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/lull-dev/lull"
)

// pythonApp is a directory with a requirements.txt, a pyproject.toml, or nothing but a main.py.
type pythonApp struct{ requirements string }

var pythonFiles = []string{"main.py", "app.py", "server.py"}

// pythonDir is where packages are installed to, below the app's directory.
const pythonDir = ownDir + "/python"

// look is a program that reads what an app requires and compares it with what the interpreter has.
//
//go:embed look.py
var look string

func findPython(j *job) *pythonApp {
	requirements := j.firstOf("requirements.txt", "pyproject.toml")
	if requirements == "" && j.firstOf(pythonFiles...) == "" {
		return nil
	}
	return &pythonApp{requirements}
}

func (p *pythonApp) name() string    { return "a Python app" }
func (p *pythonApp) tools() []string { return []string{"python3", "python"} }

// env adds src for projects that keep their package there.
func (p *pythonApp) env(j *job) []string {
	search := []string{j.inApp(pythonDir)}
	if p.requirements == "pyproject.toml" && j.isRealDir("src") {
		search = append(search, j.inApp("src"))
	}
	return []string{"PYTHONUNBUFFERED=1", "PYTHONPATH=" + strings.Join(search, ":"), "PATH=" + j.inApp(pythonDir+"/bin") + ":" + toolPath}
}

func (p *pythonApp) command(j *job) (string, error) {
	if file := j.firstOf(pythonFiles...); file != "" {
		return "python3 " + file, nil
	}
	return "", invalid("write run: into lull.yaml, such as run: python3 FILE, or web: into a Procfile",
		"nothing says how to start the app: there is no Procfile, main.py, app.py or server.py")
}

// required is what look found out.
type required struct {
	Packages []string `json:"packages"` // what pyproject.toml names
	Missing  []string `json:"missing"`  // what the interpreter does not have
	Pinned   bool     `json:"pinned"`   // every requirement names one version
	Pip      bool     `json:"pip"`
	Version  string   `json:"version"` // of Python
	Problem  string   `json:"problem"` // with the file
}

func (p *pythonApp) build(ctx context.Context, j *job) error {
	if j.lookTool("python3") == "" {
		return missing("python3", "a Python app", "install it on the node: apt-get install python3")
	}
	if p.requirements == "" {
		return nil
	}
	needs, err := p.look(ctx, j)
	if err != nil {
		return err
	}
	wheels := wheelDir(j)
	if len(needs.Missing) == 0 && (wheels == "" || len(needs.Packages) == 0) {
		j.out.note("python3 of this node has all that %s names", p.requirements)
		return nil
	}
	if !needs.Pip {
		return &lull.Error{Kind: lull.KindUnsupported,
			Message: "build: " + p.requirements + " names packages that this node does not have (" + list(needs.Missing) + "), and its python3 has no pip to install them with",
			Hint:    "install pip on the node (apt-get install python3-pip) or the packages themselves (" + systemPackages(needs.Missing) + ")"}
	}
	key, err := p.key(j, needs, wheels)
	if err != nil {
		return err
	}
	return j.reuse(ctx, key, pythonDir, func(ctx context.Context) error { return p.install(ctx, j, needs, wheels) })
}

// look reads the requirements, inside a sandbox: it is the interpreter there that counts.
func (p *pythonApp) look(ctx context.Context, j *job) (required, error) {
	var answer bytes.Buffer
	// -I: nothing of the app's own files is imported.
	err := j.step(ctx, step{args: []string{"python3", "-I", "-c", look, p.requirements}, title: "read " + p.requirements, stdout: &limitedBuffer{&answer}})
	if err != nil {
		return required{}, err
	}
	var needs required
	if err := json.Unmarshal(answer.Bytes(), &needs); err != nil {
		return required{}, fmt.Errorf("read what python3 says about %s: %w", p.requirements, err)
	}
	if needs.Problem != "" {
		return required{}, invalid("", "%s: %s", p.requirements, needs.Problem)
	}
	return needs, nil
}

func (p *pythonApp) install(ctx context.Context, j *job, needs required, wheels string) error {
	file := p.requirements
	if file != "requirements.txt" {
		file = ownDir + "/requirements.txt"
		if err := j.root.MkdirAll(ownDir, 0o755); err != nil {
			return fmt.Errorf("install: %w", err)
		}
		if err := j.root.WriteFile(file, []byte(strings.Join(needs.Packages, "\n")+"\n"), 0o644); err != nil {
			return fmt.Errorf("install: %w", err)
		}
	}
	args := []string{"python3", "-I", "-m", "pip", "install", "--target", pythonDir, "-r", file}
	hint := "if this node cannot reach the package index: put wheels beside the app (pip download -d wheels -r " + p.requirements +
		"), or install the packages on the node (" + systemPackages(needs.Missing) + ")"
	if wheels != "" {
		args = append(args, "--no-index", "--find-links", wheels)
		hint = "only what lies in " + wheels + " is installed: pip download -d " + wheels + " -r " + p.requirements + " fills it"
	}
	return j.step(ctx, step{args: args, hint: hint, env: []string{"PIP_CACHE_DIR=" + j.inside(cacheDir) + "/pip", "PIP_NO_INPUT=1",
		"PIP_DISABLE_PIP_VERSION_CHECK=1", "PIP_ROOT_USER_ACTION=ignore", "PIP_PROGRESS_BAR=off", "PIP_RETRIES=1", "PIP_DEFAULT_TIMEOUT=15"}})
}

// key returns what the installed packages follow from. What an index has to offer changes from day to day, unless every
// requirement is pinned.
func (p *pythonApp) key(j *job, needs required, wheels string) (string, error) {
	if wheels == "" && !needs.Pinned {
		return "", nil
	}
	k := &key{parts: []string{"python", needs.Version, wheels}}
	k.add(j.config.Env...)
	k.addTool(j, "python3")
	if err := k.addFiles(j, p.requirements); err != nil {
		return "", err
	}
	if wheels == "" {
		return k.sum(), nil
	}
	entries, err := fs.ReadDir(j.root.FS(), wheels)
	if err != nil {
		return "", fmt.Errorf("read wheels: %w", err)
	}
	for _, entry := range entries {
		if err := k.addFiles(j, path.Join(wheels, entry.Name())); err != nil {
			return "", nil // too large to look at: install anew
		}
	}
	return k.sum(), nil
}

// wheelDir is the directory of the app that has packages in it, or "".
func wheelDir(j *job) string {
	for _, dir := range []string{"wheels", "wheelhouse", "vendor"} {
		if names, err := fs.Glob(j.root.FS(), dir+"/*.whl"); err == nil && len(names) > 0 {
			return dir
		}
	}
	return ""
}

// systemPackages is the command that would install packages with the system's own tool; it names the first few.
func systemPackages(missing []string) string {
	names := make([]string, 0, 3)
	for _, requirement := range missing {
		name, _, _ := strings.Cut(strings.ToLower(requirement), " ")
		if end := strings.IndexAny(name, "[<>=!~;@"); end > 0 {
			name = name[:end]
		}
		if names = append(names, "python3-"+strings.ReplaceAll(name, "_", "-")); len(names) == 3 {
			break
		}
	}
	return "apt-get install " + strings.Join(names, " ")
}

// limitedBuffer keeps the first megabyte.
type limitedBuffer struct{ buffer *bytes.Buffer }

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if room := 1<<20 - b.buffer.Len(); room > 0 {
		b.buffer.Write(p[:min(len(p), room)])
	}
	return len(p), nil
}
