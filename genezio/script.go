package genezio

import (
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

// tools are package managers that a node need not have: they are fetched, or stand for something it has.
var tools = []struct {
	word *regexp.Regexp
	shim string
}{
	{word("pnpm"), `command -v pnpm >/dev/null || pnpm() { npx --yes pnpm@9 "$@"; }`},
	{word("yarn"), `command -v yarn >/dev/null || yarn() { npx --yes yarn@1 "$@"; }`},
	{word("source"), `command -v source >/dev/null || source() { . "$@"; }`},
	{word("python"), `command -v python >/dev/null || python() { python3 "$@"; }`},
}

// word fits a command at the beginning of a command line or after another one.
func word(name string) *regexp.Regexp {
	return regexp.MustCompile(`(?m)(?:^|[;&|(])\s*` + name + `(?:\s|$)`)
}

func withTools(s script) script {
	text := strings.Join(s.commands, "\n")
	for _, tool := range tools {
		if tool.word.MatchString(text) {
			s.setup = append(s.setup, tool.shim)
		}
	}
	return s
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

// installed puts an install before commands that rely on one having been done by hand: node_modules is not uploaded.
func installed(dir string, commands []string) []string {
	pkg := readPackage(dir)
	if len(commands) == 0 || len(pkg.Dependencies)+len(pkg.DevDependencies) == 0 || installs.MatchString(strings.Join(commands, "\n")) {
		return commands
	}
	return append([]string{"npm install"}, commands...)
}

// nodeBuild is the build of a JavaScript function. An ordinary install is left to the build that Lull finds out, which keeps
// what it has installed for the next time.
func nodeBuild(dir, below string, commands []string) script {
	pkg := readPackage(dir)
	plain := len(commands) == 1 && plainNpm.MatchString(commands[0])
	if plain && !strings.Contains(commands[0], "legacy") && pkg.found && pkg.Scripts["build"] == "" && len(pkg.DevDependencies) == 0 {
		return script{}
	}
	if len(commands) > 0 {
		return withTools(script{commands: installed(dir, commands)})
	}
	if below == "." || len(readPackage(filepath.Join(dir, below)).Dependencies) == 0 {
		return script{}
	}
	if pkg.found {
		commands = append(commands, "npm install --omit=dev")
	}
	return script{commands: append(commands, "cd "+quote(below)+"\nnpm install --omit=dev")}
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
	s := withTools(script{commands: commands})
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
