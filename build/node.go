package build

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// nodeApp is a directory with a package.json, or with nothing but a server.js.
type nodeApp struct{ pkg packageJSON }

type packageJSON struct {
	Main                 string            `json:"main"`
	Scripts              map[string]string `json:"scripts"`
	Dependencies         map[string]string `json:"dependencies"`
	DevDependencies      map[string]string `json:"devDependencies"`
	OptionalDependencies map[string]string `json:"optionalDependencies"`
	Workspaces           json.RawMessage   `json:"workspaces"`
	PackageManager       string            `json:"packageManager"`
}

var nodeFiles = []string{"server.js", "server.mjs", "server.cjs", "index.js", "index.mjs", "index.cjs", "app.js", "app.mjs", "main.js", "main.mjs"}

// findNode returns nil if the directory is not of a Node app.
func findNode(j *job) (*nodeApp, error) {
	text, found, err := j.fileText("package.json")
	if err != nil {
		return nil, err
	}
	if !found {
		if j.firstOf(nodeFiles...) == "" {
			return nil, nil
		}
		return &nodeApp{}, nil
	}
	node := &nodeApp{}
	data := bytes.TrimPrefix([]byte(text), []byte("\ufeff"))
	if err := json.Unmarshal(data, &node.pkg); err != nil {
		return nil, jsonError("package.json", data, err)
	}
	return node, nil
}

// jsonError says where in a file an error is.
func jsonError(name string, data []byte, err error) error {
	offset := int64(0)
	message := err.Error()
	var syntax *json.SyntaxError
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		offset = syntax.Offset
	case errors.As(err, &wrong):
		offset = wrong.Offset
		message = fmt.Sprintf("%s must not be a JSON %s", wrong.Field, wrong.Value)
	}
	before := data[:min(max(offset-1, 0), int64(len(data)))]
	line := bytes.Count(before, []byte("\n")) + 1
	column := len(before) - bytes.LastIndexByte(before, '\n')
	return invalid("", "%s:%d:%d: %s", name, line, column, message)
}

func (n *nodeApp) name() string    { return "a Node app" }
func (n *nodeApp) tools() []string { return []string{"node", "npm", "npx", "yarn", "pnpm"} }
func (n *nodeApp) env(j *job) []string {
	return []string{"NODE_ENV=production", "PATH=" + j.inApp("node_modules/.bin") + ":" + toolPath}
}

func (n *nodeApp) build(ctx context.Context, j *job) error {
	if j.lookTool("node") == "" {
		return missing("node", "a Node app", "install it on the node: apt-get install nodejs npm")
	}
	p := n.pkg
	building := p.Scripts["build"] != ""
	runtime := len(p.Dependencies) + len(p.OptionalDependencies)
	install := runtime > 0 || len(p.Workspaces) > 0 || building && len(p.DevDependencies) > 0
	if !install && !building {
		return nil
	}
	if j.lookTool("npm") == "" || j.lookTool("npx") == "" {
		return missing("npm", "installing what package.json names", "install it on the node: apt-get install npm")
	}
	m, err := n.manager(j)
	if err != nil {
		return err
	}
	if install {
		if err := n.install(ctx, j, m, building); err != nil {
			return err
		}
	}
	if !building {
		return nil
	}
	if err := j.step(ctx, step{args: m.run("build"), env: m.env(j)}); err != nil {
		return err
	}
	if len(p.DevDependencies) == 0 {
		return nil
	}
	return j.step(ctx, step{args: m.prune, env: m.env(j)})
}

func (n *nodeApp) install(ctx context.Context, j *job, m manager, everything bool) error {
	args := m.production
	if everything {
		args = m.everything
	}
	key, err := n.key(j, m, args)
	if err != nil {
		return err
	}
	return j.reuse(ctx, key, "node_modules", func(ctx context.Context) error {
		return j.step(ctx, step{args: args, env: m.env(j), hint: m.hint})
	})
}

// Scripts that an install runs, and that may read any file of the app.
var installScripts = []string{"preinstall", "install", "postinstall", "prepublish", "preprepare", "prepare", "postprepare", "dependencies"}

// key returns what the content of node_modules follows from, or "" if that is more than a lock file.
func (n *nodeApp) key(j *job, m manager, args []string) (string, error) {
	if m.lock == "" || len(n.pkg.Workspaces) > 0 || j.has("binding.gyp") || j.has("pnpm-workspace.yaml") {
		return "", nil
	}
	for _, name := range installScripts {
		if n.pkg.Scripts[name] != "" {
			return "", nil
		}
	}
	for _, all := range []map[string]string{n.pkg.Dependencies, n.pkg.DevDependencies, n.pkg.OptionalDependencies} {
		for _, version := range all {
			if strings.HasPrefix(version, "file:") || strings.HasPrefix(version, "link:") || strings.HasPrefix(version, ".") {
				return "", nil
			}
		}
	}
	k := &key{parts: append([]string{"node"}, args...)}
	k.add(j.config.Env...)
	k.addTool(j, "node")
	k.addTool(j, "npm")
	if err := k.addFiles(j, "package.json", m.lock, ".npmrc", ".yarnrc", ".yarnrc.yml", ".pnpmfile.cjs"); err != nil {
		return "", err
	}
	return k.sum(), nil
}

func (n *nodeApp) command(j *job) (string, error) {
	if n.pkg.Scripts["start"] != "" {
		return "npm start", nil
	}
	if main := n.pkg.Main; main != "" {
		for _, name := range []string{main, main + ".js", main + "/index.js"} {
			if name = strings.TrimPrefix(name, "./"); j.has(name) {
				return joinWords([]string{"node", name}), nil
			}
		}
	}
	if file := j.firstOf(nodeFiles...); file != "" {
		return "node " + file, nil
	}
	return "", invalid(`add "scripts": {"start": "node FILE"} to package.json, or run: to lull.yaml`,
		"nothing says how to start the app: package.json has no start script, and there is no server.js, index.js or app.js")
}

// runScript fits the commands that do nothing but run a script of package.json.
var runScript = regexp.MustCompile(`^(?:(?:npm|pnpm|yarn) (?:run |run-script )?)([A-Za-z0-9:_-]+)$`)

// resolve replaces a command that runs a script of package.json by the script itself: npm as a parent process costs some
// 100 ms at every start and 50 MB for good, and keeps signals from the app.
func (n *nodeApp) resolve(text string) string {
	for range 5 { // a script may run a script
		match := runScript.FindStringSubmatch(strings.TrimSpace(text))
		if match == nil {
			return text
		}
		name := match[1]
		script, known := n.pkg.Scripts[name]
		if !known || script == "" {
			return text
		}
		if before := n.pkg.Scripts["pre"+name]; before != "" {
			return "(" + before + ") && " + execText(script)
		}
		text = script
	}
	return text
}

// execText is a text for a shell that replaces the shell by the command, if it is only one.
func execText(text string) string {
	switch args := commandArgs(text); {
	case args[0] == "sh" && len(args) == 3 && args[1] == "-c":
		return args[2]
	default:
		return "exec " + joinWords(args)
	}
}

// manager is a package manager and what it is told.
type manager struct {
	lock       string // the file that names the exact versions; empty without
	production []string
	everything []string
	prune      []string // removes what only the build needed
	script     []string // runs a script of package.json
	more       []string // environment
	hint       string
}

func (m manager) run(script string) []string { return slices.Concat(m.script, []string{script}) }

// env keeps every manager quiet, and its downloads in the app's own cache.
func (m manager) env(j *job) []string {
	cache := j.inside(cacheDir)
	env := []string{"npm_config_cache=" + cache + "/npm", "npm_config_update_notifier=false", "npm_config_fund=false", "npm_config_audit=false",
		"npm_config_progress=false", "YARN_CACHE_FOLDER=" + cache + "/yarn"}
	return append(env, m.more...)
}

// manager chooses by the lock file. Only npm comes with Node; the others are run through npx, from the same registry and
// in the version that fits the file.
func (n *nodeApp) manager(j *job) (manager, error) {
	wanted, version, _ := strings.Cut(n.pkg.PackageManager, "@")
	version, _, _ = strings.Cut(version, "+")
	switch lock := j.firstOf("package-lock.json", "npm-shrinkwrap.json", "pnpm-lock.yaml", "yarn.lock"); {
	case lock == "pnpm-lock.yaml" || lock == "" && wanted == "pnpm":
		return n.pnpm(j, lock, wanted, version)
	case lock == "yarn.lock" || lock == "" && wanted == "yarn":
		return n.yarn(j, lock, wanted, version)
	case lock != "":
		return npm(lock, []string{"npm", "ci"}), nil
	}
	if file := j.firstOf("bun.lock", "bun.lockb"); file != "" {
		j.out.note("%s is not read: npm installs without it", file)
	}
	return npm("", []string{"npm", "install"}), nil
}

func npm(lock string, install []string) manager {
	with := func(flag string) []string { return slices.Concat(install, []string{flag}) }
	return manager{lock: lock, production: with("--omit=dev"), everything: with("--include=dev"),
		prune: []string{"npm", "prune", "--omit=dev"}, script: []string{"npm", "run"}}
}

const hintNpx = "it is fetched from the npm registry with npx, since it does not come with Node; npm needs no fetching: npm install, and deploy with package-lock.json"

func (n *nodeApp) pnpm(j *job, lock, wanted, version string) (manager, error) {
	text, _, err := j.fileText(cmp.Or(lock, "pnpm-lock.yaml"))
	if err != nil {
		return manager{}, err
	}
	if wanted != "pnpm" || version == "" {
		version = pnpmVersion(text)
	}
	pnpm := []string{"npx", "--yes", "pnpm@" + version}
	// Links from the store into node_modules would lead to another mount.
	store := []string{"--config.store-dir=" + j.inside(cacheDir) + "/pnpm", "--config.package-import-method=copy"}
	with := func(args ...string) []string { return slices.Concat(pnpm, args) }
	frozen := "--no-frozen-lockfile"
	if lock != "" {
		frozen = "--frozen-lockfile"
	}
	return manager{lock: lock, production: slices.Concat(with("install", frozen, "--prod"), store), everything: slices.Concat(with("install", frozen), store),
		prune: slices.Concat(with("prune", "--prod"), store), script: with("run"), hint: hintNpx}, nil
}

// pnpmVersion is the newest version that reads a lock file and runs on every Node that is still cared for.
func pnpmVersion(lock string) string {
	switch {
	case strings.Contains(lock, "lockfileVersion: '6") || strings.Contains(lock, "lockfileVersion: 6"):
		return "8"
	case strings.Contains(lock, "lockfileVersion: 5"):
		return "7"
	}
	return "9"
}

func (n *nodeApp) yarn(j *job, lock, wanted, version string) (manager, error) {
	text, _, err := j.fileText(cmp.Or(lock, "yarn.lock"))
	if err != nil {
		return manager{}, err
	}
	if wanted != "yarn" {
		version = ""
	}
	if strings.Contains(text, "__metadata:") || version != "" && !strings.HasPrefix(version, "1.") {
		return j.modernYarn(lock, version), nil
	}
	if version == "" {
		version = "1"
	}
	yarn := []string{"npx", "--yes", "yarn@" + version}
	install := []string{"install", "--non-interactive", "--no-progress"}
	if lock != "" {
		install = append(install, "--frozen-lockfile")
	}
	production := slices.Concat(yarn, install, []string{"--production=true"})
	return manager{lock: lock, production: production, everything: slices.Concat(yarn, install, []string{"--production=false"}),
		prune: slices.Concat(production, []string{"--ignore-scripts", "--prefer-offline"}), script: slices.Concat(yarn, []string{"run"}), hint: hintNpx}, nil
}

// modernYarn is yarn from version 2 on, told to fill node_modules as all others do.
func (j *job) modernYarn(lock, version string) manager {
	if version == "" {
		version = "4"
	}
	yarn := []string{"npx", "--yes", "@yarnpkg/cli-dist@" + version}
	with := func(args ...string) []string { return slices.Concat(yarn, args) }
	production := with("workspaces", "focus", "--all", "--production")
	return manager{lock: lock, production: production, everything: with("install"), prune: production, script: with("run"), hint: hintNpx,
		more: []string{"YARN_NODE_LINKER=node-modules", "YARN_ENABLE_TELEMETRY=false", "YARN_ENABLE_PROGRESS_BARS=false",
			"YARN_ENABLE_GLOBAL_CACHE=true", "YARN_GLOBAL_FOLDER=" + j.inside(cacheDir) + "/yarn-berry", fmt.Sprintf("YARN_ENABLE_IMMUTABLE_INSTALLS=%t", lock != "")}}
}
