package manifest

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/lull-dev/lull"
)

// The parser's time grows with the square of the number of tokens, and it recurses. These bounds are far above any
// manifest (5,000 variables are 15,000 tokens) and keep the worst text under a second.
const (
	maxTokens = 20_000
	maxDepth  = 32
)

// decoder fills a manifest from a syntax tree and collects what is wrong on the way.
type decoder struct {
	manifest lull.Manifest
	problems []Problem
	at       map[string]*token.Position // where each key's value stands, by path
	located  bool                       // the text is YAML with a mapping at its top, so that paths have places
}

// decode reads what it can; it never fails as a whole.
func decode(data []byte) *decoder {
	d := &decoder{manifest: lull.DefaultManifest(), at: map[string]*token.Position{}}
	if len(data) > MaxSize {
		d.report(nil, "", "is larger than %s", lull.Size(MaxSize))
		return d
	}
	body, err := parse(data)
	if err != nil {
		d.syntax(err)
		return d
	}
	if body == nil {
		d.located = true // an empty file leaves out everything
		return d
	}
	entries, ok := mapping(body)
	if !ok {
		d.report(position(body), "", "is not a list of keys and values, such as name: my-app")
		return d
	}
	d.located = true
	if slices.ContainsFunc(entries, func(entry *ast.MappingValueNode) bool { name, _ := keyOf(entry); return name == "function" }) {
		d.manifest.Function = lull.DefaultFunction()
	}
	d.object(reflect.ValueOf(&d.manifest).Elem(), entries, "")
	if _, given := d.at["concurrency"]; !given && d.manifest.IsFunction() {
		d.manifest.Concurrency = 1 // as on AWS
	}
	return d
}

// parse returns the body of the text's only document, or nil if there is nothing in it.
func parse(data []byte) (body ast.Node, err error) {
	defer func() {
		// The text comes from outside; a parser that trips over it must cost one deploy, not the node.
		if r := recover(); r != nil {
			err = fmt.Errorf("is not YAML: %v", r)
		}
	}()
	text := strings.TrimPrefix(string(data), "\ufeff")
	tokens := lexer.Tokenize(text)
	if err := bounded(tokens); err != nil {
		return nil, err
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, err
	}
	for _, doc := range file.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.NullType && len(file.Docs) == 1 {
			continue
		}
		if body != nil {
			return nil, syntaxError(doc.Body.GetToken(), "only one document is allowed")
		}
		body = doc.Body
	}
	return body, nil
}

func bounded(tokens token.Tokens) error {
	depth, dashes, line := 0, 0, 0
	for i, t := range tokens {
		if t.Position.Line != line {
			line, dashes = t.Position.Line, 0
		}
		switch t.Type {
		case token.MappingStartType, token.SequenceStartType:
			depth++
		case token.MappingEndType, token.SequenceEndType:
			depth--
		case token.SequenceEntryType, token.MappingKeyType:
			dashes++ // "- - - x" nests without a bracket
		case token.InvalidType:
			return syntaxError(t, "%s", cmp.Or(t.Error, "is not YAML"))
		case token.AnchorType, token.AliasType, token.MergeKeyType:
			return syntaxError(t, "anchors, aliases and merge keys are not supported: write the value out")
		case token.TagType:
			return syntaxError(t, "tags are not supported: write text in quotes")
		case token.DirectiveType:
			return syntaxError(t, "directives are not supported")
		}
		if depth > maxDepth || dashes > maxDepth {
			return syntaxError(t, "is nested too deeply")
		}
		if i > maxTokens {
			return syntaxError(t, "is too long")
		}
	}
	return nil
}

func syntaxError(t *token.Token, format string, args ...any) error {
	return &yaml.SyntaxError{Message: fmt.Sprintf(format, args...), Token: t}
}

func (d *decoder) syntax(err error) {
	var syntax *yaml.SyntaxError
	if errors.As(err, &syntax) && syntax.Token != nil {
		d.report(syntax.Token.Position, "", "%s", syntax.Message)
		return
	}
	d.report(nil, "", "%s", err)
}

// object fills the fields of a struct. Its keys are the JSON names of the fields, so that file and API say the same.
func (d *decoder) object(v reflect.Value, entries []*ast.MappingValueNode, path string) {
	fields := fieldsOf(v)
	seen := map[string]*token.Position{}
	for _, entry := range entries {
		name, where := keyOf(entry)
		full := join(path, name)
		field, known := fields[name]
		switch {
		case seen[name] != nil:
			d.report(where, full, "is given twice; the first is on line %d", seen[name].Line)
		case known:
			d.at[full] = where
			d.value(field, entry.Value, full)
		default:
			d.report(where, full, "%s", unknown(name, path, fields))
		}
		seen[name] = where
	}
}

func fieldsOf(v reflect.Value) map[string]reflect.Value {
	fields := map[string]reflect.Value{}
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		fields[name] = v.Field(i)
	}
	return fields
}

// mapping returns the entries of a mapping; false if the node is something else.
func mapping(node ast.Node) ([]*ast.MappingValueNode, bool) {
	switch node := node.(type) {
	case *ast.MappingNode:
		return node.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{node}, true
	}
	return nil, false
}

func keyOf(entry *ast.MappingValueNode) (string, *token.Position) {
	key := ast.Node(entry.Key)
	if text, ok := key.(*ast.StringNode); ok {
		return text.Value, position(key)
	}
	if t := key.GetToken(); t != nil {
		return t.Value, t.Position
	}
	return "", nil
}

func position(node ast.Node) *token.Position {
	if entries, ok := mapping(node); ok && len(entries) > 0 {
		_, where := keyOf(entries[0]) // a mapping's own token is its first colon
		return where
	}
	if t := node.GetToken(); t != nil {
		return t.Position
	}
	return nil
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func (d *decoder) report(where *token.Position, path, format string, args ...any) {
	problem := Problem{Line: 1, Column: 1, Path: path, Message: fmt.Sprintf(format, args...)}
	if where != nil {
		problem.Line, problem.Column = max(where.Line, 1), max(where.Column, 1)
	}
	d.problems = append(d.problems, problem)
}

func (d *decoder) sorted() []Problem {
	slices.SortStableFunc(d.problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Path, b.Path))
	})
	return d.problems
}

// validate adds what the values themselves get wrong, where the text is. A key whose value could not be read has its
// default for now: neither it nor a comparison with it is reported a second time.
func (d *decoder) validate() {
	reported := map[string]bool{}
	for _, p := range d.problems {
		reported[p.Path] = true
	}
	mentions := func(message string) bool {
		for path := range reported {
			if strings.Contains(path, ".") && strings.Contains(message, path) {
				return true
			}
		}
		return false
	}
	for _, p := range Check(d.manifest) {
		group := p.Path[:max(strings.LastIndexByte(p.Path, '.'), 0)]
		if !reported[p.Path] && !reported[group] && !mentions(p.Message) {
			d.report(d.where(p.Path), p.Path, "%s", p.Message)
		}
	}
}

// where finds the place of a path, or of what it is part of.
func (d *decoder) where(path string) *token.Position {
	for path != "" {
		if where := d.at[path]; where != nil {
			return where
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return nil
}
