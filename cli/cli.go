// Package cli is the command line of Lull. Everything from outside the process (arguments, streams, the environment,
// directories, signals, the clock, the node itself) comes in through one struct, Env, so that a test can play a whole
// session.
//
// stdout carries data and nothing else: tables, JSON, the URL of a deploy. stderr carries the talk.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lull-dev/lull/control"
)

// Exit codes of every command. They are printed in "lull help".
const (
	ExitOK     = 0
	ExitFailed = 1
	ExitUsage  = 2
)

// Env is everything from outside the process. System fills it for a real run.
type Env struct {
	Args   []string // without the program's name
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	// Which of the three are terminals: it decides between asking and refusing, a moving line and plain ones.
	StdinTerminal  bool
	StdoutTerminal bool
	StderrTerminal bool

	Getenv        func(string) string
	Dir           string           // working directory; relative paths start here
	UserConfigDir string           // where "lull serve" tells the same user's commands where it is; "" if there is none
	Root          bool             // running as root
	Version       string           // of the binary
	Now           func() time.Time // the wall clock, in the zone that logs are shown in
	Signals       <-chan os.Signal // SIGINT and SIGTERM: the first ends in good order, the second at once

	Connect func(url, token string) control.Node // how a node's API is called
	Serve   ServeFunc                            // runs a node
	Check   func(ctx context.Context) []Finding  // what "lull doctor" prints
}

// Main runs one command and returns its exit code.
func Main(env Env) int {
	ctx, force, stop := watchSignals(env.Signals)
	defer stop()
	app := &app{env: env, force: force}
	root := app.root()
	root.SetArgs(env.Args)
	root.SetIn(env.Stdin)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	strict(root)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return ExitOK
	}
	// cobra finds unknown commands, unknown flags and wrong numbers of arguments before it calls a command.
	var usage *usageError
	if !app.started && !errors.As(err, &usage) {
		err = &usageError{message: err.Error()}
	}
	return app.fail(err)
}

// app is one run of the program, shared by all commands.
type app struct {
	env     Env
	force   <-chan struct{} // closed by the second signal
	started bool            // a command has begun: its arguments were right
}

const longHelp = `Lull runs ordinary HTTP and WebSocket servers that sleep in every lull and wake on the next byte.

Start a node with "lull serve", then deploy a directory to it with "lull deploy".`

const moreHelp = `
Environment:
  LULL_API    URL of the node's API; default: the node this user started, else http://127.0.0.1:7777
  LULL_TOKEN  who you are to that API; a node on this machine needs none

Exit codes: 0 done, 1 failed, 2 the command was not understood.
`

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:              "lull",
		Short:            "Servers that sleep in every lull",
		Long:             longHelp,
		SilenceErrors:    true,
		SilenceUsage:     true,
		Version:          a.env.Version,
		Args:             unknownCommand,
		RunE:             func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRun: func(*cobra.Command, []string) { a.started = true },
	}
	root.SuggestionsMinimumDistance = 2
	root.SetVersionTemplate(a.versionLine())
	root.SetUsageTemplate(root.UsageTemplate() + "{{if not .HasParent}}" + moreHelp + "{{end}}")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &usageError{message: err.Error(), command: cmd.CommandPath()}
	})
	root.AddGroup(
		&cobra.Group{ID: groupApps, Title: "Put apps up and take them down:"},
		&cobra.Group{ID: groupLook, Title: "See what goes on:"},
		&cobra.Group{ID: groupNode, Title: "Run a node:"},
		&cobra.Group{ID: groupRest, Title: "And:"},
	)
	root.AddCommand(
		a.initCommand(), a.deployCommand(), a.rollbackCommand(), a.rmCommand(),
		a.appsCommand(), a.psCommand(), a.logsCommand(), a.releasesCommand(), a.eventsCommand(),
		a.serveCommand(), a.doctorCommand(),
		a.versionCommand(),
	)
	root.SetHelpCommandGroupID(groupRest)
	root.SetCompletionCommandGroupID(groupRest)
	return root
}

// unknownCommand is reached with arguments only if the first names no command.
func unknownCommand(root *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	message := fmt.Sprintf("there is no command %q", args[0])
	if similar := root.SuggestionsFor(args[0]); len(similar) > 0 {
		message += ": did you mean " + strings.Join(similar, " or ") + "?"
	}
	return &usageError{message: message}
}

const (
	groupApps = "apps"
	groupLook = "look"
	groupNode = "node"
	groupRest = "rest"
)

// watchSignals returns a context that the first signal cancels and a channel that the second closes. The goroutine is
// ended by stop, which waits for it.
func watchSignals(signals <-chan os.Signal) (ctx context.Context, force <-chan struct{}, stop func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	second, done, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for _, act := range []func(){func() { cancel(errInterrupted) }, func() {
			close(second)
			signal.Reset() // a third ends the process, whatever it is doing
		}} {
			select {
			case <-signals:
				act()
			case <-done:
				return
			}
		}
	}()
	return ctx, second, func() {
		close(done)
		<-ended
		cancel(nil)
	}
}
