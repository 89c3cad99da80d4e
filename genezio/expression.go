package genezio

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// names are what expressions can name, and the values: all but env.X and the addresses of databases, which are looked up.
type names struct {
	values    map[string]string
	databases map[string]string // variable that holds the address, by the database's name
	lookup    func(variable string) (string, bool)
}

// result is a text with its expressions filled in.
type result struct {
	text    string
	secret  bool   // it holds something from outside of the file
	missing string // a variable that has no value here
}

// fill replaces the expressions in a text. It reports those that name nothing.
func (n *names) fill(t text, path string, m *mistakes) result {
	var out strings.Builder
	var r result
	rest, offset := t.value, 0
	for {
		before, after, found := strings.Cut(rest, "${{")
		out.WriteString(before)
		if !found {
			break
		}
		at := t.at(offset + len(before))
		inner, tail, closed := strings.Cut(after, "}}")
		if !closed {
			m.report(at, path, "an expression begins with ${{ and does not end with }}")
			break
		}
		value, problem := n.value(strings.TrimSpace(inner), &r)
		if problem != "" {
			m.report(at, path, "%s", problem)
		}
		out.WriteString(value)
		offset += len(before) + len("${{") + len(inner) + len("}}")
		rest = tail
	}
	r.text = out.String()
	return r
}

// at is the place of a byte of the text. Quotes and escapes are not counted: it is near enough.
func (t text) at(offset int) place {
	before := t.value[:offset]
	breaks := strings.Count(before, "\n")
	switch {
	case t.block:
		return place{t.line + 1 + breaks, 1}
	case breaks > 0:
		return place{t.line + breaks, 1}
	}
	return place{t.line, t.column + offset}
}

// value looks an expression up. problem says why it names nothing.
func (n *names) value(name string, r *result) (value, problem string) {
	if variable, ok := strings.CutPrefix(name, "env."); ok && variable != "" {
		return n.variable(variable, r), ""
	}
	if database, ok := strings.CutPrefix(name, "services.databases."); ok {
		if variable := n.databases[strings.TrimSuffix(database, ".uri")]; variable != "" && strings.HasSuffix(database, ".uri") {
			return n.variable(variable, r), ""
		}
	}
	if value, ok := n.values[name]; ok {
		return value, ""
	}
	return "", fmt.Sprintf("${{ %s }} names nothing: there are %s", name, strings.Join(n.near(name), ", "))
}

func (n *names) variable(name string, r *result) string {
	value, ok := n.lookup(name)
	if r.secret = true; !ok {
		r.missing = name
	}
	return value
}

// near lists the known names that begin as a wrong one does; all, if none does.
func (n *names) near(wrong string) []string {
	all := slices.Collect(maps.Keys(n.values))
	for database := range n.databases {
		all = append(all, "services.databases."+database+".uri")
	}
	slices.Sort(all)
	first, _, _ := strings.Cut(wrong, ".")
	var near []string
	for _, name := range all {
		if strings.HasPrefix(name, first+".") {
			near = append(near, name)
		}
	}
	if len(near) == 0 {
		near = append(all, "env.NAME")
	}
	return near
}

// databaseVariable is the variable that an app finds the address of a database in.
func databaseVariable(name string) string {
	upper := strings.Map(func(c rune) rune {
		switch {
		case 'a' <= c && c <= 'z':
			return c - 'a' + 'A'
		case 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
			return c
		}
		return '_'
	}, name)
	if upper != "" && '0' <= upper[0] && upper[0] <= '9' {
		upper = "_" + upper
	}
	return upper + "_DATABASE_URL"
}
