package manifest

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/lull-dev/lull"
)

// value reads node into v, whose type says what is wanted.
func (d *decoder) value(v reflect.Value, node ast.Node, path string) {
	entries, isMapping := mapping(node)
	if !isMapping || v.Kind() != reflect.Struct {
		d.at[path] = position(node)
	}
	if v.Kind() == reflect.Struct {
		if !isMapping {
			d.report(position(node), path, "must be a group of keys: %s", strings.Join(names(v), ", "))
			return
		}
		d.object(v, entries, path)
		return
	}
	if v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Struct {
		d.groups(v, node, path)
		return
	}
	if _, null := node.(*ast.NullNode); null {
		d.report(position(node), path, "has no value: give it one or leave the key out")
		return
	}
	switch target := v.Addr().Interface().(type) {
	case *lull.Egress:
		d.egress(target, node, path)
	case *[]string:
		d.list(target, node, path)
	case *map[string]string:
		d.variables(target, node, path)
	default:
		d.scalar(target, node, path)
	}
}

// scalar reads a single value.
func (d *decoder) scalar(target any, node ast.Node, path string) {
	text, isText, ok := scalarText(node)
	if !ok {
		d.report(position(node), path, "must be %s", wanted(target))
		return
	}
	var err error
	switch target := target.(type) {
	case *string:
		switch {
		case !isText:
			err = fmt.Errorf("must be text: write %q, in quotes", text)
		case strings.ContainsRune(text, 0):
			err = fmt.Errorf("holds a NUL byte")
		}
		*target = text
	case *int:
		*target, err = number(text, isText, target, *target, strconv.Atoi)
	case *bool:
		if value, parseErr := strconv.ParseBool(text); parseErr == nil && !isText && (text == "true" || text == "false") {
			*target = value
		} else {
			err = fmt.Errorf("is %q: it must be true or false", text)
		}
	case *float64:
		parse := func(s string) (float64, error) { return strconv.ParseFloat(s, 64) }
		*target, err = number(text, isText, target, *target, parse)
	case *lull.Size:
		*target, err = keep(*target)(lull.ParseSize(text))
	case *lull.Duration:
		*target, err = keep(*target)(lull.ParseDuration(text))
	default:
		err = fmt.Errorf("cannot be read by this version (%T)", target)
	}
	if err != nil {
		d.report(position(node), path, "%s", err)
	}
}

// number reads a number that is not written as text; it returns old if it cannot.
func number[T int | float64](text string, isText bool, target any, old T, parse func(string) (T, error)) (T, error) {
	value, err := parse(text)
	switch {
	case err != nil || value != value:
		return old, fmt.Errorf("is %q: it must be %s", text, wanted(target))
	case isText:
		return old, fmt.Errorf("is text: leave out the quotes, %s", text)
	}
	return value, nil
}

// keep replaces a value that could not be parsed by the old one.
func keep[T any](old T) func(T, error) (T, error) {
	return func(value T, err error) (T, error) {
		if err != nil {
			return old, err
		}
		return value, nil
	}
}

func wanted(target any) string {
	switch target.(type) {
	case *int:
		return "a whole number"
	case *bool:
		return "true or false"
	case *float64:
		return "a number"
	case *lull.Size:
		return "a size, such as 256MB"
	case *lull.Duration:
		return "a duration, such as 500ms, 2s, 5m, 7d"
	}
	return "text"
}

// scalarText returns a single value as it is written, and whether it is text rather than a number, true or false. ok is
// false for lists, mappings and nothing.
func scalarText(node ast.Node) (text string, isText, ok bool) {
	switch node := node.(type) {
	case *ast.StringNode:
		return node.Value, true, true
	case *ast.LiteralNode:
		return node.Value.Value, true, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return node.GetToken().Value, false, true
	}
	return "", false, false
}

// variables reads env. Numbers and booleans become the text they are written as: a process knows nothing else.
func (d *decoder) variables(target *map[string]string, node ast.Node, path string) {
	entries, ok := mapping(node)
	if !ok {
		d.report(position(node), path, "must be names and values, such as {LOG: debug}")
		return
	}
	*target = map[string]string{}
	for _, entry := range entries {
		name, where := keyOf(entry)
		full := join(path, name)
		text, _, ok := scalarText(entry.Value)
		_, twice := (*target)[name]
		switch {
		case twice:
			d.report(where, full, "is given twice; the first is on line %d", d.at[full].Line)
		case !ok && entry.Value.Type() == ast.NullType:
			d.report(where, full, `has no value: write "" if it is meant to be empty`)
		case !ok:
			d.report(position(entry.Value), full, "must be text")
		default:
			d.at[full] = where
			(*target)[name] = text
		}
	}
}

// egress reads one word or a list.
func (d *decoder) egress(target *lull.Egress, node ast.Node, path string) {
	if text, isText, ok := scalarText(node); ok && isText {
		d.at[path+"[0]"] = position(node)
		*target = lull.Egress{text}
		return
	}
	items := []string{}
	if _, ok := node.(*ast.SequenceNode); !ok {
		d.report(position(node), path, "must be internet, none or a list, such as [db.example.com:5432]")
		return
	}
	d.list(&items, node, path)
	if len(items) == 0 {
		d.report(position(node), path, "is empty: write none")
		return
	}
	*target = items
}

// groups reads a list of groups of keys.
func (d *decoder) groups(v reflect.Value, node ast.Node, path string) {
	sequence, ok := node.(*ast.SequenceNode)
	if !ok {
		element := reflect.New(v.Type().Elem()).Elem()
		d.report(position(node), path, "must be a list, each with some of %s", strings.Join(names(element), ", "))
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(sequence.Values), len(sequence.Values)))
	for i, item := range sequence.Values {
		full := fmt.Sprintf("%s[%d]", path, i)
		d.at[full] = position(item)
		d.value(v.Index(i), item, full)
	}
}

func (d *decoder) list(target *[]string, node ast.Node, path string) {
	sequence, ok := node.(*ast.SequenceNode)
	if !ok {
		d.report(position(node), path, "must be a list, such as [a, b]")
		return
	}
	*target = make([]string, len(sequence.Values)) // an item that cannot be read keeps its place, so that paths fit
	for i, item := range sequence.Values {
		full := fmt.Sprintf("%s[%d]", path, i)
		text, isText, ok := scalarText(item)
		if !ok || !isText {
			d.report(position(item), full, "must be text")
			continue
		}
		d.at[full] = position(item)
		(*target)[i] = text
	}
}
