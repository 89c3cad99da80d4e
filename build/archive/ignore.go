package archive

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"
)

// The files that say what is left out, the first one found. Nested ones are not read.
const (
	ignoreFile        = ".lullignore"    // in the syntax of a .gitignore
	genezioIgnoreFile = ".genezioignore" // likewise, of projects that were made for Genezio
	dockerIgnoreFile  = ".dockerignore"  // for apps that have been built elsewhere before
)

// maxIgnoreSize bounds an ignore file: every line is tried on every file.
const maxIgnoreSize = 256 << 10

// always is left out unless an ignore file takes it back with "!". node_modules joins it where package.json names
// dependencies, which a build installs anew.
const always = ".git/\n.git\n.hg/\n.svn/\n.DS_Store\n__pycache__/\n*.pyc\n/.lull/\n/lull-data/\n"

// ignore is a list of rules; the last one that fits decides.
type ignore struct {
	root    *os.Root
	rules   []rule
	descend bool // an ignored directory may hold something that is taken back, as .dockerignore allows
}

type rule struct {
	form     *regexp.Regexp // of the whole path
	negated  bool
	dirsOnly bool
}

// readIgnore reads the rules of a directory. more are rules that it inherits, which its own come after.
func readIgnore(root *os.Root, more string) (*ignore, error) {
	ig := &ignore{root: root, rules: gitRules(always)}
	if hasDependencies(root) {
		ig.rules = append(ig.rules, gitRules("node_modules/")...)
	}
	ig.rules = append(ig.rules, gitRules(more)...)
	for _, name := range []string{ignoreFile, genezioIgnoreFile} {
		text, err := readSmall(root, name)
		if err == nil {
			ig.rules = append(ig.rules, gitRules(text)...)
			return ig, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	text, err := readSmall(root, dockerIgnoreFile)
	if errors.Is(err, fs.ErrNotExist) {
		return ig, nil
	}
	if err != nil {
		return nil, err
	}
	ig.addDocker(text)
	// Many a .dockerignore names these two, which Docker reads all the same.
	for _, name := range []string{"!/Dockerfile", "!/" + dockerIgnoreFile} {
		if r, ok := dockerRule(name); ok {
			ig.rules = append(ig.rules, r)
		}
	}
	return ig, nil
}

func (ig *ignore) addDocker(text string) {
	for line := range strings.Lines(text) {
		r, ok := dockerRule(line)
		if !ok {
			continue
		}
		ig.rules = append(ig.rules, r)
		ig.descend = ig.descend || r.negated
	}
}

// match reports whether a file is left out; below says that the directory it is in is. descend says that an ignored
// directory must be looked into all the same.
func (ig *ignore) match(name string, isDir, below bool) (ignored, descend bool) {
	if name == "lull.yaml" {
		return false, false // without it the rest means something else
	}
	ignored = below || isDir && ig.isVirtualEnvironment(name)
	for _, r := range ig.rules {
		if (isDir || !r.dirsOnly) && r.negated == ignored && r.form.MatchString(name) {
			ignored = !r.negated
		}
	}
	return ignored, isDir && ig.descend
}

// isVirtualEnvironment recognises Python's virtual environments, which hold links to this machine's interpreter.
func (ig *ignore) isVirtualEnvironment(dir string) bool {
	_, err := ig.root.Lstat(path.Join(dir, "pyvenv.cfg"))
	return err == nil
}

func hasDependencies(root *os.Root) bool {
	text, err := readSmall(root, "package.json")
	if err != nil {
		return false
	}
	var found struct {
		Dependencies, DevDependencies, OptionalDependencies map[string]any
		Workspaces                                          any
	}
	if err := json.Unmarshal([]byte(text), &found); err != nil {
		return true // the build will say what is wrong with it
	}
	return len(found.Dependencies)+len(found.DevDependencies)+len(found.OptionalDependencies) > 0 || found.Workspaces != nil
}

func readSmall(root *os.Root, name string) (string, error) {
	info, err := root.Stat(name)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() || info.Size() > maxIgnoreSize {
		return "", invalid("", "%s is not a file of at most %d KB", name, maxIgnoreSize>>10)
	}
	file, err := root.Open(name)
	if err != nil {
		return "", fmt.Errorf("pack: %w", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxIgnoreSize))
	return string(text), err
}

// gitRules reads the syntax of a .gitignore.
func gitRules(text string) []rule {
	var rules []rule
	for line := range strings.Lines(text) {
		if r, ok := gitRule(strings.TrimRight(line, "\r\n")); ok {
			rules = append(rules, r)
		}
	}
	return rules
}

func gitRule(line string) (rule, bool) {
	for strings.HasSuffix(line, " ") && !strings.HasSuffix(line, `\ `) {
		line = line[:len(line)-1]
	}
	if strings.HasPrefix(line, "#") {
		return rule{}, false
	}
	var r rule
	line, r.negated = strings.CutPrefix(line, "!")
	line, r.dirsOnly = strings.CutSuffix(line, "/")
	if line == "" {
		return rule{}, false
	}
	anchored := strings.Contains(line, "/")
	return r.compile(strings.TrimPrefix(line, "/"), anchored)
}

// dockerRule reads a line of a .dockerignore: always from the top.
func dockerRule(line string) (rule, bool) {
	line = strings.TrimSpace(line)
	if line == "" || strings.HasPrefix(line, "#") {
		return rule{}, false
	}
	var r rule
	line, r.negated = strings.CutPrefix(line, "!")
	line = strings.TrimPrefix(path.Clean("/"+strings.TrimSpace(line)), "/")
	if line == "" {
		return rule{}, false
	}
	return r.compile(line, true)
}

func (r rule) compile(glob string, anchored bool) (rule, bool) {
	form := translate(glob)
	if !anchored {
		form = "(?:.*/)?" + form
	}
	var err error
	r.form, err = regexp.Compile("^(?s:" + form + ")$")
	return r, err == nil // a pattern that makes no sense fits nothing, as in git
}

// translate turns a glob into a regular expression.
func translate(glob string) string {
	var out strings.Builder
	for i := 0; i < len(glob); {
		rest := glob[i:]
		start := i == 0 || glob[i-1] == '/'
		switch {
		case start && strings.HasPrefix(rest, "**/"):
			out.WriteString("(?:.*/)?")
			i += 3
		case start && rest == "**":
			out.WriteString(".+")
			i += 2
		case rest[0] == '*':
			out.WriteString("[^/]*")
			i++
		case rest[0] == '?':
			out.WriteString("[^/]")
			i++
		case rest[0] == '[':
			class, length := translateClass(rest)
			out.WriteString(class)
			i += length
		case rest[0] == '\\' && len(rest) > 1:
			out.WriteString(regexp.QuoteMeta(rest[1:2]))
			i += 2
		default:
			// Whole runes: a name's bytes must not be quoted one by one.
			next := strings.IndexAny(rest[1:], `*?[\`) + 1
			if slash := strings.IndexByte(rest, '/'); slash >= 0 && (next == 0 || slash+1 < next) {
				next = slash + 1
			}
			if next == 0 {
				next = len(rest)
			}
			out.WriteString(regexp.QuoteMeta(rest[:next]))
			i += next
		}
	}
	return out.String()
}

// translateClass turns [a-z] and [!a-z] at the start of glob into a class that never fits a slash, and returns its length.
// Without an end the pattern fits nothing.
func translateClass(glob string) (string, int) {
	body, negated := glob[1:], false
	if strings.HasPrefix(body, "!") || strings.HasPrefix(body, "^") {
		body, negated = body[1:], true
	}
	end := classEnd(body)
	if end < 0 {
		return "[^\\s\\S]", len(glob)
	}
	length := len(glob) - len(body) + end + 1
	inner := strings.NewReplacer("[:", "[:", "[", `\[`, "^", `\^`, "&", `\&`).Replace(body[:end])
	if strings.HasPrefix(inner, "]") {
		inner = `\` + inner
	}
	if negated {
		return "[^/" + inner + "]", length
	}
	return "[" + inner + "]", length
}

// classEnd finds the bracket that ends a class: not its first character, not escaped, not within [:alpha:].
func classEnd(body string) int {
	for i := 0; i < len(body); i++ {
		switch {
		case body[i] == '\\':
			i++
		case strings.HasPrefix(body[i:], "[:"):
			if end := strings.Index(body[i:], ":]"); end > 0 {
				i += end + 1
			}
		case body[i] == ']' && i > 0:
			return i
		}
	}
	return -1
}
