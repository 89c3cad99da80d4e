package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/control"
	"github.com/lull-dev/lull/genezio"
	"github.com/lull-dev/lull/manifest"
)

// isProject reports whether the directory is deployed by its genezio.yaml.
func (a *app) isProject(path, dir string, flags deployFlags) (bool, error) {
	there := func(name string) bool {
		_, err := os.Lstat(filepath.Join(path, name))
		return err == nil
	}
	project := there(genezio.FileName)
	if project && (flags.manifest != "" || there(manifest.FileName)) {
		a.say("%s is not read: a %s says how to deploy", filepath.Join(dir, genezio.FileName), manifest.FileName)
		project = false
	}
	if !project && (flags.stage != "" || flags.env != "") {
		return false, &usageError{command: "lull deploy", message: "--stage and --env are for projects with a " + genezio.FileName}
	}
	return project, nil
}

// deployProject deploys every app of a project, one after the other. It stops at the first that fails.
func (a *app) deployProject(ctx context.Context, path, dir string, flags deployFlags) error {
	file, err := genezio.Load(path)
	if err != nil {
		return inDir(err, dir)
	}
	options := genezio.Options{Dir: path, Name: flags.name, Stage: flags.stage, Getenv: a.env.Getenv}
	if options.Env, err = a.readEnv(flags.env); err != nil {
		return err
	}
	node, err := a.node()
	if err != nil {
		return err
	}
	if options.URL, err = urlPattern(ctx, node); err != nil {
		return err
	}
	options.Variables = variablesOf(ctx, node)
	plan, err := file.Plan(options)
	if err != nil {
		return inDir(err, dir)
	}
	a.sayPlan(plan)
	all := []control.Deployed{}
	for _, part := range plan.Apps {
		done, err := a.upload(ctx, node, parcel{name: part.Name, dir: part.Dir, rules: part.Ignore, manifest: &part.Manifest})
		if err != nil && len(plan.Apps) > 1 {
			err = fmt.Errorf("deploy %s (%s): %w", part.Name, part.What, err)
		}
		if err != nil {
			return err
		}
		if all = append(all, done); flags.json {
			continue
		}
		if err := a.printDeployed(done, false, "is at"); err != nil {
			return err
		}
	}
	if flags.json {
		return writeJSON(a.env.Stdout, all)
	}
	return nil
}

func (a *app) sayPlan(plan genezio.Plan) {
	for _, note := range plan.Notes {
		a.say("%s: %s", genezio.FileName, note)
	}
	if len(plan.Apps) < 2 {
		return
	}
	a.say("%s has %d apps:", plan.Project, len(plan.Apps))
	for _, part := range plan.Apps {
		a.say("  %s  %s", part.Name, part.What)
	}
}

// readEnv reads the file that was given with --env.
func (a *app) readEnv(name string) (map[string]string, error) {
	if name == "" {
		return nil, nil
	}
	data, err := a.readSmall(name)
	if err != nil {
		return nil, err
	}
	return genezio.ParseEnv(data, name)
}

// urlPattern is where the apps of a node are reached, with <app> for the name.
func urlPattern(ctx context.Context, node control.Node) (string, error) {
	info, err := node.NodeInfo(ctx)
	if err != nil {
		return "", err
	}
	if info.URL != "" {
		return info.URL, nil
	}
	port := info.HTTP[strings.LastIndexByte(info.HTTP, ':')+1:] // a node that is older than this command
	if port == "80" {
		return "http://<app>." + info.Domain + "/", nil
	}
	return "http://<app>." + info.Domain + ":" + port + "/", nil
}

// initProject writes the manifests that say what a genezio.yaml says. Where a directory holds one app it is its lull.yaml,
// which "lull deploy" finds; where it holds several, each has a file of its own for --manifest.
func (a *app) initProject(ctx context.Context, dir, stage string) error {
	path := a.path(dir)
	file, err := genezio.Load(path)
	if errors.Is(err, fs.ErrNotExist) {
		return invalid(fmt.Sprintf("there is no %s in %s", genezio.FileName, dir), "name the directory of a Genezio project")
	}
	if err != nil {
		return inDir(err, dir)
	}
	plan, err := file.Plan(genezio.Options{Dir: path, Stage: stage, Template: true, URL: a.likelyURL(ctx)})
	if err != nil {
		return inDir(err, dir)
	}
	files, err := manifestFiles(plan)
	if err != nil {
		return err
	}
	if err := a.writeNew(path, dir, files); err != nil {
		return err
	}
	for _, note := range plan.Notes {
		a.say("%s: %s", genezio.FileName, note)
	}
	for _, f := range files {
		below, _ := filepath.Rel(path, f.path)
		a.say("wrote %s", filepath.Join(dir, below))
		if f.app == nil {
			continue
		}
		where := filepath.Join(dir, filepath.Dir(below))
		command := "lull deploy" + argument(where)
		if filepath.Base(f.path) != manifest.FileName {
			command += " --manifest " + filepath.Join(dir, below)
		}
		a.say("  %s: %s", f.app.What, command)
	}
	return nil
}

// likelyURL is where apps will be reached: as the node says, if there is one already.
func (a *app) likelyURL(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if node, err := a.node(); err == nil {
		if pattern, err := urlPattern(ctx, node); err == nil {
			return pattern
		}
	}
	return "http://<app>.localhost:8080/"
}

// newFile is a file to write. app is nil for one that goes with a manifest.
type newFile struct {
	path string
	text []byte
	app  *genezio.App
}

func manifestFiles(plan genezio.Plan) ([]newFile, error) {
	count := map[string]int{}
	for _, part := range plan.Apps {
		count[part.Dir]++
	}
	var files []newFile
	for i, part := range plan.Apps {
		text, err := manifest.Format(part.Manifest)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", part.What, err)
		}
		name := manifest.FileName
		if count[part.Dir] > 1 {
			name = "lull." + part.Name + ".yaml"
		}
		text = append([]byte("# "+part.What+" of "+genezio.FileName+"\n"), text...)
		files = append(files, newFile{filepath.Join(part.Dir, name), text, &plan.Apps[i]})
		if part.Ignore != "" && !ignores(part.Dir) {
			files = append(files, newFile{filepath.Join(part.Dir, ".lullignore"), []byte(part.Ignore), nil})
		}
	}
	return unique(files), nil
}

// unique drops what stands twice: apps in one directory share its rules.
func unique(files []newFile) []newFile {
	seen := map[string]bool{}
	var kept []newFile
	for _, f := range files {
		if !seen[f.path] {
			kept = append(kept, f)
		}
		seen[f.path] = true
	}
	return kept
}

// ignores reports whether a directory says itself what stays at home.
func ignores(dir string) bool {
	for _, name := range []string{".lullignore", genezio.IgnoreFile} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			return true
		}
	}
	return false
}

// writeNew writes files, all or none: one that is there already is never touched.
func (a *app) writeNew(path, dir string, files []newFile) error {
	for _, f := range files {
		if _, err := os.Lstat(f.path); err == nil {
			below, _ := filepath.Rel(path, f.path)
			return &lull.Error{Kind: lull.KindConflict, Message: fmt.Sprintf("%s is there already: nothing was written", filepath.Join(dir, below)),
				Hint: "rename it, or go on with it"}
		}
	}
	for _, f := range files {
		file, err := os.OpenFile(f.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return fmt.Errorf("write %s: %w", f.path, err)
		}
		_, err = file.Write(f.text)
		if err := errors.Join(err, file.Close()); err != nil {
			return fmt.Errorf("write %s: %w", f.path, err)
		}
	}
	return nil
}

// variablesOf asks a node for the names of an app's variables and secrets. An app that is not there yet has none.
func variablesOf(ctx context.Context, node control.Node) func(app string) ([]string, error) {
	known, ok := node.(interface {
		Variables(ctx context.Context, app string) ([]string, error)
	})
	if !ok {
		return nil
	}
	return func(app string) ([]string, error) {
		names, err := known.Variables(ctx, app)
		if lull.KindOf(err) == lull.KindNotFound {
			return nil, nil
		}
		return names, err
	}
}
