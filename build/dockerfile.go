package build

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/build/dockerfile"
	"github.com/lull-dev/lull/sandbox"
)

// errDockerfile is what detect finds in a directory with a Dockerfile and nothing else that says how to start an app.
var errDockerfile = errors.New("there is a Dockerfile")

// fromDockerfile makes a release of the image that a Dockerfile of the app describes.
func (j *job) fromDockerfile(ctx context.Context, name string) (Result, error) {
	can := j.config.Driver.Capabilities()
	switch {
	case !can.Images || !can.Isolation:
		return Result{}, &lull.Error{Kind: lull.KindUnsupported, Message: "the " + j.config.Driver.Name() + " sandbox cannot build a Dockerfile",
			Hint: "run the node as root on Linux, with the gvisor sandbox"}
	case j.manifest.Build != "":
		return Result{}, invalid("leave build: out of lull.yaml, and let the Dockerfile RUN it", "a Dockerfile says how the app is built, and so does lull.yaml")
	}
	work := ownDir + "/stages"
	if err := j.root.MkdirAll(work, 0o755); err != nil {
		return Result{}, fmt.Errorf("open stages: %w", err)
	}
	limits := j.limits.release
	limits.Bytes = min(limits.Bytes, j.limits.resources.Disk)
	built, err := dockerfile.Build(ctx, dockerfile.Options{
		Context: j.dir, File: name, Work: filepath.Join(j.dir, work), Limits: limits,
		Run: j.instruction, Note: j.out.note,
	})
	if err != nil {
		return Result{}, err
	}
	return j.imageResult(name, built.Root, built.Config)
}

// instruction runs a command of a Dockerfile, as step does one of the app's build.
func (j *job) instruction(ctx context.Context, do dockerfile.Step) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	j.out.begin()
	j.out.note("%s", do.Title)
	stdout, stderr := &lineWriter{out: j.out}, &lineWriter{out: j.out}
	spec := sandbox.Spec{
		ID:     "build-" + strings.ToLower(rand.Text()[:16]),
		Root:   do.Root,
		Args:   do.Args,
		Env:    mergeEnv(do.Env, j.config.Env),
		Dir:    do.Dir,
		User:   do.User,
		Limits: j.limits.resources,
		Egress: lull.Egress{lull.EgressInternet},
		Stdout: stdout,
		Stderr: stderr,

		WritableRoot: true,
	}
	if do.Offline {
		spec.Egress = lull.Egress{lull.EgressNone}
	}
	exit, err := j.execute(ctx, spec)
	stdout.flush()
	stderr.flush()
	var known *lull.Error
	switch {
	case errors.As(err, &known):
		return &lull.Error{Kind: known.Kind, Message: "build: " + do.Title + " was stopped: " + known.Message + j.out.last()}
	case err != nil && ctx.Err() == nil:
		// A command that is not there is the usual reason.
		return &lull.Error{Kind: lull.KindBuild, Message: "build: " + do.Title + ": " + err.Error(), Err: err,
			Hint: "RUN with a text needs /bin/sh in the image; an image from scratch has none"}
	case err != nil:
		return err
	}
	return j.judge(step{title: do.Title}, exit)
}
