package genezio

import (
	"fmt"
	"strings"

	"github.com/lull-dev/lull"
)

// environment is what a part runs with: the file given with --env, the databases' addresses, and what the part itself says,
// the later over the earlier. What has no value here but one on the node is left to the node.
func (p *planner) environment(part *part) map[string]string {
	env := map[string]string{}
	if part.runs {
		for name, value := range p.options.Env {
			env[name] = value
		}
		p.databases(part, env)
	}
	for _, v := range part.vars {
		name, path := v.name.value, part.varPath+"."+v.name.value
		r := p.names.fill(v.value, path, &p.mistakes)
		switch {
		case r.missing == "":
			env[name] = r.text
		case p.options.Template:
			delete(env, name)
			p.leftOut(part, name, v.value.value)
		case part.runs && p.onNode(part.app.Name, name):
			delete(env, name)
		default:
			p.report(v.value.place, path, "%s is not set: %s", r.missing, howToSet(r.missing))
		}
	}
	return env
}

func (p *planner) leftOut(part *part, name, value string) {
	p.say("%s is left out of %s: set it under env (it was %s)", name, part.app.Name, strings.TrimSpace(value))
}

func howToSet(variable string) string {
	return fmt.Sprintf("set %s in the environment of this command or in a file that is given with --env", variable)
}

// databases adds the addresses of the databases, which the operator supplies.
func (p *planner) databases(part *part, env map[string]string) {
	for i, db := range p.file.Services.Databases {
		name := p.names.databases[strings.TrimSpace(db.Name.value)]
		if name == "" {
			continue
		}
		if value, ok := p.lookup(name); ok {
			env[name] = value
			continue
		}
		given := false // by the part's own environment
		for _, v := range part.vars {
			given = given || v.name.value == name
		}
		switch {
		case given:
		case p.options.Template:
			p.leftOut(part, name, "the address of the database "+db.Name.value)
		case !p.onNode(part.app.Name, name):
			p.report(db.Name.place, fmt.Sprintf("services.databases[%d]", i), "the database %s has no address: %s", db.Name.value, howToSet(name))
		}
	}
}

// public are the beginnings of variables that a build puts into what browsers get.
var public = []string{"NEXT_PUBLIC_", "NUXT_PUBLIC_", "VITE_", "PUBLIC_", "REACT_APP_", "GATSBY_", "EXPO_PUBLIC_"}

// buildEnvironment are the lines of a script that give a build the part's own environment, since builds do not see that of
// the app. The script is kept and printed: what comes from outside of the file is in it only if it is meant for everybody.
func (p *planner) buildEnvironment(part *part, all bool) []string {
	var exports []string
	for _, v := range part.vars {
		name := v.name.value
		var nothing mistakes // it was reported before
		r := p.names.fill(v.value, "", &nothing)
		forAll := all
		for _, prefix := range public {
			forAll = forAll || strings.HasPrefix(name, prefix)
		}
		if (!r.secret || forAll) && r.missing == "" && shellName(name) {
			exports = append(exports, "export "+name+"="+quote(r.text))
		}
	}
	return exports
}

func shellName(name string) bool {
	m := lull.DefaultManifest()
	m.Env = map[string]string{name: ""}
	return m.Validate() == nil
}

// quote writes a word for a shell.
func quote(word string) string {
	plain := word != "" && strings.Trim(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./@:=+,%") == ""
	if plain {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
