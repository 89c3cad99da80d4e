// Package manifest reads lull.yaml. It is strict: unknown keys, wrong types and values out of range are all reported at
// once, each with its line and column. What the file leaves out has the value of lull.DefaultManifest.
package manifest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/schedule"
)

// FileName is the name of an app's manifest, at the top of its directory.
const FileName = "lull.yaml"

// MaxSize bounds the text of a manifest. The largest part of one is env, which rarely has a hundred lines.
const MaxSize = 256 << 10

// Problem is one thing that is wrong with a manifest, and where. Lines and columns count from 1.
type Problem struct {
	Line, Column int
	Path         string // the key, such as scale.max; empty if the text is not YAML
	Message      string
}

// Error is everything that is wrong with a manifest, in order of the lines. Its kind is lull.KindInvalid.
type Error struct {
	File     string
	Problems []Problem // at least one
}

// Error returns one line for each problem: lull.yaml:3:7: scale.max: is 0: it must be from 1 to 1000.
func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = fmt.Sprintf("%s:%d:%d: ", e.File, p.Line, p.Column)
		if p.Path != "" {
			lines[i] += p.Path + ": "
		}
		lines[i] += p.Message
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives the error its kind.
func (e *Error) Unwrap() error {
	return &lull.Error{Kind: lull.KindInvalid, Message: e.Error()}
}

// Parse reads the text of a manifest. file is the name that errors carry. The error is an *Error.
func Parse(data []byte, file string) (lull.Manifest, error) {
	d := decode(data)
	if len(d.problems) == 0 || d.located {
		d.validate()
	}
	if len(d.problems) > 0 {
		return lull.Manifest{}, &Error{File: file, Problems: d.sorted()}
	}
	return d.manifest, nil
}

// Check returns everything that is wrong with the values of a manifest, wherever it comes from; nil if nothing is.
func Check(m lull.Manifest) []lull.Problem {
	return append(m.Validate(), schedule.Check(m.Schedules)...)
}

// Load reads the manifest of the app in dir. Without one it returns the defaults and found is false.
func Load(dir string) (m lull.Manifest, found bool, err error) {
	data, err := read(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return lull.DefaultManifest(), false, misnamed(dir)
	case err != nil:
		return lull.Manifest{}, false, fmt.Errorf("read manifest: %w", err)
	}
	m, err = Parse(data, FileName)
	return m, true, err
}

// Sets reports whether the manifest in dir itself gives a value to a key, such as port, rather than leaving it to its
// default.
func Sets(dir, key string) bool {
	data, err := read(dir)
	if err != nil {
		return false
	}
	_, given := decode(data).at[key]
	return given
}

// read returns the text of the manifest in dir. A link may not lead out of dir: it is somebody's upload.
func read(dir string) ([]byte, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	info, err := root.Stat(FileName)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &lull.Error{Kind: lull.KindInvalid, Message: FileName + " is not a file"}
	}
	file, err := root.Open(FileName)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, MaxSize+1))
}

// misnamed reports a manifest that would be overlooked because of its name.
func misnamed(dir string) error {
	for _, name := range []string{"lull.yml", "Lull.yaml", "Lull.yml"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			return &lull.Error{Kind: lull.KindInvalid, Message: name + " is not read: the manifest's name is " + FileName,
				Hint: "rename it: mv " + name + " " + FileName}
		}
	}
	return nil
}

// NameFor makes a valid app name from the name of a directory: "My Chat_2" becomes "my-chat-2".
func NameFor(dir string) string {
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	name := make([]byte, 0, 40)
	for _, c := range []byte(strings.ToLower(filepath.Base(dir))) {
		letter := 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
		switch {
		case letter && len(name) < 40:
			name = append(name, c)
		case !letter && len(name) > 0 && len(name) < 39 && name[len(name)-1] != '-':
			name = append(name, '-')
		}
	}
	if text := strings.TrimRight(string(name), "-"); lull.ValidName(text) {
		return text
	}
	return "app"
}
