package build

import (
	"context"
	"fmt"
	"path"
	"path/filepath"

	"github.com/lull-dev/lull"
)

// static makes a release of files that are served as they are, once they are built.
func (j *job) static(ctx context.Context) (Result, error) {
	node, err := findNode(j)
	if err != nil {
		return Result{}, err
	}
	switch {
	case j.manifest.Build != "":
		err = j.step(ctx, step{args: []string{"sh", "-c", j.manifest.Build}, title: j.manifest.Build})
	case node != nil && node.pkg.Scripts["build"] != "":
		j.out.note("found a site that is built with Node")
		err = node.build(ctx, j)
	}
	if err != nil {
		return Result{}, err
	}
	if err := j.tidy(); err != nil {
		return Result{}, err
	}
	root := path.Clean(j.manifest.Static.Root)
	if !filepath.IsLocal(root) || !j.isRealDir(root) {
		return Result{}, invalid("static.root names the directory that holds index.html, once the app is built", "static.root: there is no directory %s", root)
	}
	if err := j.root.RemoveAll(ownDir); err != nil {
		return Result{}, fmt.Errorf("tidy what was built: %w", err)
	}
	if err := j.trim(); err != nil {
		j.config.Log.Warn("build cache not trimmed", "app", j.app, "err", err)
	}
	m := j.manifest
	m.Name = j.app
	return Result{Root: filepath.Join(j.dir, root), Manifest: m, Process: lull.Process{Root: lull.RootHost, Dir: lull.AppDir}}, nil
}
