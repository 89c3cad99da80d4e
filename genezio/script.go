package genezio

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// script is what a build runs: commands, stopping at the first that fails.
type script struct {
	setup    []string // cannot fail
	commands []string
}

// String returns the text for a shell; "" is the build that Lull finds out by itself.
func (s script) String() string {
	if len(s.commands) == 0 {
		return ""
	}
	if len(s.commands) == 1 && len(s.setup) == 0 && !strings.Contains(s.commands[0], "\n") {
		return s.commands[0]
	}
	all := append([]string{"set -e"}, s.setup...)
	for _, command := range s.commands {
		if len(s.commands) > 1 {
			// Each begins in the same directory, as Genezio's do, and ends the build if it fails as a whole: set -e alone
			// goes on after the a of a && b.
			command = "(\n" + command + "\n)"
		}
		all = append(all, command)
	}
	return strings.Join(all, "\n")
}

// commands fills in the expressions of scripts.
func (p *planner) commands(from lines, path string) []string {
	var all []string
	for _, line := range from {
		command, _ := p.fill(line, path)
		all = append(all, command)
	}
	return all
}

// tools are package managers that a node need not have: they are fetched, or stand for something it has. The store of pnpm
// would lie among the app's files otherwise, which are a mount of their own.
var tools = []struct {
	word *regexp.Regexp
	shim string
}{
	{word("pnpm"), `command -v pnpm >/dev/null || pnpm() { npx --yes pnpm@9 --config.store-dir="$HOME/.pnpm-store" "$@"; }`},
	{word("yarn"), classicYarn},
	{word("source"), `command -v source >/dev/null || source() { . "$@"; }`},
	{word("python"), `command -v python >/dev/null || python() { python3 "$@"; }`},
}

// Yarn's first version cannot read the lock file of the later ones, which have to be told to fill node_modules.
const (
	classicYarn = `command -v yarn >/dev/null || yarn() { npx --yes yarn@1 "$@"; }`
	modernYarn  = `yarn() { YARN_NODE_LINKER=node-modules npx --yes @yarnpkg/cli-dist@4 "$@"; }`
)

// word fits a command at the beginning of a command line or after another one.
func word(name string) *regexp.Regexp {
	return regexp.MustCompile(`(?m)(?:^|[;&|(])\s*` + name + `(?:\s|$)`)
}

// withTools gives the commands of a script what they need, in the versions that fit dir.
func withTools(dir string, s script) script {
	text := strings.Join(s.commands, "\n")
	for _, tool := range tools {
		if !tool.word.MatchString(text) {
			continue
		}
		shim := tool.shim
		if shim == classicYarn && hasModernYarn(dir) {
			shim = modernYarn
		}
		s.setup = append(s.setup, shim)
	}
	return s
}

func hasModernYarn(dir string) bool {
	lock, err := os.ReadFile(filepath.Join(dir, "yarn.lock"))
	return err == nil && bytes.Contains(lock, []byte("\n__metadata:"))
}

// packageFile is what of a package.json decides how an app is built and started.
type packageFile struct {
	found           bool
	Scripts         map[string]string `json:"scripts"`
	Dependencies    map[string]string `json:"dependencies"`
	DevDependencies map[string]string `json:"devDependencies"`
}

func readPackage(dir string) packageFile {
	var pkg packageFile
	data, err := os.ReadFile(filepath.Join(dir, "package.json"))
	if err == nil {
		pkg.found = true
		_ = json.Unmarshal(data, &pkg) // the build says what is wrong with it
	}
	return pkg
}

func has(dir string, name string) bool {
	info, err := os.Stat(filepath.Join(dir, filepath.FromSlash(name)))
	return err == nil && info.Mode().IsRegular()
}

var (
	plainNpm = regexp.MustCompile(`^npm (?:i|install|ci)(?: --(?:omit=dev|production|no-audit|no-fund|legacy-peer-deps))*$`)
	plainPip = regexp.MustCompile(`^(?:pip3?|python3? -m pip) install (?:--(?:upgrade|no-cache-dir|user) )*(?:-r|--requirement) (?:\./)?requirements\.txt(?: --(?:upgrade|no-cache-dir|user))*$`)
)

var installs = regexp.MustCompile(`\b(?:npm (?:i|ci|install|clean-install)|pnpm|yarn|bun)\b`)

// installer is how what a package.json names is installed: all of it, and what is needed at run time.
type installer struct{ all, production string }

var installers = map[string]installer{
	"npm":  {"npm install", "npm install --omit=dev"},
	"pnpm": {"pnpm install", "pnpm install --prod"},
	"yarn": {"yarn install", "yarn install"}, // the flag differs by version
}

// lockFiles say who has installed before. One that is not known here is that of bun.
var lockFiles = []struct{ name, manager string }{
	{"package-lock.json", "npm"}, {"npm-shrinkwrap.json", "npm"}, {"pnpm-lock.yaml", "pnpm"}, {"yarn.lock", "yarn"}, {"bun.lock", ""}, {"bun.lockb", ""},
}

// installer chooses the package manager that is named, else the one whose lock file there is, else npm.
func (p *planner) installer(dir, named string) installer {
	if known, ok := installers[named]; ok {
		return known
	}
	for _, lock := range lockFiles {
		if !has(dir, lock.name) {
			continue
		}
		if known, ok := installers[lock.manager]; ok {
			return known
		}
		below, _ := filepath.Rel(p.options.Dir, dir)
		p.say("%s is not read: npm installs without it", path.Join(filepath.ToSlash(below), lock.name))
		break
	}
	return installers["npm"]
}

// installed puts an install before commands that rely on one having been done by hand: node_modules is not uploaded. named
// is a package manager, or "".
func (p *planner) installed(dir, named string, commands []string) []string {
	pkg := readPackage(dir)
	if len(commands) == 0 || len(pkg.Dependencies)+len(pkg.DevDependencies) == 0 || installs.MatchString(strings.Join(commands, "\n")) {
		return commands
	}
	return append([]string{p.installer(dir, named).all}, commands...)
}

// nodeBuild is the build of a JavaScript function. An ordinary install is left to the build that Lull finds out, which keeps
// what it has installed for the next time.
func (p *planner) nodeBuild(dir, below string, commands []string) script {
	named := p.file.Backend.Language.Manager.or("")
	pkg := readPackage(dir)
	plain := len(commands) == 1 && plainNpm.MatchString(commands[0])
	if plain && !strings.Contains(commands[0], "legacy") && pkg.found && pkg.Scripts["build"] == "" && len(pkg.DevDependencies) == 0 {
		return script{}
	}
	if len(commands) > 0 {
		return withTools(dir, script{commands: p.installed(dir, named, commands)})
	}
	inner := filepath.Join(dir, below)
	if below == "." || len(readPackage(inner).Dependencies) == 0 {
		return script{}
	}
	if pkg.found {
		commands = append(commands, p.installer(dir, named).production)
	}
	return withTools(inner, script{commands: append(commands, "cd "+quote(below)+"\n"+p.installer(inner, named).production)})
}

// pythonBuild is the build of a Python function. Packages that a script installs go beside the function, where they are
// looked for: what else a build writes is not kept.
func pythonBuild(dir, below string, commands []string) script {
	here := has(dir, "requirements.txt") || has(dir, "pyproject.toml")
	plain := !slices.ContainsFunc(commands, func(c string) bool { return !plainPip.MatchString(c) })
	nested := path.Join(below, "requirements.txt")
	switch {
	case plain && here:
		return script{}
	case len(commands) == 0 && has(dir, nested):
		commands = []string{"pip install -r " + quote(nested)}
	case len(commands) == 0:
		return script{}
	case here && has(dir, "requirements.txt") && !mentions(commands, "pip", "poetry", "uv", "pipenv"):
		commands = append([]string{"pip install -r requirements.txt"}, commands...)
	}
	s := withTools(dir, script{commands: commands})
	s.setup = append([]string{`export PIP_TARGET="$PWD"/` + quote(path.Join(below, "packages")),
		`export PYTHONPATH="$PIP_TARGET${PYTHONPATH:+:$PYTHONPATH}"`}, s.setup...)
	if mentions(commands, "pip") {
		for _, wheels := range []string{"wheels", "wheelhouse", "vendor"} {
			if found, _ := filepath.Glob(filepath.Join(dir, wheels, "*.whl")); len(found) > 0 {
				s.setup = append(s.setup, `export PIP_FIND_LINKS="$PWD"/`+wheels)
				break
			}
		}
		s.setup = append(s.setup, pip, `pip3() { pip "$@"; }`)
	}
	return s
}

// pip is a function of the shell that installs only what the node's own Python does not have, as Lull's build does: there
// may be no package index in reach.
const pip = `export PIP_RETRIES=1 PIP_DEFAULT_TIMEOUT=15 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
pip() {
  if [ "$1" = install ] && plan=$(PIP_TARGET= PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip "$@" --dry-run --no-index 2>/dev/null); then
    case $plan in *"Would install"*) ;; *) echo "python3 of this node has it: pip $*"; return;; esac
  fi
  python3 -m pip "$@"
}`

func mentions(commands []string, words ...string) bool {
	for _, w := range words {
		if regexp.MustCompile(`\b` + w + `3?\b`).MatchString(strings.Join(commands, "\n")) {
			return true
		}
	}
	return false
}

// inside is a command that is run in a directory of the app.
func inside(dir, command string) string {
	if dir == "." {
		return command
	}
	return fmt.Sprintf("cd %s && exec %s", quote(dir), command)
}
