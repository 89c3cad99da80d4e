package genezio

import (
	"cmp"
	"fmt"
	"math"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/schedule"
)

// packageDir is where Genezio put an app's files; some apps know it by heart.
const packageDir = "/tmp/package"

// serveScript runs an app of WSGI or ASGI, or a script that serves by itself.
const serveScript = lull.RuntimeDir + "/python/serve.py"

func (p *planner) function(name string) function {
	for _, f := range p.file.Backend.Functions {
		if strings.TrimSpace(f.Name.value) == name {
			return f
		}
	}
	return function{}
}

func (p *planner) addFunction(i int) {
	f := p.file.Backend.Functions[i]
	name := strings.TrimSpace(f.Name.value)
	at := f.At
	if f.Name.given() {
		at = f.Name.place
	}
	key := fmt.Sprintf("backend.functions[%d]", i)
	p.parts = append(p.parts, &part{at: at, path: key, what: "function " + name, label: name, runs: true,
		vars: p.file.Backend.Environment, varPath: "backend.environment", build: func(p *planner, part *part) { p.buildFunction(part, f) }})
}

func (p *planner) buildFunction(part *part, f function) {
	b := p.file.Backend
	part.app.Dir = p.dir(b.Path, "backend.path")
	p.dir(text{place: f.Path.place, value: path.Join(b.Path.or("."), f.Path.or("."))}, part.path+".path")
	below, entry := path.Clean(f.Path.or(".")), path.Clean(f.Entry.or("index.js"))
	commands := p.commands(b.Scripts.Deploy, "backend.scripts.deploy")
	part.app.Local = p.commands(b.Scripts.Local, "backend.scripts.local")
	m := &part.app.Manifest
	python := entryLanguage(entry) == "python"
	var build script
	if python {
		build = pythonBuild(part.app.Dir, below, commands)
	} else {
		build = p.nodeBuild(part.app.Dir, below, commands)
	}
	if len(build.commands) > 0 {
		build.setup = append(p.buildEnvironment(part, false), build.setup...)
	}
	m.Build = build.String()
	p.turn(m, f.knobs, part.path)
	if f.Type.or("aws") == "aws" {
		m.Function = lull.DefaultFunction()
		m.Function.Handler = path.Join(below, strings.TrimSuffix(entry, path.Ext(entry))) + "." + f.Handler.or("handler")
		m.Function.Runtime = b.Language.runtime(python)
		if python && (below != "." || m.Build != "") {
			m.Env = map[string]string{"PYTHONPATH": pythonPath(part, lull.TaskDir, below)}
		}
		return
	}
	m.Dir = packageDir
	command := "node " + quote(entry)
	if python {
		if m.Build != "" {
			m.Env = map[string]string{"PYTHONPATH": pythonPath(part, packageDir, below)}
		}
		command = strings.TrimSpace("python3 " + serveScript + " " + quote(entry) + " " + f.Handler.or(""))
	}
	m.Run = inside(below, command)
}

// pythonPath is where a function in a directory of its own finds what lies beside it.
func pythonPath(part *part, root, below string) string {
	here := path.Join(root, below)
	found := []string{here, here + "/packages", root + "/.lull/python"}
	if own := part.app.Environment["PYTHONPATH"]; own != "" {
		found = append([]string{own}, found...)
	}
	return strings.Join(found, ":")
}

// runtime is the name of the language as AWS has it.
func (l language) runtime(python bool) string {
	name := strings.TrimSuffix(l.Runtime.or(""), ".x")
	switch {
	case python && strings.HasPrefix(name, "python"):
		return name
	case python:
		return "python3.11"
	case strings.HasPrefix(name, "nodejs"):
		return name + ".x"
	}
	return "nodejs20.x"
}

var sizes = map[string]lull.Size{"tiny": 256 * lull.MB, "medium": 384 * lull.MB, "large": 512 * lull.MB}

// turn sets a manifest by the knobs, with Genezio's defaults.
func (p *planner) turn(m *lull.Manifest, k knobs, key string) {
	size, ok := sizes[k.Size.or("medium")]
	if !ok {
		p.report(k.Size.place, key+".instanceSize", "is %q: it must be tiny, medium or large", k.Size.value)
	}
	m.Resources.Memory = size
	if k.Memory.given() {
		m.Resources.Memory = lull.Size(k.Memory.value) * lull.MB
	}
	if k.CPU.given() {
		m.Resources.CPU = k.CPU.value
	}
	if k.Storage.given() {
		m.Resources.Disk = lull.Size(k.Storage.value) * lull.MB
	}
	m.Concurrency, m.Scale.Max = k.Concurrency.whole(10), k.Instances.whole(5)
	m.Timeout.Request = milliseconds(60_000)
	if k.Timeout.given() {
		m.Timeout.Request = milliseconds(k.Timeout.value * 1000)
	}
	if k.Cooldown.value > 0 {
		m.Idle.Pause = milliseconds(k.Cooldown.value)
	}
	if k.Health.or("") != "" {
		m.Ready = "/" + strings.TrimLeft(k.Health.or(""), "/")
	}
	if k.Type.or("") == "persistent" {
		m.Scale.Min = 1
	}
}

func (n number) whole(otherwise int) int {
	if !n.given() {
		return otherwise
	}
	return int(math.Floor(n.value))
}

func milliseconds(n float64) lull.Duration { return lull.Duration(n * 1e6) }

// container is built from a Dockerfile; what lies beside it is its context.
func (p *planner) container(part *part) {
	c := p.file.Container
	where, file := path.Clean(c.Path.or(".")), "Dockerfile"
	if has(p.options.Dir, where) {
		where, file = path.Split(where)
	}
	part.app.Dir = p.dir(text{place: c.Path.place, value: where}, "container.path")
	m := &part.app.Manifest
	p.turn(m, c.knobs, part.path)
	m.Dockerfile = file
	data, err := os.ReadFile(filepath.Join(part.app.Dir, file))
	if err != nil {
		p.report(c.Path.place, "container.path", "there is no %s", path.Join(where, file))
		return
	}
	switch ports := exposed(string(data)); len(ports) {
	case 0:
	case 1:
		m.Port = ports[0]
	default:
		p.report(c.Path.place, "container.path", "%s exposes the ports %d and %d: it must be one", path.Join(where, file), ports[0], ports[1])
	}
}

var exposeLine = regexp.MustCompile(`(?im)^\s*EXPOSE\s+(.+)$`)

// exposed lists the different ports that the last stage of a Dockerfile exposes. Those that are given by a variable are not
// known before the build.
func exposed(dockerfile string) []int {
	if from := regexp.MustCompile(`(?im)^\s*FROM\s`).FindAllStringIndex(dockerfile, -1); len(from) > 0 {
		dockerfile = dockerfile[from[len(from)-1][0]:]
	}
	var ports []int
	for _, match := range exposeLine.FindAllStringSubmatch(dockerfile, -1) {
		for word := range strings.FieldsSeq(match[1]) {
			number, kind, _ := strings.Cut(word, "/")
			port, err := strconv.Atoi(number)
			if err == nil && port > 0 && port < 65536 && kind != "udp" && !slices.Contains(ports, port) {
				ports = append(ports, port)
			}
		}
	}
	return ports
}

// frontend is files that are served as they are, once a build has made them.
func (p *planner) frontend(part *part, page frontend) {
	part.app.Dir = p.dir(page.Path, part.path+".path")
	root := path.Clean(page.Publish.or("."))
	commands := p.commands(page.Scripts.Deploy, part.path+".scripts.deploy")
	part.app.Local = p.commands(page.Scripts.Local, part.path+".scripts.local")
	m := &part.app.Manifest
	m.Build = p.pageBuild(part, root, commands).String()
	m.Static = lull.Static{Root: root, Fallback: "/index.html", Redirects: p.redirects(page.Redirects, part.path+".redirects", http.StatusMovedPermanently)}
	m.Static.Rewrites = p.redirects(page.Rewrites, part.path+".rewrites", 0)
	for _, r := range m.Static.Rewrites {
		if strings.Contains(r.To, "://") { // the node serves files only
			p.say("%s: the rewrite of %s to another host becomes a redirect (307): that host must allow requests from this page", part.app.Name, r.From)
		}
	}
}

// pageBuild makes the files in root. Genezio publishes what is there if no script says otherwise; where nothing is, as after
// a checkout, the build of package.json makes it. That is seen on the node, since the files may be left out of the upload.
func (p *planner) pageBuild(part *part, root string, commands []string) script {
	setup := p.buildEnvironment(part, true)
	if len(commands) == 0 {
		switch {
		case readPackage(part.app.Dir).Scripts["build"] == "":
			return script{}
		case root == ".":
			return script{commands: []string{"true"}}
		}
		setup = append(setup, fmt.Sprintf(`if [ -n "$(ls -- %s 2>/dev/null)" ]; then echo %s; exit; fi`, quote(root), quote(root+" is served as it is")))
		commands = []string{"npm run build"}
	}
	build := withTools(part.app.Dir, script{commands: p.installed(part.app.Dir, "", commands)})
	build.setup = append(setup, build.setup...)
	return build
}

// redirects reads a list of rules; those without a status get another.
func (p *planner) redirects(list []redirect, key string, otherwise int) []lull.Redirect {
	var all []lull.Redirect
	for i, r := range list {
		path := fmt.Sprintf("%s[%d]", key, i)
		from, hasFrom := p.fill(r.From, path+".from")
		to, hasTo := p.fill(r.To, path+".to")
		switch {
		case !hasFrom || !hasTo:
			continue
		case from == "" || to == "":
			p.report(r.At, path, "needs from and to")
			continue
		}
		all = append(all, lull.Redirect{From: from, To: to, Status: r.Status.whole(otherwise)})
	}
	return all
}

// directory is a project whose file names nothing to deploy: what the directory holds is found out.
func (p *planner) directory(part *part) {
	p.say(FileName + " names nothing to deploy: the directory is deployed for what it is")
	dir, m := p.options.Dir, &part.app.Manifest
	pkg := readPackage(dir)
	_, vite := mergeVariables(pkg.Dependencies, pkg.DevDependencies)["vite"]
	_, react := pkg.Dependencies["react-scripts"]
	switch {
	case pkg.found && pkg.Scripts["start"] == "" && vite:
		m.Static, m.Build = lull.Static{Root: "dist", Fallback: "/index.html"}, "npm install --include=dev && npx vite build"
	case react:
		m.Static, m.Build = lull.Static{Root: "build", Fallback: "/index.html"}, "npm install --include=dev && npm run build"
	case !pkg.found && has(dir, "index.html") && !slices.ContainsFunc([]string{"requirements.txt", "pyproject.toml", "go.mod", "main.py", "app.py",
		"server.py", "server.js", "index.js", "app.js", "main.js"}, func(name string) bool { return has(dir, name) }):
		m.Static = lull.Static{Root: ".", Fallback: "/index.html"}
	}
	if m.IsStatic() {
		part.runs, m.Env = false, nil
	}
}

// crons gives the apps of functions their schedules.
func (p *planner) crons() {
	var functions []string
	byName := map[string]*part{}
	for _, part := range p.parts {
		if name, ok := strings.CutPrefix(part.what, "function "); ok {
			functions, byName[name] = append(functions, name), part
		}
	}
	for i, c := range p.file.Services.Crons {
		key := fmt.Sprintf("services.crons[%d]", i)
		name, hasName := p.fill(c.Function, key+".function")
		cron, hasCron := p.fill(c.Schedule, key+".schedule")
		endpoint, hasEndpoint := p.fill(c.Endpoint, key+".endpoint")
		if !hasName || !hasCron || !hasEndpoint {
			continue
		}
		part := byName[name]
		if part == nil {
			p.report(c.Function.orPlace(c.At), key+".function", "there is no function %q: there are %s", name, cmp.Or(strings.Join(functions, ", "), "none"))
			continue
		}
		m := &part.app.Manifest
		s := lull.Schedule{Name: appName(c.Name.or("cron"), ""), Method: "POST", Cron: cron, Path: "/" + strings.TrimLeft(endpoint, "/")}
		if slices.ContainsFunc(m.Schedules, func(other lull.Schedule) bool { return other.Name == s.Name }) {
			s.Name = appName(c.Name.or("cron"), key)
		}
		if _, err := schedule.Parse(s); err != nil || len(strings.Fields(s.Cron)) != 5 {
			p.report(c.Schedule.orPlace(c.At), key+".schedule", "is %q: it must be five fields, such as \"*/5 * * * *\"", s.Cron)
			continue
		}
		m.Schedules = append(m.Schedules, s)
	}
}

// orPlace is where the text stands, or where it is missing.
func (t text) orPlace(other place) place {
	if t.given() {
		return t.place
	}
	return other
}
