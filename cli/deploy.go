package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/build/archive"
	"github.com/lull-dev/lull/control"
	"github.com/lull-dev/lull/manifest"
)

// deployFlags are what a deploy is told besides the directory.
type deployFlags struct {
	name     string
	manifest string // a file to read instead of the directory's lull.yaml
	stage    string // for genezio projects
	env      string // file, for genezio projects
	json     bool
}

func (a *app) deployCommand() *cobra.Command {
	var flags deployFlags
	cmd := &cobra.Command{
		Use:     "deploy [DIR]",
		Short:   "Build a directory, release it and print its URL",
		GroupID: groupApps,
		Long: `Send the files of DIR (default: here) to the node, build them there and give the new release the traffic as
soon as it is ready. If anything fails, the release before it goes on as if nothing had happened.

The app is named by --name, else by "name" in lull.yaml, else by the directory.
Files that .lullignore (else .genezioignore, else .dockerignore) names stay at home, and .git.

A directory with a genezio.yaml (version 2) and no lull.yaml is a project: every function, container and frontend in it
becomes an app, named <project>-<function>; the only one of a project has the project's name.`,
		Example: "  lull deploy\n  lull deploy ./shop --name shop-test\n  lull deploy ./genezio-project --stage dev --env .env",
		Args:    between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.deploy(cmd.Context(), append(args, ".")[0], flags)
		},
	}
	cmd.Flags().StringVar(&flags.name, "name", "", "name of the app, or of the project")
	cmd.Flags().StringVar(&flags.manifest, "manifest", "", "file to read instead of DIR/lull.yaml")
	cmd.Flags().StringVar(&flags.stage, "stage", "", "genezio.yaml: stage, part of the apps' names unless it is prod")
	cmd.Flags().StringVar(&flags.env, "env", "", "genezio.yaml: file of NAME=value lines for expressions and for what runs")
	jsonFlag(cmd, &flags.json)
	return cmd
}

func (a *app) deploy(ctx context.Context, dir string, flags deployFlags) error {
	path, err := a.source(dir)
	if err != nil {
		return err
	}
	project, err := a.isProject(path, dir, flags)
	if err != nil {
		return err
	}
	if project {
		return a.deployProject(ctx, path, dir, flags)
	}
	what := parcel{dir: path}
	if what.name, what.manifest, err = a.appName(path, dir, flags); err != nil {
		return err
	}
	node, err := a.node()
	if err != nil {
		return err
	}
	done, err := a.upload(ctx, node, what)
	if err != nil {
		return err
	}
	return a.printDeployed(done, flags.json, "is at")
}

// source returns the absolute path of the directory to deploy, if there is something in it.
func (a *app) source(dir string) (string, error) {
	path := a.path(dir)
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", invalid("there is no directory "+dir, "name the directory of an app, or start one with: lull init "+dir)
	case err != nil:
		return "", fmt.Errorf("read %s: %w", dir, err)
	case !info.IsDir():
		return "", invalid(dir+" is a file, not a directory", "name the directory that holds the app: lull deploy"+argument(filepath.Dir(dir)))
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", dir, err)
	}
	if !slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return !slices.Contains(notAnApp, e.Name()) }) {
		return "", invalid(path+" is empty: there is nothing to deploy", "write a server into it, or start from a template with: lull init"+argument(dir))
	}
	return path, nil
}

// notAnApp is what a directory may hold and still count as empty.
var notAnApp = []string{".git", ".gitignore", ".lullignore", ".dockerignore"}

func invalid(message, hint string) error {
	return &lull.Error{Kind: lull.KindInvalid, Message: message, Hint: hint}
}

// appName checks the manifest, so that its mistakes cost no upload, and finds out what the app is called. m is nil if the
// manifest goes with the files.
func (a *app) appName(path, dir string, flags deployFlags) (name string, m *lull.Manifest, err error) {
	var read lull.Manifest
	if flags.manifest == "" {
		read, _, err = manifest.Load(path)
	} else {
		read, err = a.readManifest(flags.manifest)
		m = &read
	}
	if err != nil {
		if flags.manifest == "" {
			err = inDir(err, dir)
		}
		return "", nil, err
	}
	name = cmp.Or(flags.name, read.Name, manifest.NameFor(path))
	if !lull.ValidName(name) {
		return "", nil, invalid(fmt.Sprintf("%q is not a name for an app", name),
			"use up to 40 lower-case letters, digits and single hyphens, such as "+manifest.NameFor(name))
	}
	return name, m, nil
}

// inDir names the file of a manifest's mistakes as it is reached from here.
func inDir(err error, dir string) error {
	var broken *manifest.Error
	if errors.As(err, &broken) {
		return &manifest.Error{File: filepath.Join(dir, broken.File), Problems: broken.Problems}
	}
	return err
}

// readManifest reads a manifest that lies anywhere.
func (a *app) readManifest(file string) (lull.Manifest, error) {
	data, err := a.readSmall(file)
	if err != nil {
		return lull.Manifest{}, err
	}
	return manifest.Parse(data, file)
}

// readSmall reads a file that somebody has named, if it is no larger than a manifest may be.
func (a *app) readSmall(name string) ([]byte, error) {
	file, err := os.Open(a.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, invalid("there is no file "+name, "")
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, manifest.MaxSize+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", name, err)
	case len(data) > manifest.MaxSize:
		return nil, invalid(fmt.Sprintf("%s is larger than %d KB", name, manifest.MaxSize>>10), "")
	}
	return data, nil
}

// parcel is what one upload sends.
type parcel struct {
	name     string
	dir      string
	rules    string         // what stays at home, besides what the directory itself says
	manifest *lull.Manifest // nil: it is among the files
}

// upload streams a directory to the node while it is being packed, and shows what the node has to say.
func (a *app) upload(ctx context.Context, node control.Node, what parcel) (control.Deployed, error) {
	p := startProgress(a.env.Stderr, a.env.StderrTerminal, a.env.Now)
	defer p.Close()
	p.Begin(fmt.Sprintf("uploading %s as %s", what.dir, what.name))
	packed := startPacking(what.dir, what.rules)
	show := newEventLines(p)
	done, err := node.Deploy(ctx, control.DeployRequest{App: what.name, Manifest: what.manifest, Archive: p.Count(packed)}, show.take)
	show.flush()
	// An error in packing reaches the node as a broken upload: it is the cause, what the node says of it is not.
	if packErr := packed.Close(); packErr != nil {
		return done, packErr
	}
	if err != nil && ctx.Err() != nil {
		return done, context.Cause(ctx)
	}
	return done, err
}

// packing is an archive that is made while it is read.
type packing struct {
	*io.PipeReader
	ended chan error // one value: what Pack returned
}

// startPacking begins to pack dir; Close ends it and waits.
func startPacking(dir, rules string) *packing {
	r, w := io.Pipe()
	p := &packing{PipeReader: r, ended: make(chan error, 1)}
	options := archive.Upload()
	options.Rules = rules
	go func() {
		err := archive.Pack(w, dir, options)
		w.CloseWithError(err)
		p.ended <- err
	}()
	return p
}

// Close stops packing, if it is not done, and returns what went wrong in it.
func (p *packing) Close() error {
	p.PipeReader.CloseWithError(errNotWanted)
	if err := <-p.ended; !errors.Is(err, errNotWanted) {
		return err
	}
	return nil
}

var errNotWanted = errors.New("the rest is not wanted")

// eventLines turns what a node reports during a deploy into phases and whole lines.
type eventLines struct {
	progress *progress
	phase    string
	rest     string // the beginning of a line of output
}

func newEventLines(p *progress) *eventLines { return &eventLines{progress: p} }

// titles say what goes on in a phase. The upload has none: this side began it.
var titles = map[string]string{
	control.PhaseBuild:  "building",
	control.PhaseStore:  "storing the release",
	control.PhaseStart:  "starting it",
	control.PhaseSwitch: "giving it the traffic",
}

func (l *eventLines) take(e control.Event) {
	if e.Phase != l.phase {
		l.flush()
		l.phase = e.Phase
		if title := titles[e.Phase]; title != "" {
			l.progress.Begin(title)
		}
	}
	if e.Phase != control.PhaseBuild {
		return
	}
	l.rest += e.Text
	for {
		line, rest, whole := strings.Cut(l.rest, "\n")
		if !whole {
			return
		}
		l.print(line)
		l.rest = rest
	}
}

// flush prints a last line that has no end.
func (l *eventLines) flush() {
	if l.rest != "" {
		l.print(l.rest)
		l.rest = ""
	}
}

// print indents a line of a build's output. Of a line that was written over with carriage returns the last state counts.
func (l *eventLines) print(line string) {
	line = strings.TrimRight(line, "\r")
	line = line[strings.LastIndexByte(line, '\r')+1:]
	l.progress.Line("  " + line)
}
