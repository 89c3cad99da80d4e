package manifest

import (
	"github.com/goccy/go-yaml/ast"
)

// Tree is a value of a YAML text that was read within the bounds of a manifest. It is for files of other tools, which have
// keys that are not ours: nothing in it is checked but the syntax.
type Tree struct{ node ast.Node }

// Field is a key of a mapping, and its value. Lines and columns count from 1 and are the key's.
type Field struct {
	Name         string
	Line, Column int
	Value        Tree
}

// ParseTree reads the only document of a text. An empty text is a Tree that is nothing. The error is an *Error.
func ParseTree(data []byte, file string) (Tree, error) {
	d := &decoder{}
	if len(data) > MaxSize {
		d.report(nil, "", "is larger than %d KB", MaxSize>>10)
		return Tree{}, &Error{File: file, Problems: d.problems}
	}
	body, err := parse(data)
	if err != nil {
		d.syntax(err)
		return Tree{}, &Error{File: file, Problems: d.problems}
	}
	return Tree{body}, nil
}

// Nothing reports whether there is no value, or null.
func (t Tree) Nothing() bool {
	if t.node == nil {
		return true
	}
	_, null := t.node.(*ast.NullNode)
	return null
}

// Fields returns the keys of a mapping in their order; ok is false if the value is something else.
func (t Tree) Fields() (fields []Field, ok bool) {
	if t.node == nil {
		return nil, false
	}
	entries, ok := mapping(t.node)
	for _, entry := range entries {
		name, where := keyOf(entry)
		field := Field{Name: name, Line: 1, Column: 1, Value: Tree{entry.Value}}
		if where != nil {
			field.Line, field.Column = max(where.Line, 1), max(where.Column, 1)
		}
		fields = append(fields, field)
	}
	return fields, ok
}

// Items returns the values of a list; ok is false if the value is something else.
func (t Tree) Items() (items []Tree, ok bool) {
	list, ok := t.node.(*ast.SequenceNode)
	if !ok {
		return nil, false
	}
	for _, item := range list.Values {
		items = append(items, Tree{item})
	}
	return items, true
}

// Text returns a single value as it is written, without quotes; ok is false for lists, mappings and nothing.
func (t Tree) Text() (text string, ok bool) {
	if t.node == nil {
		return "", false
	}
	text, _, ok = scalarText(t.node)
	return text, ok
}

// Block reports whether a text is written over several lines below its key, with | or >.
func (t Tree) Block() bool {
	_, block := t.node.(*ast.LiteralNode)
	return block
}

// Place returns the line and column of the value, which count from 1.
func (t Tree) Place() (line, column int) {
	if t.node == nil {
		return 1, 1
	}
	where := position(t.node)
	if where == nil {
		return 1, 1
	}
	return max(where.Line, 1), max(where.Column, 1)
}
