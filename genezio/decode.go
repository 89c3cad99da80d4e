package genezio

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/lull-dev/lull/manifest"
)

// place is where something stands in the file; lines and columns count from 1.
type place struct{ line, column int }

// text is a single value and its place. It is not there if its line is 0.
type text struct {
	place
	value string
	block bool // written below its key, so that its own lines follow the place
}

func (t text) given() bool { return t.line > 0 }

// or returns the text, or another if it is not there or empty.
func (t text) or(other string) string { return cmp.Or(strings.TrimSpace(t.value), other) }

// number is a number and its place.
type number struct {
	place
	value float64
}

func (n number) given() bool { return n.line > 0 }

// lines is a text or a list of them: commands, one after the other.
type lines []text

// presence says that there is something, whatever it is.
type presence struct{ place }

// variable is an entry of an environment.
type variable struct{ name, value text }

// mistakes collects what is wrong with the file.
type mistakes struct{ problems []manifest.Problem }

func (m *mistakes) report(at place, path, format string, args ...any) {
	m.problems = append(m.problems, manifest.Problem{Line: max(at.line, 1), Column: max(at.column, 1), Path: path, Message: fmt.Sprintf(format, args...)})
}

// err returns everything that was reported, in order of the lines; nil if nothing was.
func (m *mistakes) err() error {
	if len(m.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(m.problems, func(a, b manifest.Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return &manifest.Error{File: FileName, Problems: slices.Compact(m.problems)}
}

func placeOf(t manifest.Tree) place {
	line, column := t.Place()
	return place{line, column}
}

// decoder fills structs by the names in their yaml tags. Keys that no field has are passed over, as Genezio does; those at
// the top are remembered.
type decoder struct {
	mistakes
	keys []string // at the top, whether known or not
}

func (d *decoder) object(v reflect.Value, tree manifest.Tree, path string) {
	fields, ok := tree.Fields()
	if !ok {
		d.report(placeOf(tree), path, "must be a group of keys")
		return
	}
	seen := map[string]int{}
	for _, field := range fields {
		full := strings.TrimPrefix(path+"."+field.Name, ".")
		if line, twice := seen[field.Name]; twice {
			d.report(place{field.Line, field.Column}, full, "is given twice; the first is on line %d", line)
			continue
		}
		seen[field.Name] = field.Line
		if path == "" {
			d.keys = append(d.keys, field.Name)
		}
		if target := fieldNamed(v, field.Name); target.IsValid() && !field.Value.Nothing() {
			d.value(target, field.Value, full)
		}
	}
	if at := fieldNamed(v, ""); at.IsValid() {
		at.Set(reflect.ValueOf(placeOf(tree)))
	}
}

// fieldNamed returns the field with that name in its tag; the field without one is the place of the whole.
func fieldNamed(v reflect.Value, name string) reflect.Value {
	for i := range v.NumField() {
		field := v.Type().Field(i)
		if field.Anonymous && field.Type != reflect.TypeFor[place]() {
			if inner := fieldNamed(v.Field(i), name); inner.IsValid() && name != "" {
				return inner
			}
			continue
		}
		if tag, tagged := field.Tag.Lookup("yaml"); tagged && tag == name {
			return v.Field(i)
		}
	}
	return reflect.Value{}
}

func (d *decoder) value(v reflect.Value, tree manifest.Tree, path string) {
	switch target := v.Addr().Interface().(type) {
	case *text:
		*target = d.text(tree, path)
	case *number:
		*target = d.number(tree, path)
	case *lines:
		*target = d.lines(tree, path)
	case *presence:
		*target = presence{placeOf(tree)}
	case *[]variable:
		*target = d.variables(tree, path)
	default:
		switch v.Kind() {
		case reflect.Pointer:
			v.Set(reflect.New(v.Type().Elem()))
			d.object(v.Elem(), tree, path)
		case reflect.Slice:
			d.list(v, tree, path)
		case reflect.Struct:
			d.object(v, tree, path)
		}
	}
}

func (d *decoder) text(tree manifest.Tree, path string) text {
	value, ok := tree.Text()
	if !ok {
		d.report(placeOf(tree), path, "must be text")
		return text{}
	}
	if strings.ContainsRune(value, 0) {
		d.report(placeOf(tree), path, "holds a NUL byte")
		value = ""
	}
	return text{place: placeOf(tree), value: value, block: tree.Block()}
}

func (d *decoder) number(tree manifest.Tree, path string) number {
	value, ok := tree.Text()
	parsed, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
	// The bound keeps every product with a unit, in nanoseconds or bytes, within 64 bits.
	if !ok || err != nil || !(parsed >= 0 && parsed <= 1e9) {
		d.report(placeOf(tree), path, "must be a number, 0 or more")
		return number{}
	}
	return number{place: placeOf(tree), value: parsed}
}

func (d *decoder) lines(tree manifest.Tree, path string) lines {
	items, ok := tree.Items()
	if !ok {
		items = []manifest.Tree{tree}
	}
	var all lines
	for _, item := range items {
		if item.Nothing() {
			continue
		}
		if line := d.text(item, path); strings.TrimSpace(line.value) != "" {
			all = append(all, line)
		}
	}
	return all
}

func (d *decoder) variables(tree manifest.Tree, path string) []variable {
	fields, ok := tree.Fields()
	if !ok {
		d.report(placeOf(tree), path, "must be names and values")
		return nil
	}
	var all []variable
	for _, field := range fields {
		at := place{field.Line, field.Column}
		full := path + "." + field.Name
		if slices.ContainsFunc(all, func(v variable) bool { return v.name.value == field.Name }) {
			d.report(at, full, "is given twice")
			continue
		}
		value := text{place: at} // nothing is the empty text
		if !field.Value.Nothing() {
			value = d.text(field.Value, full)
		}
		all = append(all, variable{name: text{place: at, value: field.Name}, value: value})
	}
	return all
}

// list reads a list of groups; a single group counts as a list of one.
func (d *decoder) list(v reflect.Value, tree manifest.Tree, path string) {
	items, ok := tree.Items()
	if !ok {
		items = []manifest.Tree{tree}
	}
	v.Set(reflect.MakeSlice(v.Type(), len(items), len(items)))
	for i, item := range items {
		d.object(v.Index(i), item, fmt.Sprintf("%s[%d]", path, i))
	}
}
