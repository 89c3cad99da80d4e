// Package genezio reads the genezio.yaml of a project that was made for Genezio's platform, and plans what it becomes here:
// a list of apps, each with the directory that is uploaded and a complete manifest. It is used by the command line; a node
// knows nothing of it.
package genezio

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/lull-dev/lull/manifest"
)

// FileName is the name of the file, at the top of a project. IgnoreFile says what of the project stays at home.
const (
	FileName   = "genezio.yaml"
	IgnoreFile = ".genezioignore"
)

// File is what a genezio.yaml says. Parse makes one.
type File struct {
	Name       text        `yaml:"name"`
	Version    text        `yaml:"yamlVersion"`
	Region     text        `yaml:"region"`
	Backend    *backend    `yaml:"backend"`
	Container  *container  `yaml:"container"`
	Frontends  []frontend  `yaml:"frontend"`
	Services   services    `yaml:"services"`
	Next       *framework  `yaml:"nextjs"`
	Nest       *framework  `yaml:"nestjs"`
	Remix      *framework  `yaml:"remix"`
	Streamlit  *framework  `yaml:"streamlit"`
	Nuxt       *framework  `yaml:"nuxt"`
	Nitro      *framework  `yaml:"nitro"`
	unasked    []string    // keys at the top that have no meaning here
	frameworks []framework // those that are there, with their kind
}

type backend struct {
	At          place      `yaml:""`
	Path        text       `yaml:"path"`
	Language    language   `yaml:"language"`
	Environment []variable `yaml:"environment"`
	Scripts     scripts    `yaml:"scripts"`
	Functions   []function `yaml:"functions"`
	Classes     []class    `yaml:"classes"`
}

type class struct {
	At   place `yaml:""`
	Name text  `yaml:"name"`
}

type language struct {
	Name    text `yaml:"name"`
	Runtime text `yaml:"runtime"`
	Manager text `yaml:"packageManager"`
}

type scripts struct {
	Deploy lines `yaml:"deploy"`
	Local  lines `yaml:"local"`
}

// knobs are what functions, containers and frameworks have in common.
type knobs struct {
	Timeout     number `yaml:"timeout"`
	Storage     number `yaml:"storageSize"`
	Size        text   `yaml:"instanceSize"`
	CPU         number `yaml:"vcpuCount"`
	Memory      number `yaml:"memoryMb"`
	Concurrency number `yaml:"maxConcurrentRequestsPerInstance"`
	Instances   number `yaml:"maxConcurrentInstances"`
	Cooldown    number `yaml:"cooldownTime"`
	Health      text   `yaml:"healthcheckPath"`
	Type        text   `yaml:"type"`
}

type function struct {
	At      place `yaml:""`
	Name    text  `yaml:"name"`
	Path    text  `yaml:"path"`
	Entry   text  `yaml:"entry"`
	Handler text  `yaml:"handler"`
	knobs
}

type container struct {
	At          place      `yaml:""`
	Path        text       `yaml:"path"`
	Environment []variable `yaml:"environment"`
	knobs
}

type framework struct {
	At          place      `yaml:""`
	Path        text       `yaml:"path"`
	Subdomain   text       `yaml:"subdomain"`
	Entry       text       `yaml:"entryFile"`
	Manager     text       `yaml:"packageManager"`
	Environment []variable `yaml:"environment"`
	Scripts     scripts    `yaml:"scripts"`
	knobs
	kind string // its key
}

type frontend struct {
	At          place      `yaml:""`
	Name        text       `yaml:"name"`
	Path        text       `yaml:"path"`
	Publish     text       `yaml:"publish"`
	Subdomain   text       `yaml:"subdomain"`
	Environment []variable `yaml:"environment"`
	Scripts     scripts    `yaml:"scripts"`
	Redirects   []redirect `yaml:"redirects"`
	Rewrites    []redirect `yaml:"rewrites"`
}

type redirect struct {
	At     place  `yaml:""`
	From   text   `yaml:"from"`
	To     text   `yaml:"to"`
	Status number `yaml:"status"`
}

type services struct {
	Crons     []cron     `yaml:"crons"`
	Databases []database `yaml:"databases"`
	Email     presence   `yaml:"email"`
	Auth      presence   `yaml:"authentication"`
}

type cron struct {
	At       place `yaml:""`
	Name     text  `yaml:"name"`
	Function text  `yaml:"function"`
	Schedule text  `yaml:"schedule"`
	Endpoint text  `yaml:"endpoint"`
}

type database struct {
	At   place `yaml:""`
	Name text  `yaml:"name"`
	Type text  `yaml:"type"`
}

// Load reads the genezio.yaml in dir. Without one the error wraps fs.ErrNotExist.
func Load(dir string) (*File, error) {
	file, err := os.Open(filepath.Join(dir, FileName))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, manifest.MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", FileName, err)
	}
	return Parse(data)
}

// Parse reads the text of a genezio.yaml. Keys it does not know are passed over, as Genezio does. The error is a
// *manifest.Error, which has everything that is wrong with the text.
func Parse(data []byte) (*File, error) {
	tree, err := manifest.ParseTree(data, FileName)
	if err != nil {
		return nil, err
	}
	d := &decoder{}
	file := &File{}
	if _, ok := tree.Fields(); !ok {
		d.report(place{}, "", "is not a list of keys and values, such as name: my-project")
		return nil, d.err()
	}
	d.object(reflect.ValueOf(file).Elem(), tree, "")
	if file.checkVersion(d) {
		file.check(d)
	}
	for _, key := range d.keys {
		if slices.Contains(meaningless, key) {
			file.unasked = append(file.unasked, key)
		}
	}
	return file, d.err()
}

// meaningless are keys that say something about Genezio's platform.
var meaningless = []string{"region", "cloudProvider", "plan", "workspace"}

// checkVersion reports a file that is not of version 2, and nothing else then: its other keys mean something else.
func (f *File) checkVersion(d *decoder) bool {
	version := strings.TrimSuffix(f.Version.or("1"), ".0")
	if version == "2" {
		return true
	}
	d.problems = nil
	const change = "name, yamlVersion: 2, and backend: with path, language: {name: js} and functions: (name, path, entry, type: httpServer)"
	looksNew := f.Backend != nil || f.Container != nil || len(f.Frontends) > 0 || f.Next != nil || f.Nest != nil || f.Remix != nil ||
		f.Streamlit != nil || f.Nuxt != nil || f.Nitro != nil
	switch {
	case version != "1":
		d.report(f.Version.place, "yamlVersion", "is %q: only version 2 is read", version)
	case looksNew && !f.Version.given():
		d.report(place{}, "yamlVersion", "is missing, which means version 1; only version 2 is read: add the line yamlVersion: 2")
	default:
		d.report(f.Version.place, "yamlVersion", "this file is of version 1, and only version 2 is read: write %s", change)
	}
	return false
}

var functionTypes = []string{"aws", "httpServer", "persistent"}

// check reports what a file cannot do without.
func (f *File) check(d *decoder) {
	if strings.TrimSpace(f.Name.value) == "" {
		d.report(f.Name.place, "name", "is missing: name the project")
	}
	for _, kind := range []struct {
		key   string
		found *framework
	}{{"nextjs", f.Next}, {"nestjs", f.Nest}, {"remix", f.Remix}, {"streamlit", f.Streamlit}, {"nuxt", f.Nuxt}, {"nitro", f.Nitro}} {
		if kind.found != nil {
			kind.found.kind = kind.key
			d.local(kind.found.Path, kind.key+".path")
			d.local(kind.found.Entry, kind.key+".entryFile")
			f.frameworks = append(f.frameworks, *kind.found)
		}
	}
	if f.Backend != nil {
		f.Backend.check(d)
	}
	if f.Container != nil {
		d.local(f.Container.Path, "container.path")
	}
	for i, page := range f.Frontends {
		path := fmt.Sprintf("frontend[%d]", i)
		d.local(page.Path, path+".path")
		d.local(page.Publish, path+".publish")
	}
}

func (b *backend) check(d *decoder) {
	d.local(b.Path, "backend.path")
	names := map[string]bool{}
	for i, f := range b.Functions {
		path := fmt.Sprintf("backend.functions[%d]", i)
		name := strings.TrimSpace(f.Name.value)
		switch {
		case name == "":
			d.report(f.At, path+".name", "is missing")
		case names[name]:
			d.report(f.Name.place, path+".name", "%q is given twice", name)
		}
		names[name] = true
		d.local(f.Path, path+".path")
		d.local(f.Entry, path+".entry")
		if strings.TrimSpace(f.Entry.value) == "" {
			d.report(f.At, path+".entry", "is missing: name the file to run, such as index.js")
		} else if entryLanguage(f.Entry.value) == "" {
			d.report(f.Entry.place, path+".entry", "is %q: it must be a .js, .mjs, .cjs or .py file; TypeScript is compiled by scripts.deploy", f.Entry.value)
		}
		if kind := f.Type.or("aws"); !slices.Contains(functionTypes, kind) {
			d.report(f.Type.place, path+".type", "is %q: it must be one of %s", kind, strings.Join(functionTypes, ", "))
		}
	}
	if len(b.Classes) > 0 && len(b.Functions) == 0 {
		d.report(b.Classes[0].At, "backend.classes", "Genezio's typed classes need its own compiler, which is not here: make them a function of type httpServer")
	}
}

// local reports a path that leads out of the directory it is meant for.
func (d *decoder) local(path text, key string) {
	if path.given() && path.or(".") != "." && !filepath.IsLocal(strings.TrimSpace(path.value)) {
		d.report(path.place, key, "is %q: it must lie inside the project", path.value)
	}
}

// entryLanguage tells the language of a file by its name: js, python, or "".
func entryLanguage(entry string) string {
	switch filepath.Ext(strings.TrimSpace(entry)) {
	case ".js", ".mjs", ".cjs":
		return "js"
	case ".py":
		return "python"
	}
	return ""
}
