package build

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"strings"

	"github.com/lull-dev/lull"
)

// layersDir is where the layers of a function come together, below the app's directory.
const layersDir = ownDir + "/layers"

// function makes a release of a handler. What starts it is the same for all: the runtime that Lull brings along, which
// finds the way from there by the manifest.
func (j *job) function(ctx context.Context) (Result, error) {
	lang, err := j.functionLanguage()
	if err != nil {
		return Result{}, err
	}
	j.out.note("found a function for %s: %s", j.manifest.Function.Runtime, lang.name())
	if j.manifest.Build != "" {
		err = j.step(ctx, step{args: []string{"sh", "-c", j.manifest.Build}, title: j.manifest.Build})
	} else {
		err = lang.build(ctx, j)
	}
	if err != nil {
		return Result{}, err
	}
	if err := j.layers(ctx); err != nil {
		return Result{}, err
	}
	if err := j.tidy(); err != nil {
		return Result{}, err
	}
	if err := j.handled(); err != nil {
		return Result{}, err
	}
	process := lull.Process{
		Args:  []string{path.Join(lull.RuntimeDir, "lull"), "function"},
		Dir:   j.manifest.FilesDir(),
		Root:  lull.RootHost,
		Port:  j.port(nil, nil),
		Fixed: true,
		Env:   mergeEnv([]string{"PATH=" + toolPath, "HOME=/tmp", "LANG=C.UTF-8"}, lang.env(j), j.variables()),
	}
	if f := j.manifest.Function; strings.HasPrefix(f.Runtime, "nodejs") && f.Payload == "2.0" && process.Port != lull.FunctionPort {
		process.HTTP = lull.FunctionPort
	}
	if err := j.trim(); err != nil {
		j.config.Log.Warn("build cache not trimmed", "app", j.app, "err", err)
	}
	return Result{Root: j.dir, Manifest: j.complete("", process.Port), Process: process}, nil
}

// functionLanguage is what the packages of a function are installed with. A function without any is its files.
func (j *job) functionLanguage() (language, error) {
	switch runtime := j.manifest.Function.Runtime; {
	case strings.HasPrefix(runtime, "nodejs"):
		node, err := findNode(j)
		if err != nil || node != nil {
			return node, err
		}
		return &nodeApp{}, nil
	case strings.HasPrefix(runtime, "python"):
		return &pythonApp{j.firstOf("requirements.txt", "pyproject.toml")}, nil
	case !j.has("bootstrap") && j.has("go.mod"):
		return &goApp{output: "./bootstrap"}, nil
	}
	return filesApp{}, nil
}

// handled reports a handler that cannot be found, as far as that can be told from outside of its runtime.
func (j *job) handled() error {
	f := j.manifest.Function
	switch {
	case strings.HasPrefix(f.Runtime, "nodejs"):
		dir, name := path.Split(f.Handler)
		file, export, found := strings.Cut(name, ".")
		if !found || file == "" || export == "" {
			return invalid("write FILE.FUNCTION, such as index.handler", "function.handler: %q does not name a file and a function in it", f.Handler)
		}
		file = path.Join(dir, file)
		if j.firstOf(file+".js", file+".mjs", file+".cjs", file) == "" {
			return invalid("the part before the dot names the file", "function.handler: %q: there is no %s.js, %s.mjs or %s.cjs", f.Handler, file, file, file)
		}
	case strings.HasPrefix(f.Runtime, "python"):
		dot := strings.LastIndexByte(f.Handler, '.')
		if dot <= 0 || dot == len(f.Handler)-1 {
			return invalid("write MODULE.FUNCTION, such as main.handler", "function.handler: %q does not name a module and a function in it", f.Handler)
		}
		file := strings.ReplaceAll(f.Handler[:dot], ".", "/")
		if j.firstOf(file+".py", file+"/__init__.py", path.Join(layersDir, "python", file+".py")) == "" {
			return invalid("the part before the last dot names the module", "function.handler: %q: there is no %s.py", f.Handler, file)
		}
	case j.firstOf("bootstrap", path.Join(layersDir, "bootstrap")) == "":
		return invalid("put an executable of that name at the top of the directory, or a Go program (go.mod)",
			"the runtime %s needs a program named bootstrap, and there is none", f.Runtime)
	}
	return nil
}

// layers puts the layers of a function on top of each other. Directories are copied by a step, because their files may be
// links that a build has made.
func (j *job) layers(ctx context.Context) error {
	for _, layer := range j.manifest.Function.Layers {
		layer = path.Clean(layer)
		if err := j.root.MkdirAll(layersDir, 0o755); err != nil {
			return fmt.Errorf("make the layers' directory: %w", err)
		}
		info, err := j.root.Stat(layer)
		switch {
		case err != nil:
			return invalid("name a directory or zip file of the app", "function.layers: there is no %s", layer)
		case info.IsDir():
			err = j.step(ctx, step{args: []string{"cp", "-a", "--", "./" + layer + "/.", layersDir + "/"}, title: "add the layer " + layer})
		default:
			j.out.note("adding the layer %s", layer)
			err = j.unzip(layer, layersDir)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// unzip unpacks a zip file of the app into a directory of it. Both are reached by way of the app's root, which nothing
// leads out of.
func (j *job) unzip(name, dir string) error {
	file, err := j.root.Open(name)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	packed, err := zip.NewReader(file, info.Size())
	if err != nil {
		return invalid("", "%s is not a zip file: %s", name, err)
	}
	left := j.limits.resources.Disk
	if len(packed.File) > j.limits.release.Entries {
		return tooLarge("has more than %d files in %s", j.limits.release.Entries, name)
	}
	for _, entry := range packed.File {
		if !filepath.IsLocal(entry.Name) {
			return invalid("", "%s holds a file %q, which would lie outside of it", name, entry.Name)
		}
		if entry.UncompressedSize64 > uint64(left) { // the header may say anything, also what is no lull.Size
			return tooLarge("has more than %s in %s", j.limits.resources.Disk, name)
		}
		left -= lull.Size(entry.UncompressedSize64)
		if err := j.unzipEntry(entry, path.Join(dir, entry.Name)); err != nil {
			return fmt.Errorf("unpack %s: %s: %w", name, entry.Name, err)
		}
	}
	return nil
}

func (j *job) unzipEntry(entry *zip.File, to string) error {
	if strings.HasSuffix(entry.Name, "/") {
		return j.root.MkdirAll(to, 0o755)
	}
	if err := j.root.MkdirAll(path.Dir(to), 0o755); err != nil {
		return err
	}
	content, err := entry.Open()
	if err != nil {
		return err
	}
	defer content.Close()
	if entry.Mode()&fs.ModeSymlink != 0 {
		target, err := io.ReadAll(io.LimitReader(content, 4096))
		if err != nil {
			return err
		}
		if err := j.root.RemoveAll(to); err != nil {
			return err
		}
		return j.root.Symlink(string(target), to)
	}
	if err := j.root.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := j.root.Create(to)
	if err != nil {
		return err
	}
	// The size in the header is what was counted against the limit: not a byte more is written.
	_, err = io.CopyN(file, content, int64(entry.UncompressedSize64))
	mode := fs.FileMode(0o644)
	if entry.Mode()&0o111 != 0 {
		mode = 0o755
	}
	return errors.Join(err, file.Chmod(mode), file.Close())
}
