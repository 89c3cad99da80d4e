package cli

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/lull-dev/lull/control"
)

func (a *app) logsCommand() *cobra.Command {
	var query control.LogQuery
	var asJSON, all bool
	cmd := &cobra.Command{
		Use:     "logs APP",
		Short:   "Print the output of an app's environments",
		GroupID: groupLook,
		Long: `Print the last lines that an app's environments wrote: when, which environment, what.
Lines of the node itself, such as why an environment ended, are marked "lull".
With --json every line is one JSON object.`,
		Example: "  lull logs chat -f\n  lull logs chat -n 1000 --environment chat-k3x7q2mb",
		Args:    exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case query.Last < 0:
				return &usageError{command: cmd.CommandPath(), message: fmt.Sprintf("-n %d: a number of lines cannot be negative", query.Last)}
			case all:
				query.Last = 0 // as the API says it
			case query.Last == 0:
				query.Last = -1
			}
			node, err := a.node()
			if err != nil {
				return err
			}
			err = node.Logs(cmd.Context(), args[0], query, a.logPrinter(asJSON))
			if query.Follow && cmd.Context().Err() != nil {
				return nil // Ctrl-C is how following ends
			}
			return err
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&query.Follow, "follow", "f", false, "go on with what comes, until Ctrl-C")
	flags.IntVarP(&query.Last, "last", "n", 100, "the last `N` lines")
	flags.BoolVarP(&all, "all", "a", false, "all that is kept")
	flags.StringVarP(&query.Environment, "environment", "e", "", "of the environment with this `ID` only, as in lull ps")
	jsonFlag(cmd, &asJSON)
	a.completeApps(cmd)
	return cmd
}

func (a *app) logPrinter(asJSON bool) func(control.LogEntry) error {
	if asJSON {
		enc := json.NewEncoder(a.env.Stdout)
		enc.SetEscapeHTML(false)
		return func(e control.LogEntry) error { return enc.Encode(e) }
	}
	return func(e control.LogEntry) error { return a.printLog(a.env.Stdout, e) }
}

// printLog prints one line. A terminal gets a short time, and control characters made visible; a file or a pipe gets the
// full time in UTC, and the app's bytes as they are.
func (a *app) printLog(w io.Writer, e control.LogEntry) error {
	at, text := e.Time.UTC().Format("2006-01-02T15:04:05.000Z"), e.Text
	if a.env.StdoutTerminal {
		at, text = e.Time.In(a.env.Now().Location()).Format("15:04:05.000"), visible(e.Text)
	}
	mark := ""
	if e.Stream != "stdout" {
		mark = e.Stream + ": "
	}
	_, err := fmt.Fprintf(w, "%s %s %s%s\n", at, visible(e.Environment), mark, text)
	return err
}
