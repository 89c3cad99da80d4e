package genezio

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/manifest"
)

// DefaultStage is the stage that adds nothing to the names of apps.
const DefaultStage = "prod"

// Options are what a plan depends on besides the file.
type Options struct {
	Dir   string // the project's directory, absolute
	Name  string // of the project, instead of the file's
	Stage string // "" is DefaultStage

	// URL is where an app is reached, with <app> for its name, such as http://<app>.localhost:8080/.
	URL string

	Getenv func(string) string // the environment of the process; nil: there is none
	Env    map[string]string   // of the file that was given with --env: seen by expressions, and given to everything that runs

	// Variables lists the names of the variables and secrets that an app has on its node. nil: it has none.
	Variables func(app string) ([]string, error)

	// Template plans without values from outside: what depends on one is left out, and a note says so.
	Template bool
}

// Plan is what a project becomes.
type Plan struct {
	Project string // name of the project, as the apps' names begin
	Stage   string
	Apps    []App
	Notes   []string // for people: what of the file has no meaning here, and the like; one line each
}

// App is one app of a plan.
type App struct {
	Name     string
	What     string // what of the file it is, such as: function api
	URL      string
	Dir      string        // absolute; the directory that is uploaded
	Ignore   string        // rules of the project's .genezioignore that apply below Dir, if Dir is not the project's own
	Manifest lull.Manifest // complete and valid, with the name

	Environment map[string]string // what it runs with here, when it is developed
	Local       []string          // scripts.local: commands that prepare it for that
}

// part is an app in the making.
type part struct {
	at      place
	path    string // its key in the file
	what    string
	label   string // what its name ends with; "" is nothing
	own     text   // a subdomain, which is the name then
	app     App
	vars    []variable
	varPath string
	runs    bool // it has a process, and so an environment
	build   func(*planner, *part)
}

// planner makes one plan.
type planner struct {
	mistakes
	file    *File
	options Options
	names   names
	parts   []*part
	plan    Plan
	known   map[string][]string // variables on the node, by app
	failure error               // of the node
}

// Plan says what the project becomes. Its errors are a *manifest.Error, with everything that is wrong and where, or those
// of Options.Variables.
func (f *File) Plan(o Options) (Plan, error) {
	p := &planner{file: f, options: o, known: map[string][]string{}}
	p.plan.Stage = cmp.Or(o.Stage, DefaultStage)
	p.plan.Project = cmp.Or(o.Name, strings.TrimSpace(f.Name.value))
	p.collect()
	p.name()
	p.collectNames()
	for _, part := range p.parts {
		p.finish(part)
	}
	p.crons()
	p.check()
	p.note()
	if p.failure != nil {
		return Plan{}, p.failure
	}
	if err := p.err(); err != nil {
		return Plan{}, err
	}
	for _, part := range p.parts {
		p.plan.Apps = append(p.plan.Apps, part.app)
	}
	return p.plan, nil
}

// collect lists everything that is to be deployed.
func (p *planner) collect() {
	f := p.file
	if f.Backend != nil {
		for i := range f.Backend.Functions {
			p.addFunction(i)
		}
	}
	if f.Container != nil {
		p.parts = append(p.parts, &part{at: f.Container.At, path: "container", what: "container", label: "container", runs: true,
			vars: f.Container.Environment, varPath: "container.environment", build: (*planner).container})
	}
	for _, found := range f.frameworks {
		p.parts = append(p.parts, &part{at: found.At, path: found.kind, what: found.kind, label: found.kind, own: found.Subdomain, runs: true,
			vars: found.Environment, varPath: found.kind + ".environment", build: func(p *planner, part *part) { p.framework(part, found) }})
	}
	for i, page := range f.Frontends {
		path := fmt.Sprintf("frontend[%d]", i)
		label := page.Name.or("frontend")
		p.parts = append(p.parts, &part{at: page.At, path: path, what: strings.TrimSpace("frontend " + page.Name.value), label: label, own: page.Subdomain,
			vars: page.Environment, varPath: path + ".environment", build: func(p *planner, part *part) { p.frontend(part, page) }})
	}
	if len(p.parts) == 0 && (f.Backend == nil || len(f.Backend.Classes) == 0) {
		p.parts = append(p.parts, &part{what: "the directory", runs: true, build: (*planner).directory})
	}
}

// name gives every part the name of its app, and its URL. Names follow from the file alone, so that each deploy finds the
// apps of the one before.
func (p *planner) name() {
	taken := map[string]bool{}
	for _, part := range p.parts {
		words := []string{p.plan.Project, part.label}
		switch {
		case part.own.given() && lull.ValidName(strings.ToLower(part.own.or(""))):
			words = []string{strings.ToLower(part.own.or(""))}
		case len(p.parts) == 1:
			words = words[:1]
		}
		if p.plan.Stage != DefaultStage {
			words = append(words, p.plan.Stage)
		}
		name := appName(strings.Join(words, "-"), "")
		if taken[name] {
			name = appName(strings.Join(words, "-"), part.path)
		}
		taken[name] = true
		part.app.Name, part.app.What = name, part.what
		part.app.URL = strings.ReplaceAll(p.options.URL, "<app>", name)
	}
}

// appName makes a valid name of a text. One that is too long is cut and ends with a hash of the whole, as does one that
// must differ from another for the sake of distinct.
func appName(text, distinct string) string {
	var name []byte
	for _, c := range []byte(strings.ToLower(text)) {
		letter := 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
		switch {
		case letter:
			name = append(name, c)
		case len(name) > 0 && name[len(name)-1] != '-':
			name = append(name, '-')
		}
	}
	plain := cmp.Or(strings.Trim(string(name), "-"), "app")
	if len(plain) <= 40 && distinct == "" {
		return plain
	}
	sum := sha256.Sum256([]byte(text + "\x00" + distinct))
	return strings.TrimRight(plain[:min(len(plain), 33)], "-") + "-" + hex.EncodeToString(sum[:3])
}

// collectNames makes what expressions can name.
func (p *planner) collectNames() {
	values := map[string]string{"projectName": p.plan.Project, "stage": p.plan.Stage}
	for _, part := range p.parts {
		url := strings.TrimRight(part.app.URL, "/")
		if name, ok := strings.CutPrefix(part.what, "function "); ok {
			f := p.function(name)
			prefix := "backend.functions." + name + "."
			for key, value := range map[string]string{"url": url, "name": name, "path": f.Path.or("."), "handler": f.Handler.or(""),
				"entry": f.Entry.or(""), "type": f.Type.or("aws")} {
				values[prefix+key] = value
			}
		}
		if name, ok := strings.CutPrefix(part.what, "frontend "); ok {
			values["frontend."+name+".subdomain"], values["frontend."+name+".url"] = part.app.Name, url
		}
	}
	p.names = names{values: values, databases: map[string]string{}, lookup: p.lookup}
	for i, db := range p.file.Services.Databases {
		if name := strings.TrimSpace(db.Name.value); name != "" {
			p.names.databases[name] = databaseVariable(name)
		} else {
			p.report(db.At, fmt.Sprintf("services.databases[%d].name", i), "is missing")
		}
	}
}

// lookup finds a variable: in the process first, then in the file that was given.
func (p *planner) lookup(name string) (string, bool) {
	if p.options.Getenv != nil {
		if value := p.options.Getenv(name); value != "" {
			return value, true
		}
	}
	value, ok := p.options.Env[name]
	return value, ok
}

// fill replaces the expressions in a text. ok is false if one has no value here, which is reported, or noted for a template.
func (p *planner) fill(t text, path string) (filled string, ok bool) {
	r := p.names.fill(t, path, &p.mistakes)
	switch {
	case r.missing == "":
	case p.options.Template:
		p.say("%s needs %s, which is not set: complete it by hand", path, r.missing)
	default:
		p.report(t.place, path, "%s is not set: %s", r.missing, howToSet(r.missing))
	}
	return strings.TrimSpace(r.text), r.missing == ""
}

// onNode reports whether an app has a variable or secret of that name on its node.
func (p *planner) onNode(app, name string) bool {
	if p.options.Variables == nil {
		return false
	}
	known, asked := p.known[app]
	if !asked {
		var err error
		if known, err = p.options.Variables(app); err != nil && p.failure == nil {
			p.failure = fmt.Errorf("read the variables of %s: %w", app, err)
		}
		p.known[app] = known
	}
	return slices.Contains(known, name)
}

// finish completes a part: its environment first, then what its kind makes of it.
func (p *planner) finish(part *part) {
	part.app.Dir = p.options.Dir
	part.app.Manifest = lull.DefaultManifest()
	part.app.Manifest.Name = part.app.Name
	part.app.Environment = p.environment(part)
	part.build(p, part)
	m := &part.app.Manifest
	if part.runs {
		m.Env = mergeVariables(part.app.Environment, m.Env)
	}
	part.app.Ignore = p.ignore(part.app.Dir)
}

func mergeVariables(under, over map[string]string) map[string]string {
	merged := map[string]string{}
	for _, variables := range []map[string]string{under, over} {
		for name, value := range variables {
			merged[name] = value
		}
	}
	if len(merged) == 0 {
		return nil
	}
	return merged
}

// dir is a directory of the project. It must be there.
func (p *planner) dir(path text, key string) string {
	dir := filepath.Join(p.options.Dir, filepath.FromSlash(path.or(".")))
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		p.report(path.place, key, "there is no directory %s", path.or("."))
	}
	return dir
}

// check validates the manifests: what is wrong with one stands where its part is, since its keys are not the file's.
func (p *planner) check() {
	for _, part := range p.parts {
		for _, problem := range manifest.Check(part.app.Manifest) {
			p.report(part.at, part.path, "%s %s", problem.Path, problem.Message)
		}
	}
}

// say adds a note, once: functions share their scripts.
func (p *planner) say(format string, args ...any) {
	if note := fmt.Sprintf(format, args...); !slices.Contains(p.plan.Notes, note) {
		p.plan.Notes = append(p.plan.Notes, note)
	}
}

// note says what of the file has no meaning here.
func (p *planner) note() {
	for _, key := range p.file.unasked {
		p.say("%s has no meaning here: everything runs on this node", key)
	}
	if p.file.Services.Email.line > 0 {
		p.say("services.email is not provided here: give the app the address of a mail server in its environment")
	}
	if p.file.Services.Auth.line > 0 {
		p.say("services.authentication is not provided here")
	}
	if b := p.file.Backend; b != nil && len(b.Classes) > 0 && len(b.Functions) > 0 {
		p.say("backend.classes is passed over: Genezio's typed classes need its own compiler")
	}
}

// ignore returns the rules of the project's .genezioignore as they apply to a directory in it. In the project's own
// directory the file itself is read when it is packed.
func (p *planner) ignore(dir string) string {
	below, err := filepath.Rel(p.options.Dir, dir)
	if err != nil || below == "." {
		return ""
	}
	data, err := os.ReadFile(filepath.Join(p.options.Dir, IgnoreFile))
	if err != nil || len(data) > maxIgnore {
		return ""
	}
	return rulesBelow(string(data), filepath.ToSlash(below))
}

// maxIgnore bounds an ignore file: every line is tried on every file.
const maxIgnore = 256 << 10

// rulesBelow rewrites the rules of a directory for another one in it. Rules with a slash are from the top: they stay only if
// they lead there.
func rulesBelow(rules, below string) string {
	var kept strings.Builder
	for line := range strings.Lines(rules) {
		line = strings.TrimSpace(line)
		rule, negated := strings.CutPrefix(line, "!")
		body := strings.TrimPrefix(rule, "./")
		if strings.Contains(strings.TrimSuffix(body, "/"), "/") && !strings.HasPrefix(body, "**/") {
			inner, leads := strings.CutPrefix(strings.TrimPrefix(body, "/"), below+"/")
			if !leads || inner == "" {
				continue
			}
			body = "/" + inner
		}
		if body == "" || strings.HasPrefix(body, "#") {
			continue
		}
		if negated {
			body = "!" + body
		}
		kept.WriteString(body + "\n")
	}
	return kept.String()
}
