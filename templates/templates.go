// Package templates holds the apps that "lull init" starts from, embedded in the binary.
package templates

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// Default is the template that "lull init" takes when none is named.
const Default = "chat"

// The files are listed one by one, so that a node_modules left by trying a template never gets into the binary.
//
//go:embed chat/.lullignore chat/README.md chat/lull.yaml chat/package.json chat/package-lock.json chat/server.js
//go:embed chat/public/index.html
//go:embed function-node/.lullignore function-node/README.md function-node/lull.yaml function-node/index.mjs
//go:embed function-python/.lullignore function-python/README.md function-python/lull.yaml function-python/main.py
//go:embed function-go/.lullignore function-go/README.md function-go/lull.yaml function-go/main.go.template
//go:embed function-go/go.mod.template function-go/go.sum.template
//go:embed genezio-http/.genezioignore genezio-http/README.md genezio-http/genezio.yaml genezio-http/server.js
//go:embed genezio-http/package.json genezio-http/package-lock.json
//go:embed genezio-function/.genezioignore genezio-function/README.md genezio-function/genezio.yaml genezio-function/index.mjs
var files embed.FS

// suffix hides files of a Go module from the go command, which would take them for another module or a part of ours.
const suffix = ".template"

// Template is one of them.
type Template struct {
	Name    string
	Summary string // half a line
}

// All returns the templates in the order in which they are offered.
func All() []Template {
	return []Template{
		{Name: "chat", Summary: "a chat room on one page: Node and a WebSocket"},
		{Name: "function-node", Summary: "an AWS Lambda function for Node"},
		{Name: "function-python", Summary: "an AWS Lambda function for Python"},
		{Name: "function-go", Summary: "an AWS Lambda function in Go"},
		{Name: "genezio-http", Summary: "a Genezio project with an Express server"},
		{Name: "genezio-function", Summary: "a Genezio project with a function and a cron"},
	}
}

// Find returns the template of this name.
func Find(name string) (Template, bool) {
	for _, t := range All() {
		if t.Name == name {
			return t, true
		}
	}
	return Template{}, false
}

// Files returns the template's files in order, as slash-separated paths.
func (t Template) Files() []string {
	var names []string
	// An embedded file system cannot fail to be walked.
	_ = fs.WalkDir(t.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			names = append(names, strings.TrimSuffix(name, suffix))
		}
		return err
	})
	return names
}

// FS returns the template's files.
func (t Template) FS() fs.FS {
	sub, err := fs.Sub(files, t.Name)
	if err != nil {
		panic(err) // only if a name in All is no path
	}
	return sub
}

// Write writes the template's files into dir, making it if needed. If any of them is there already it writes none and
// returns their names.
func (t Template) Write(dir string) (taken []string, err error) {
	for _, name := range t.Files() {
		_, err := os.Lstat(filepath.Join(dir, filepath.FromSlash(name)))
		switch {
		case err == nil:
			taken = append(taken, name)
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		}
	}
	if len(taken) > 0 {
		return taken, nil
	}
	for _, name := range t.Files() {
		if err := t.writeFile(dir, name); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

func (t Template) writeFile(dir, name string) error {
	target := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	data, err := fs.ReadFile(t.FS(), name)
	if errors.Is(err, fs.ErrNotExist) {
		data, err = fs.ReadFile(t.FS(), name+suffix)
	}
	if err != nil {
		return fmt.Errorf("read template %s: %w", path.Join(t.Name, name), err)
	}
	// O_EXCL: a file that appeared since the check is not written over.
	file, err := os.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	return errors.Join(err, file.Close())
}
