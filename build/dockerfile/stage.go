package dockerfile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/build/image"
)

// stage is a file system and the configuration of the image it would make.
type stage struct {
	number int
	dir    string
	config v1.Config
	args   variables // of ARG
	hasCmd bool      // CMD was in this stage: then ENTRYPOINT leaves it
}

// vars are the variables at this place: ENV goes before ARG.
func (s *stage) vars() variables {
	return variables{s.args.escape, slices.Concat(s.args.list, s.config.Env)}
}

// stage builds a stage and what it needs, once.
func (b *builder) stage(ctx context.Context, n int) (*stage, error) {
	if s := b.done[n]; s != nil {
		return s, nil
	}
	from := b.stages[n]
	title := "FROM " + from.BaseName
	if from.Name != "" {
		title += " AS " + from.Name
	}
	line := 0
	if len(from.Location) > 0 {
		line = from.Location[0].Start.Line
	}
	s, err := b.from(ctx, n, title)
	if err != nil {
		return nil, b.atLine(line, err)
	}
	for _, command := range from.Commands {
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		if err := b.do(ctx, s, command); err != nil {
			if _, ok := command.(*instructions.RunCommand); ok && lull.KindOf(err) == lull.KindBuild {
				return nil, err // says what it is about
			}
			return nil, b.at(command, err)
		}
	}
	b.done[n] = s
	return s, nil
}

// from makes the beginning of a stage.
func (b *builder) from(ctx context.Context, n int, title string) (*stage, error) {
	given := b.stages[n]
	vars := b.global.withPlatform()
	name, err := vars.expand(given.BaseName)
	if err != nil {
		return nil, err
	}
	if err := b.checkPlatform(vars, given.Platform); err != nil {
		return nil, err
	}
	s := &stage{number: n, args: variables{escape: b.escape}}
	for i := n - 1; i >= 0; i-- {
		if b.stages[i].Name == "" || !strings.EqualFold(b.stages[i].Name, name) {
			continue
		}
		base, err := b.stage(ctx, i)
		if err != nil {
			return nil, err
		}
		b.Note("%s", title)
		s.config = *base.config.DeepCopy()
		if b.uses[i] == 1 { // nobody else wants it as it is
			s.dir = base.dir
			return s, nil
		}
		return s, b.clone(ctx, s, base)
	}
	b.Note("%s", title)
	switch name {
	case "":
		return nil, invalid("an ARG that FROM uses has to be before the first FROM, with a value", "FROM has no name of an image")
	case "scratch":
		s.dir, err = b.newDir()
		return s, err
	}
	return s, b.fetch(ctx, s, name)
}

func (b *builder) checkPlatform(vars variables, text string) error {
	text, err := vars.expand(text)
	if err != nil || text == "" {
		return err
	}
	wanted, err := v1.ParsePlatform(text)
	if err != nil || !platform().Satisfies(v1.Platform{OS: wanted.OS, Architecture: wanted.Architecture}) {
		return invalid("leave --platform out", "--platform=%s is not what this node is: %s", text, platform())
	}
	return nil
}

// fetch fills a stage with the files and the configuration of an image.
func (b *builder) fetch(ctx context.Context, s *stage, name string) (err error) {
	if s.dir, err = b.newDir(); err != nil {
		return err
	}
	scratch, empty := filepath.Join(b.Work, "scratch"), filepath.Join(b.Work, "empty")
	if err := errors.Join(os.MkdirAll(scratch, 0o700), os.MkdirAll(empty, 0o700)); err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	dir := empty // busybox is an image even if the app has a directory of that name
	if image.IsPath(name) {
		dir = b.Context
	}
	opened, err := image.Open(ctx, image.Source{Name: name, Dir: dir, Scratch: scratch, Platform: platform(), Limits: b.left})
	if err != nil {
		return unreachable(err)
	}
	defer opened.Close()
	if err := opened.Unpack(ctx, s.dir); err != nil {
		return err
	}
	config := opened.OCI()
	s.config = *config.DeepCopy()
	if len(s.config.OnBuild) > 0 {
		return invalid("write what they do into the Dockerfile", "%s has ONBUILD instructions, which are not carried out", name)
	}
	return b.spend(s.dir)
}

// unreachable changes the hint of an error about a registry to one for a Dockerfile.
func unreachable(err error) error {
	var known *lull.Error
	if !errors.As(err, &known) || known.Kind != lull.KindBuild {
		return err
	}
	return &lull.Error{Kind: known.Kind, Message: known.Message, Err: known.Err,
		Hint: "if this node cannot reach the registry: make a file with docker save -o base.tar NAME, and write FROM ./base.tar"}
}

// spend takes what is in a directory off what may still be written.
func (b *builder) spend(dir string) error {
	tree, err := image.OpenTree(dir, b.left)
	if err != nil {
		return err
	}
	b.left, err = tree.Count()
	return errors.Join(err, tree.Close())
}

// clone copies another stage's files.
func (b *builder) clone(ctx context.Context, s, base *stage) (err error) {
	if s.dir, err = b.newDir(); err != nil {
		return err
	}
	from, err := image.OpenTree(base.dir, b.left)
	if err != nil {
		return err
	}
	defer from.Close()
	to, done, err := b.tree(s.dir)
	if err != nil {
		return err
	}
	c := &copier{ctx: ctx, from: from, to: to}
	return errors.Join(c.into(".", "/"), done())
}

// do carries out one instruction.
func (b *builder) do(ctx context.Context, s *stage, command instructions.Command) error {
	vars := s.vars()
	if c, ok := command.(instructions.SupportsSingleWordExpansion); ok {
		if err := c.Expand(vars.expand); err != nil {
			return known(err)
		}
	}
	if c, ok := command.(instructions.SupportsSingleWordExpansionRaw); ok {
		if err := c.ExpandRaw(vars.expandRaw); err != nil {
			return known(err)
		}
	}
	switch c := command.(type) {
	case *instructions.RunCommand:
		return b.run(ctx, s, c)
	case *instructions.CopyCommand:
		b.Note("%s", title(c))
		return b.copy(ctx, s, c)
	case *instructions.AddCommand:
		b.Note("%s", title(c))
		return b.add(ctx, s, c)
	case *instructions.WorkdirCommand:
		return b.workdir(s, c.Path)
	case *instructions.ArgCommand:
		return b.arg(s, c)
	case *instructions.OnbuildCommand:
		return invalid("leave it out: nobody builds on this image", "ONBUILD is not carried out")
	}
	return b.configure(s, command)
}

// known makes an error of the expansion one of ours.
func known(err error) error {
	if errors.As(err, new(*lull.Error)) {
		return err
	}
	return invalid("", "%s", err)
}

// configure changes what the image says about itself.
func (b *builder) configure(s *stage, command instructions.Command) error {
	switch c := command.(type) {
	case *instructions.EnvCommand:
		env := variables{list: slices.Clone(s.config.Env)}
		for _, pair := range c.Env {
			env.set(pair.Key, pair.Value)
		}
		s.config.Env = env.list
	case *instructions.CmdCommand:
		s.config.Cmd, s.hasCmd = s.commandLine(c.ShellDependantCmdLine), true
	case *instructions.EntrypointCommand:
		s.config.Entrypoint = s.commandLine(c.ShellDependantCmdLine)
		if !s.hasCmd {
			s.config.Cmd = nil
		}
	case *instructions.ExposeCommand:
		return s.expose(c.Ports)
	case *instructions.UserCommand:
		s.config.User = c.User
	case *instructions.ShellCommand:
		s.config.Shell = c.Shell
	case *instructions.LabelCommand, *instructions.MaintainerCommand:
	case *instructions.VolumeCommand:
		b.Note("VOLUME is left out: files that an app writes are gone with its environment")
	case *instructions.HealthCheckCommand:
		b.Note("HEALTHCHECK is left out: write ready: with a path into lull.yaml if the app needs one")
	case *instructions.StopSignalCommand:
		if c.Signal != "SIGTERM" && c.Signal != "TERM" && c.Signal != "15" {
			b.Note("STOPSIGNAL is left out: apps are asked to end with SIGTERM")
		}
	default:
		return invalid("", "%s is not supported", strings.ToUpper(command.Name()))
	}
	return nil
}

func (s *stage) expose(ports []string) error {
	exposed := map[string]struct{}{}
	for port := range s.config.ExposedPorts {
		exposed[port] = struct{}{}
	}
	for _, text := range ports {
		words, err := s.vars().words(text)
		if err != nil {
			return err
		}
		for _, word := range words {
			number, protocol, ok := strings.Cut(word, "/")
			if !ok {
				protocol = "tcp"
			}
			if !isPort(number) || protocol != "tcp" && protocol != "udp" {
				return invalid("", "EXPOSE: %q is not a port", word)
			}
			exposed[number+"/"+strings.ToLower(protocol)] = struct{}{}
		}
	}
	s.config.ExposedPorts = exposed
	return nil
}

// isPort accepts a port, and a range of them, which says nothing about the one to use.
func isPort(text string) bool {
	low, high, _ := strings.Cut(text, "-")
	for _, number := range []string{low, high} {
		if strings.Trim(number, "0123456789") != "" || len(number) > 5 {
			return false
		}
	}
	return low != ""
}

func (b *builder) workdir(s *stage, dir string) error {
	dir = s.absolute(dir)
	tree, done, err := b.tree(s.dir)
	if err != nil {
		return err
	}
	s.config.WorkingDir = dir
	return errors.Join(tree.MakeDir(dir), done())
}

// absolute is a path as seen from the working directory.
func (s *stage) absolute(name string) string {
	if !path.IsAbs(name) {
		name = path.Join("/", s.config.WorkingDir, name)
	}
	return path.Clean(name)
}

// arg declares variables: with its own value, or the one from before the first FROM.
func (b *builder) arg(s *stage, c *instructions.ArgCommand) error {
	for _, pair := range c.Args {
		value, ok := b.global.withPlatform().get(pair.Key)
		if pair.Value != nil {
			value, ok = *pair.Value, true
		}
		if ok {
			s.args.set(pair.Key, value)
		}
	}
	return nil
}

// commandLine puts the shell before a text.
func (s *stage) commandLine(line instructions.ShellDependantCmdLine) []string {
	args := slices.Clone(line.CmdLine)
	if line.PrependShell {
		args = slices.Concat(s.shell(), []string{strings.Join(args, " ")})
	}
	return args
}

func (s *stage) shell() []string {
	if len(s.config.Shell) > 0 {
		return s.config.Shell
	}
	return []string{"/bin/sh", "-c"}
}

// title is an instruction as one line.
func title(command instructions.Command) string {
	const most = 160
	text := command.Name()
	if c, ok := command.(fmt.Stringer); ok {
		text = c.String()
	}
	text = strings.Join(strings.Fields(strings.ReplaceAll(text, "\\\n", " ")), " ")
	if runes := []rune(text); len(runes) > most {
		text = string(runes[:most]) + "…"
	}
	return text
}
