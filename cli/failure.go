package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/manifest"
)

// errInterrupted is the cause of a context that a signal has cancelled.
var errInterrupted = errors.New("interrupted")

// usageError says that a command was not understood: exit code 2.
type usageError struct {
	message string
	command string // whose help explains it; "" is the program's
}

func (e *usageError) Error() string { return e.message }

// silentError is a failure that the command has already printed: only its exit code is left.
type silentError struct{ error }

// fail prints err the way every command fails, "lull: <message>" and a line on what to do, and returns the exit code.
func (a *app) fail(err error) int {
	var usage *usageError
	var silent *silentError
	var broken *manifest.Error
	switch {
	case errors.As(err, &usage):
		a.say("lull: %s", indentRest(usage.message))
		a.say("      %s", "see: "+strings.TrimSpace(cmp.Or(usage.command, "lull")+" --help"))
		return ExitUsage
	case errors.As(err, &silent):
	case errors.As(err, &broken):
		a.sayManifest(broken)
	case errors.Is(err, context.Canceled) || errors.Is(err, errInterrupted):
		a.say("lull: interrupted")
	default:
		a.sayError(err)
	}
	return ExitFailed
}

// sayError prints one failure and its hint.
func (a *app) sayError(err error) {
	a.say("lull: %s", indentRest(err.Error()))
	if hint := lull.HintOf(err); hint != "" {
		a.say("      %s", indentRest(hint))
	}
}

// sayManifest prints every problem of a lull.yaml on a line that editors and terminals can jump to.
func (a *app) sayManifest(broken *manifest.Error) {
	what := "1 mistake"
	if n := len(broken.Problems); n != 1 {
		what = fmt.Sprintf("%d mistakes", n)
	}
	a.say("lull: %s has %s", broken.File, what)
	for _, p := range broken.Problems {
		path := p.Path
		if path != "" {
			path += ": "
		}
		a.say("  %s:%d:%d: %s%s", broken.File, p.Line, p.Column, path, p.Message)
	}
}

// say prints one line to the person. Control characters are made visible, except the line ends the message itself has.
func (a *app) say(format string, args ...any) {
	fmt.Fprintln(a.env.Stderr, visibleLines(fmt.Sprintf(format, args...)))
}

// indentRest lines up the later lines of a message, such as an app's last output, below the first.
func indentRest(text string) string {
	return strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n      ")
}

// exactly wants n arguments, named as in the command's Use line.
func exactly(n int) cobra.PositionalArgs { return between(n, n) }

// between wants from least to most arguments and says which are missing.
func between(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		names := strings.Fields(cmd.Use)[1:]
		switch {
		case len(args) < least:
			return &usageError{message: cmd.Name() + " needs " + names[len(args)], command: cmd.CommandPath()}
		case len(args) > most:
			return &usageError{message: fmt.Sprintf("%s does not know what to do with %q", cmd.Name(), args[most]),
				command: cmd.CommandPath()}
		}
		return nil
	}
}
