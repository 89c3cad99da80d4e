package cli

import (
	"bufio"
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/control"
)

func (a *app) rollbackCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "rollback APP [RELEASE]",
		Short:   "Go back to an earlier release",
		GroupID: groupApps,
		Long: `Make an earlier release current; without a number the one before the current one.
It must be ready before it gets traffic, exactly as with a deploy.`,
		Args: between(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			number := 0
			if len(args) == 2 {
				n, err := strconv.Atoi(args[1])
				if err != nil || n < 1 {
					return &usageError{command: cmd.CommandPath(),
						message: fmt.Sprintf("%q is not the number of a release: see lull releases %s", args[1], args[0])}
				}
				number = n
			}
			node, err := a.node()
			if err != nil {
				return err
			}
			p := startProgress(a.env.Stderr, a.env.StderrTerminal, a.env.Now)
			show := newEventLines(p)
			done, err := node.Rollback(cmd.Context(), args[0], number, show.take)
			show.flush()
			p.Close()
			if err != nil {
				return err
			}
			return a.printDeployed(done, asJSON, "is back at")
		},
	}
	jsonFlag(cmd, &asJSON)
	a.completeApps(cmd)
	return cmd
}

// printDeployed says what is current now; the URL alone, or JSON, goes to stdout.
func (a *app) printDeployed(done control.Deployed, asJSON bool, verb string) error {
	if asJSON {
		return writeJSON(a.env.Stdout, done)
	}
	a.say("%s %s release %d", done.App, verb, done.Release)
	_, err := fmt.Fprintln(a.env.Stdout, visible(done.URL))
	return err
}

func (a *app) rmCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:     "rm APP",
		Short:   "Delete an app with its releases and logs",
		GroupID: groupApps,
		Long: `Stop all environments of an app and delete it, its releases and its logs.
Asks first on a terminal; elsewhere it wants --yes.`,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			node, err := a.node()
			if err != nil {
				return err
			}
			if err := a.confirm(cmd.Context(), node, yes, args[0]); err != nil {
				return err
			}
			if err := node.Remove(cmd.Context(), args[0]); err != nil {
				return err
			}
			a.say("deleted %s", args[0])
			return nil
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	a.completeApps(cmd)
	return cmd
}

// confirm asks whether the app is to be deleted, if there is such an app.
func (a *app) confirm(ctx context.Context, node control.Node, yes bool, name string) error {
	if yes {
		return nil
	}
	if _, err := node.Releases(ctx, name); err != nil {
		return err
	}
	if !a.env.StdinTerminal {
		return &usageError{command: "lull rm", message: "rm asks before it deletes, and there is no terminal to ask on: add --yes"}
	}
	fmt.Fprintf(a.env.Stderr, "Delete %s with all its releases and logs? This cannot be undone. [y/N] ", visible(name))
	answer, err := a.readLine(ctx)
	if err != nil {
		return err
	}
	if answer := strings.ToLower(strings.TrimSpace(answer)); answer != "y" && answer != "yes" {
		return &lull.Error{Kind: lull.KindConflict, Message: "nothing was deleted"}
	}
	return nil
}

// readLine reads an answer from stdin. A signal ends the wait; the goroutine that reads then ends with the process.
func (a *app) readLine(ctx context.Context) (string, error) {
	answer := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(a.env.Stdin).ReadString('\n')
		answer <- line
	}()
	select {
	case line := <-answer:
		return line, nil
	case <-ctx.Done():
		fmt.Fprintln(a.env.Stderr)
		return "", context.Cause(ctx)
	}
}
