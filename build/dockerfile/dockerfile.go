// Package dockerfile builds the image that a Dockerfile describes, without Docker: it keeps each stage's file system in a
// directory, does what the instructions say to it, and lets somebody else run commands in it.
//
// All of it is a stranger's: the Dockerfile, the files that it copies, and what its commands leave behind. The stages are
// read and written through image.Tree only, which follows links as the image's own processes would and never out of it.
//
// The parser is buildkit's, so that a text means here what it means to docker build. go.mod stays with buildkit 0.26 until
// gVisor compiles with runtime-spec 1.3, which later ones ask for.
package dockerfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/build/archive"
	"github.com/lull-dev/lull/build/image"
)

// Bounds on what is kept in memory of a Dockerfile. Variables can hold other variables twice over, so they need their own.
const (
	maxText   = 1 << 20 // of the file
	maxWord   = 64 << 10
	maxStages = 100
)

// Options say what is built.
type Options struct {
	Context string // directory of the files that COPY means
	File    string // the Dockerfile, below Context; slash-separated
	Work    string // an existing, empty directory for the stages; the caller removes it
	Limits  archive.Limits

	// Run runs a command in the file system of a stage, which it may change, and waits for it. An error ends the build.
	Run func(ctx context.Context, step Step) error

	// Note takes lines for people.
	Note func(format string, args ...any)
}

// Step is a command of a RUN instruction.
type Step struct {
	Title   string // as in the Dockerfile
	Root    string // directory with the stage's file system
	Args    []string
	Env     []string
	Dir     string // absolute, inside; it is there
	User    string // 33:33
	Offline bool   // without a network
}

// Result is what was built.
type Result struct {
	Root   string // directory with the file system, below Options.Work
	Config image.Config
}

// Build builds the last stage of a Dockerfile and those that it needs. Errors are *lull.Error with KindInvalid where the
// Dockerfile is to blame, and name its line.
func Build(ctx context.Context, options Options) (Result, error) {
	b := &builder{Options: options, left: options.Limits}
	if err := b.open(); err != nil {
		return Result{}, err
	}
	defer b.context.Close()
	if err := b.parse(); err != nil {
		return Result{}, err
	}
	last, err := b.stage(ctx, len(b.stages)-1)
	if err != nil {
		return Result{}, err
	}
	tree, err := image.OpenTree(last.dir, options.Limits)
	if err != nil {
		return Result{}, err
	}
	if err := errors.Join(tree.Tidy(), tree.Close()); err != nil {
		return Result{}, err
	}
	return Result{Root: last.dir, Config: image.ConfigOf(last.config)}, nil
}

// builder is one build. It is used by one goroutine.
type builder struct {
	Options
	context *image.Tree
	ignored *archive.DockerIgnore
	left    archive.Limits // what may still be written, in all stages together

	escape rune
	stages []instructions.Stage
	global variables // ARG before the first FROM
	uses   []int     // how often each stage is named by others
	done   map[int]*stage
	images map[string]*stage // that COPY --from names
	dirs   []string          // with the stages' file systems
}

func (b *builder) open() (err error) {
	if b.File = path.Clean(b.File); !filepath.IsLocal(b.File) {
		return invalid("the path is relative to the app's directory", "there is no %s in it", b.File)
	}
	if b.context, err = image.OpenTree(b.Context, b.Limits); err != nil {
		return err
	}
	if b.ignored, err = archive.ReadDockerIgnore(b.context.Root(), b.File); err != nil {
		return errors.Join(err, b.context.Close())
	}
	b.done, b.images = map[int]*stage{}, map[string]*stage{}
	return nil
}

// parse reads the Dockerfile.
func (b *builder) parse() error {
	text, err := b.text()
	if err != nil {
		return err
	}
	parsed, err := parser.Parse(bytes.NewReader(text))
	if err != nil {
		return b.malformed(err)
	}
	stages, arguments, err := instructions.Parse(parsed.AST, nil)
	if err != nil {
		return b.malformed(err)
	}
	switch {
	case len(stages) == 0:
		return invalid("begin with FROM and the name of an image", "%s has no FROM", b.File)
	case len(stages) > maxStages:
		return invalid("", "%s has more than %d stages", b.File, maxStages)
	}
	b.stages, b.escape = stages, parsed.EscapeToken
	b.global = variables{escape: b.escape}
	for _, argument := range arguments {
		if err := b.globalArg(&argument); err != nil {
			return b.at(&argument, err)
		}
	}
	b.uses = make([]int, len(stages))
	for i, s := range stages {
		for _, name := range b.named(s) {
			if n, ok := b.find(name, i); ok {
				b.uses[n]++
			}
		}
	}
	return nil
}

func (b *builder) text() ([]byte, error) {
	real, info, err := b.context.Find(b.File)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, invalid("the path is relative to the app's directory; a .dockerignore or .lullignore that names it keeps it from being sent", "there is no %s", b.File)
	case err != nil || !info.Mode().IsRegular() || info.Size() > maxText:
		return nil, invalid("", "%s is not a file of at most %s inside the app's directory", b.File, lull.Size(maxText))
	}
	text, err := b.context.Root().ReadFile(real)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", b.File, err)
	}
	return text, nil
}

// named returns the names in a stage that may be other stages.
func (b *builder) named(s instructions.Stage) []string {
	base, _ := b.global.withPlatform().expand(s.BaseName)
	names := []string{base}
	for _, command := range s.Commands {
		if c, ok := command.(*instructions.CopyCommand); ok && c.From != "" {
			names = append(names, c.From)
		}
	}
	return names
}

// find finds a stage before the one with this number, by its name, or for COPY by its number.
func (b *builder) find(name string, before int) (int, bool) {
	for i := before - 1; i >= 0; i-- {
		if b.stages[i].Name != "" && strings.EqualFold(b.stages[i].Name, name) {
			return i, true
		}
	}
	n, err := strconv.Atoi(name)
	return n, err == nil && n >= 0 && n < before
}

func (b *builder) globalArg(argument *instructions.ArgCommand) error {
	vars := b.global.withPlatform()
	if err := argument.Expand(vars.expand); err != nil {
		return err
	}
	for _, pair := range argument.Args {
		if pair.Value != nil {
			b.global.set(pair.Key, *pair.Value)
		}
	}
	return nil
}

// newDir makes a directory for a file system.
func (b *builder) newDir() (string, error) {
	dir := filepath.Join(b.Work, strconv.Itoa(len(b.dirs)))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", fmt.Errorf("open stage: %w", err)
	}
	b.dirs = append(b.dirs, dir)
	return dir, os.Chmod(dir, 0o755) // any user must get in
}

// tree opens the file system of a stage for writing. What close returns counts.
func (b *builder) tree(dir string) (tree *image.Tree, closeTree func() error, err error) {
	if tree, err = image.OpenTree(dir, b.left); err != nil {
		return nil, nil, err
	}
	return tree, func() error {
		b.left = tree.Left()
		return tree.Close()
	}, nil
}

func platform() v1.Platform { return v1.Platform{OS: "linux", Architecture: runtime.GOARCH} }

// malformed is the error about a text that the parser does not take.
func (b *builder) malformed(err error) error {
	line := 0
	var place *parser.LocationError
	if errors.As(err, &place) {
		for _, ranges := range place.Locations {
			if len(ranges) > 0 {
				line = ranges[0].Start.Line
			}
		}
	}
	message := strings.TrimPrefix(err.Error(), "dockerfile parse error ")
	if at, rest, ok := strings.Cut(strings.TrimPrefix(message, "on line "), ": "); ok && rest != "" {
		if n, err := strconv.Atoi(at); err == nil {
			line, message = n, rest
		}
	}
	if line == 0 {
		return invalid("", "%s: %s", b.File, message)
	}
	return invalid("", "%s:%d: %s", b.File, line, message)
}

// located is an instruction, which knows where it stands.
type located interface{ Location() []parser.Range }

// at adds the line of an instruction to an error that is the Dockerfile's.
func (b *builder) at(command located, err error) error {
	line := 0
	if ranges := command.Location(); len(ranges) > 0 {
		line = ranges[0].Start.Line
	}
	return b.atLine(line, err)
}

func (b *builder) atLine(line int, err error) error {
	var known *lull.Error
	switch {
	case errors.As(err, &known):
		return &lull.Error{Kind: known.Kind, Message: fmt.Sprintf("%s:%d: %s", b.File, line, known.Message), Hint: known.Hint, Err: known.Err}
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		return err
	}
	return fmt.Errorf("%s:%d: %w", b.File, line, err)
}

func invalid(hint, format string, args ...any) error {
	return &lull.Error{Kind: lull.KindInvalid, Message: fmt.Sprintf(format, args...), Hint: hint}
}
