// Package build turns a directory into a release. It finds out what the directory holds (a Node, Python or Go app, a
// program, or a reference to an OCI image), installs and compiles in a sandbox what has to be, and says how the result is
// started.
//
// The code that a build runs is a stranger's, and runs as root of its own sandbox with the app's files writable. So what
// it leaves behind is a stranger's too: this package reads and writes those files through os.Root only, never follows a
// link out of them, and shares no cache between apps.
package build

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/build/archive"
	"github.com/lull-dev/lull/manifest"
	"github.com/lull-dev/lull/sandbox"
)

// DefaultTimeout is how long a build may take unless Config says otherwise.
const DefaultTimeout = 10 * time.Minute

// atOnce is how many builds run at a time: each may use two processors and 2 GB.
const atOnce = 2

// Config is what a Builder needs.
type Config struct {
	Driver  sandbox.Driver
	Dir     string        // work and cache; nobody else's
	Log     *slog.Logger  // nil: nothing is logged
	Timeout time.Duration // of one build; 0 is DefaultTimeout

	// Env is added to the environment of every build step, KEY=value: GOPROXY, npm_config_registry, HTTPS_PROXY. It is
	// for the operator; an app's own env is for its run time and not seen by its build.
	Env []string
}

// Builder makes releases. It may be used concurrently; builds of the same app run one after the other.
type Builder struct {
	config Config
	limits limits
	slots  chan struct{}

	mu   sync.Mutex
	apps map[string]*turn // apps with builds under way or waiting; guarded by mu
}

// limits bound one build step.
type limits struct {
	resources lull.Resources
	look      time.Duration // how often the disk is looked at
	release   archive.Limits
}

// Source is what is built.
type Source struct {
	App      string        // the app's name; empty: the manifest's, else the directory's
	Dir      string        // the app's files. The build works in it and the caller removes it afterwards
	Manifest lull.Manifest // what Dir's lull.yaml says, with defaults
}

// Result is a release in the making. Everything it names lies in Source.Dir.
type Result struct {
	Root     string        // directory with what becomes the release
	Manifest lull.Manifest // complete, with name and run
	Process  lull.Process
}

// New returns a builder. It touches nothing until the first build.
func New(config Config) *Builder {
	config.Timeout = cmp.Or(config.Timeout, DefaultTimeout)
	config.Log = cmp.Or(config.Log, slog.New(slog.DiscardHandler))
	return &Builder{
		config: config,
		slots:  make(chan struct{}, atOnce),
		apps:   map[string]*turn{},
		limits: limits{
			resources: lull.Resources{Memory: 2 * lull.GB, CPU: 2, Disk: 4 * lull.GB, Processes: 2048},
			look:      3 * time.Second,
			release:   archive.Release().Limits,
		},
	}
}

// Build makes a release of src. What it does, and what the tools it runs print, goes to out, line by line. Errors are
// *lull.Error with KindInvalid if the app cannot be built as it is, KindBuild if its build fails. A build that fails
// leaves nothing outside of src.Dir but its cache of downloads.
func (b *Builder) Build(ctx context.Context, src Source, out io.Writer) (Result, error) {
	app := cmp.Or(src.App, src.Manifest.Name, manifest.NameFor(src.Dir))
	if !lull.ValidName(app) {
		return Result{}, &lull.Error{Kind: lull.KindInvalid, Message: fmt.Sprintf("%q cannot be the name of an app", app),
			Hint: "use up to 40 lower-case letters, digits and single hyphens, such as my-app"}
	}
	lines := newOutput(out)
	leave, err := b.enter(ctx, app, lines)
	if err != nil {
		return Result{}, err
	}
	defer leave()

	late := &lull.Error{Kind: lull.KindBuild, Message: "the build was not done after " + lull.Duration(b.config.Timeout).String()}
	ctx, cancel := context.WithTimeoutCause(ctx, b.config.Timeout, late)
	defer cancel()
	j, err := b.open(app, src, lines)
	if err != nil {
		return Result{}, err
	}
	defer j.root.Close()
	began := time.Now()
	result, err := j.run(ctx)
	if err != nil {
		left := j.root.RemoveAll(ownDir)
		b.config.Log.Debug("build failed", "app", app, "took", time.Since(began), "err", err, "left", left)
		return Result{}, err
	}
	b.config.Log.Debug("build done", "app", app, "took", time.Since(began))
	return result, nil
}

// Forget removes what is kept to make the next build of an app faster.
func (b *Builder) Forget(app string) error {
	if !lull.ValidName(app) {
		return nil
	}
	return os.RemoveAll(filepath.Join(b.config.Dir, "cache", app))
}

func (b *Builder) open(app string, src Source, lines *output) (*job, error) {
	dir, dirErr := filepath.Abs(src.Dir)
	cache, cacheErr := filepath.Abs(filepath.Join(b.config.Dir, "cache", app))
	if err := errors.Join(dirErr, cacheErr); err != nil {
		return nil, fmt.Errorf("open build: %w", err)
	}
	j := &job{Builder: b, app: app, dir: dir, manifest: src.Manifest, out: lines, cache: cache,
		isolated: b.config.Driver.Capabilities().Isolation}
	for _, dir := range []string{j.downloads(), j.installed()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("open build: %w", err)
		}
	}
	var err error
	if j.root, err = os.OpenRoot(dir); err != nil {
		return nil, fmt.Errorf("open build: %w", err)
	}
	if err := j.root.RemoveAll(ownDir); err != nil {
		j.root.Close()
		return nil, fmt.Errorf("open build: %w", err)
	}
	return j, nil
}

// turn is the right to build an app: whoever can send has it.
type turn struct {
	held    chan struct{}
	waiters int // including the holder; guarded by Builder.mu
}

// enter waits until no other build of the app runs, and for room on the machine. The caller calls leave, once.
func (b *Builder) enter(ctx context.Context, app string, lines *output) (leave func(), err error) {
	b.mu.Lock()
	t := b.apps[app]
	if t == nil {
		t = &turn{held: make(chan struct{}, 1)}
		b.apps[app] = t
	}
	t.waiters++
	b.mu.Unlock()
	forget := func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if t.waiters--; t.waiters == 0 {
			delete(b.apps, app)
		}
	}
	if err := claim(ctx, t.held, lines, "waiting for another build of "+app+" to end"); err != nil {
		forget()
		return nil, err
	}
	if err := claim(ctx, b.slots, lines, "waiting for other builds to end"); err != nil {
		<-t.held
		forget()
		return nil, err
	}
	return func() {
		<-b.slots
		<-t.held
		forget()
	}, nil
}

// claim takes a place in a channel and says so if it has to wait for it.
func claim(ctx context.Context, places chan struct{}, lines *output, why string) error {
	select {
	case places <- struct{}{}:
		return nil
	default:
	}
	lines.note("%s", why)
	select {
	case places <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
