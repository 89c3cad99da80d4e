package build

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/manifest"
)

// ownDir is the directory of a release that a build writes into: compiled programs, installed Python packages.
const ownDir = ".lull"

// job is one build.
type job struct {
	*Builder
	app      string
	dir      string   // the app's files
	root     *os.Root // of dir
	cache    string   // the app's own
	manifest lull.Manifest
	out      *output
	isolated bool // the driver's sandboxes see mounts where they were asked for
	ran      bool // a step has run, so that the files are a stranger's
}

// language is a kind of app.
type language interface {
	// name says what was found, for people.
	name() string
	// build installs and compiles. It is not called if the manifest says how to build.
	build(ctx context.Context, j *job) error
	// command returns how to start the app unless something else does: the text of a command.
	command(j *job) (string, error)
	// env returns what the app's environment has on top of the usual.
	env(j *job) []string
}

func (j *job) run(ctx context.Context) (Result, error) {
	switch {
	case j.manifest.Image != "":
		return j.fromImage(ctx)
	case j.manifest.IsFunction():
		return j.function(ctx)
	case j.manifest.IsStatic():
		return j.static(ctx)
	case j.manifest.Dockerfile != "":
		return j.fromDockerfile(ctx, j.manifest.Dockerfile)
	}
	lang, err := j.detect()
	if errors.Is(err, errDockerfile) {
		j.out.note("found a Dockerfile")
		return j.fromDockerfile(ctx, "Dockerfile")
	}
	if err != nil {
		return Result{}, err
	}
	j.out.note("found %s", lang.name())
	if err := j.startable(lang); err != nil {
		return Result{}, err
	}
	if j.manifest.Build != "" {
		err = j.step(ctx, step{args: []string{"sh", "-c", j.manifest.Build}, title: j.manifest.Build})
	} else {
		err = lang.build(ctx, j)
	}
	if err != nil {
		return Result{}, err
	}
	if err := j.tidy(); err != nil {
		return Result{}, err
	}
	return j.finish(lang)
}

// startable reports what would be missing in the end: better now than after a minute of installing. Only a build of the
// app's own can bring it in between.
func (j *job) startable(lang language) error {
	node, ok := lang.(*nodeApp)
	if j.manifest.Run != "" || j.manifest.Build != "" || ok && node.pkg.Scripts["build"] != "" {
		return nil
	}
	_, err := j.defaultCommand(lang)
	return err
}

// finish says how what was built is started.
func (j *job) finish(lang language) (Result, error) {
	text := j.manifest.Run
	if text == "" {
		var err error
		if text, err = j.defaultCommand(lang); err != nil {
			return Result{}, err
		}
	}
	if node, ok := lang.(*nodeApp); ok {
		text = node.resolve(text)
	}
	process := lull.Process{
		Args: commandArgs(text),
		Dir:  j.manifest.FilesDir(),
		Root: lull.RootHost,
		Port: j.port(nil, nil),
		Env:  mergeEnv([]string{"PATH=" + toolPath, "HOME=/tmp", "LANG=C.UTF-8"}, lang.env(j), j.variables()),
	}
	if err := j.trim(); err != nil {
		j.config.Log.Warn("build cache not trimmed", "app", j.app, "err", err)
	}
	return Result{Root: j.dir, Manifest: j.complete(text, process.Port), Process: process}, nil
}

// defaultCommand finds out how to start an app whose manifest does not say so.
func (j *job) defaultCommand(lang language) (string, error) {
	text, _, err := j.fileText("Procfile")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(text) {
		name, command, ok := strings.Cut(line, ":")
		if ok && strings.TrimSpace(name) == "web" && strings.TrimSpace(command) != "" {
			return strings.TrimSpace(command), nil
		}
	}
	return lang.command(j)
}

func (j *job) complete(run string, port int) lull.Manifest {
	m := j.manifest
	m.Name, m.Run, m.Port = j.app, run, port
	return m
}

// variables are the manifest's own, without PORT, which belongs to the node.
func (j *job) variables() []string {
	var env []string
	for key, value := range j.manifest.Env {
		if key != "PORT" {
			env = append(env, key+"="+value)
		}
	}
	return env
}

// port chooses the port an app is told to listen on: what the manifest says, what its env or the image's says, what the
// image exposes.
func (j *job) port(imageEnv []string, exposed []int) int {
	if j.manifest.Port != lull.DefaultPort || manifest.Sets(j.dir, "port") {
		return cmp.Or(j.manifest.Port, lull.DefaultPort)
	}
	values := []string{j.manifest.Env["PORT"]}
	for _, entry := range imageEnv {
		if value, ok := strings.CutPrefix(entry, "PORT="); ok {
			values = append(values, value)
		}
	}
	for _, value := range values {
		if port, err := strconv.Atoi(value); err == nil && port > 0 && port < 65536 {
			return port
		}
	}
	best := lull.DefaultPort
	for i, port := range exposed {
		if port == lull.DefaultPort {
			return port
		}
		if i == 0 || port < best {
			best = port
		}
	}
	return best
}

// tidy makes what the steps left behind fit for a release: the app runs as another user and must be able to read it, and
// only files, directories and links are kept.
func (j *job) tidy() error {
	if !j.ran {
		return nil // nothing but what was uploaded, and that is already
	}
	total, count := lull.Size(0), 0
	err := fs.WalkDir(j.root.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if count++; count > j.limits.release.Entries {
			return tooLarge("has more than %d files", j.limits.release.Entries)
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		switch mode := info.Mode(); {
		case mode&fs.ModeSymlink != 0:
			return nil
		case !mode.IsDir() && !mode.IsRegular():
			return j.root.Remove(name)
		default:
			total += lull.Size(info.Size())
			return j.readable(name, mode)
		}
	})
	if err == nil && total > j.limits.resources.Disk {
		err = tooLarge("has more than %s", j.limits.resources.Disk)
	}
	if errors.As(err, new(*lull.Error)) || err == nil {
		return err
	}
	return fmt.Errorf("tidy what was built: %w", err)
}

func (j *job) readable(name string, mode fs.FileMode) error {
	want := mode.Perm() | 0o444
	if mode.IsDir() || mode&0o111 != 0 {
		want |= 0o111
	}
	if mode == mode.Type()|want {
		return nil
	}
	return j.root.Chmod(name, want)
}

func tooLarge(format string, args ...any) error {
	return &lull.Error{Kind: lull.KindTooLarge, Message: "build: what was built " + fmt.Sprintf(format, args...),
		Hint: "let the build remove what is not needed at run time"}
}

func invalid(hint, format string, args ...any) error {
	return &lull.Error{Kind: lull.KindInvalid, Message: fmt.Sprintf(format, args...), Hint: hint}
}

// missing is the error about a tool that the node lacks.
func missing(tool, what, fix string) error {
	return &lull.Error{Kind: lull.KindUnsupported, Message: "build: " + what + " needs " + tool + ", which this node does not have", Hint: fix}
}

// inApp is the path of a file of the app inside its environment.
func (j *job) inApp(name string) string { return path.Join(j.manifest.FilesDir(), name) }
