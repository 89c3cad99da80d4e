package build

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/build/image"
)

// fromImage makes a release of the image that the manifest names.
func (j *job) fromImage(ctx context.Context) (Result, error) {
	if !j.config.Driver.Capabilities().Images {
		return Result{}, &lull.Error{Kind: lull.KindUnsupported, Message: "image: the " + j.config.Driver.Name() + " sandbox cannot run images",
			Hint: "run the node as root on Linux, with the gvisor sandbox"}
	}
	scratch, files := ownDir+"/scratch", ownDir+"/root"
	for _, dir := range []string{scratch, files} {
		if err := j.root.MkdirAll(dir, 0o755); err != nil {
			return Result{}, fmt.Errorf("open image: %w", err)
		}
	}
	j.out.note("reading image %s", j.manifest.Image)
	opened, err := image.Open(ctx, image.Source{Name: j.manifest.Image, Dir: j.dir, Scratch: filepath.Join(j.dir, scratch),
		Platform: v1.Platform{OS: "linux", Architecture: runtime.GOARCH}, Limits: j.limits.release})
	if err != nil {
		return Result{}, err
	}
	defer opened.Close()
	j.out.note("unpacking its files")
	root := filepath.Join(j.dir, files)
	if err := errors.Join(opened.Unpack(ctx, root), j.root.RemoveAll(scratch)); err != nil {
		return Result{}, err
	}
	return j.imageResult(j.manifest.Image, root, opened.Config())
}

// imageResult is a release of the file system and configuration of an image.
func (j *job) imageResult(name, root string, config image.Config) (Result, error) {
	args := config.Args
	if j.manifest.Run != "" {
		args = commandArgs(j.manifest.Run)
	}
	if len(args) == 0 {
		return Result{}, invalid("write run: into lull.yaml", "image: %s has neither an entry point nor a command", name)
	}
	user, err := image.LookUp(root, config.User)
	if err != nil {
		return Result{}, err
	}
	var env []string
	for _, entry := range config.Env {
		if !strings.HasPrefix(entry, "PORT=") {
			env = append(env, entry)
		}
	}
	process := lull.Process{
		Args: args,
		Dir:  config.Dir,
		User: user.String(),
		Root: lull.RootImage,
		Port: j.port(config.Env, config.Ports),
		Env:  mergeEnv([]string{"PATH=" + toolPath, "HOME=" + user.Home}, env, j.variables()),
	}
	run := j.manifest.Run
	if run == "" {
		run = joinWords(args)
	}
	return Result{Root: root, Manifest: j.complete(run, process.Port), Process: process}, nil
}
