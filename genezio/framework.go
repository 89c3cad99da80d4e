package genezio

import (
	"path"
	"regexp"
)

// frameworkBuild says how a framework is built, if the project's own scripts do not, and started.
type frameworkBuild struct {
	compile string // "" needs nothing
	start   string
	own     bool // the start script of package.json goes before
}

var frameworks = map[string]frameworkBuild{
	"nextjs": {compile: "npx next build", start: "node_modules/.bin/next start", own: true},
	"nestjs": {compile: "npx nest build", start: "node dist/main.js"},
	"remix":  {compile: "npm run build", start: "node_modules/.bin/remix-serve ./build/server/index.js", own: true},
	// Genezio made functions of these, and put the files they come with on a server of its own. As servers they have both.
	"nuxt":  {compile: "npx nuxi build", start: nitroStart},
	"nitro": {compile: "npx nitropack build", start: nitroStart},
}

// What Nitro, which Nuxt is built on, is told to make, whatever the project's own settings say, and how that is started.
const (
	nitroPreset = "node-server"
	nitroStart  = "node .output/server/index.mjs"
)

// compiles fits a script that builds, so that it need not be done a second time.
var compiles = regexp.MustCompile(`\bbuild\b|\btsc\b`)

// framework makes an app of a web framework: a server on the port it is told.
func (p *planner) framework(part *part, f framework) {
	part.app.Dir = p.dir(f.Path, part.path+".path")
	commands := p.commands(f.Scripts.Deploy, part.path+".scripts.deploy")
	part.app.Local = p.commands(f.Scripts.Local, part.path+".scripts.local")
	m := &part.app.Manifest
	p.turn(m, f.knobs, part.path)
	if f.kind == "streamlit" {
		p.streamlit(part, f, commands)
		return
	}
	how := frameworks[f.kind]
	pkg := readPackage(part.app.Dir)
	commands = p.installed(part.app.Dir, f.Manager.or(""), commands)
	if len(commands) == 0 {
		commands = []string{p.installer(part.app.Dir, f.Manager.or("")).all}
	}
	if !mentionsBuild(commands) {
		commands = append(commands, how.compile)
	}
	build := withTools(part.app.Dir, script{commands: commands})
	if how.start == nitroStart {
		build.setup = append(build.setup, "export NITRO_PRESET="+nitroPreset)
	}
	build.setup = append(p.buildEnvironment(part, false), build.setup...)
	m.Build = build.String()
	m.Run, m.Dir = how.start, packageDir
	if how.own && pkg.Scripts["start"] != "" {
		m.Run = "npm start"
	}
}

func mentionsBuild(commands []string) bool {
	for _, command := range commands {
		if compiles.MatchString(command) {
			return true
		}
	}
	return false
}

func (p *planner) streamlit(part *part, f framework, commands []string) {
	m := &part.app.Manifest
	m.Build = pythonBuild(part.app.Dir, ".", commands).String()
	m.Dir = packageDir
	m.Run = "python3 -m streamlit run " + quote(path.Clean(f.Entry.or("app.py"))) +
		" --server.port $PORT --server.address 0.0.0.0 --server.headless true --browser.gatherUsageStats false"
	if m.Build != "" {
		m.Env = map[string]string{"PYTHONPATH": pythonPath(part, packageDir, ".")}
	}
}
