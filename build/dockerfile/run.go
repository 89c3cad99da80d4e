package dockerfile

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/lull-dev/lull/build/image"
)

// defaultPath is where commands are looked for in an image that does not say so.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// run carries out a RUN instruction.
func (b *builder) run(ctx context.Context, s *stage, c *instructions.RunCommand) error {
	if err := b.checkFlags(c); err != nil {
		return err
	}
	args, err := s.script(c.ShellDependantCmdLine)
	if err != nil {
		return err
	}
	if len(args) == 0 || args[0] == "" {
		return invalid("", "RUN has no command")
	}
	user, err := image.LookUp(s.dir, s.config.User)
	if err != nil {
		return err
	}
	dir := s.absolute("")
	if err := b.workdir(s, dir); err != nil { // an earlier step may have removed it
		return err
	}
	env := variables{list: []string{"PATH=" + defaultPath, "HOME=" + user.Home}}
	for _, entry := range s.vars().list {
		key, value, _ := strings.Cut(entry, "=")
		env.set(key, value)
	}
	err = b.Run(ctx, Step{Title: title(c), Root: s.dir, Args: args, Env: env.list, Dir: dir, User: user.String(),
		Offline: instructions.GetNetwork(c) == instructions.NetworkNone})
	if err != nil {
		return err
	}
	return b.recount()
}

// recount finds out what may still be written after a step that has written by itself.
func (b *builder) recount() error {
	b.left = b.Limits
	for _, dir := range b.dirs {
		if err := b.spend(dir); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) checkFlags(c *instructions.RunCommand) error {
	for _, mount := range instructions.GetMounts(c) {
		switch mount.Type {
		case instructions.MountTypeCache, instructions.MountTypeTmpfs:
			b.Note("--mount=type=%s is left out: %s is a directory of the image", mount.Type, mount.Target)
		default:
			return invalid("copy what the step needs: COPY, and rm in the end", "RUN --mount=type=%s is not supported", mount.Type)
		}
	}
	if len(instructions.GetDevices(c)) > 0 || instructions.GetSecurity(c) != instructions.SecuritySandbox {
		return invalid("", "RUN --device and --security are not supported: steps run in a sandbox")
	}
	if instructions.GetNetwork(c) == instructions.NetworkHost {
		return invalid("leave it out", "RUN --network=host is not supported: steps run in a sandbox")
	}
	return nil
}

var onlyHeredoc = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^<<-?['"]?[A-Za-z0-9_.]+['"]?$`) })

// script returns the arguments of a command with its here-documents.
func (s *stage) script(line instructions.ShellDependantCmdLine) ([]string, error) {
	if len(line.Files) == 0 {
		return s.commandLine(line), nil
	}
	if !line.PrependShell {
		return nil, invalid("", "a here-document needs the shell form of RUN")
	}
	text := strings.Join(line.CmdLine, " ")
	if len(line.Files) == 1 && onlyHeredoc().MatchString(strings.TrimSpace(text)) {
		text = content(line.Files[0].Data, line.Files[0].Chomp)
		if strings.HasPrefix(text, "#!") {
			return nil, invalid("name the interpreter: RUN python3 <<EOF", "a here-document with a first line #! is not supported")
		}
		return slices.Concat(s.shell(), []string{text}), nil
	}
	for _, file := range line.Files {
		text += "\n" + file.Data + file.Name
	}
	return slices.Concat(s.shell(), []string{text}), nil
}

func content(data string, chomp bool) string {
	if chomp {
		return parser.ChompHeredocContent(data)
	}
	return data
}
