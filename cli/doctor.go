package cli

import (
	"errors"

	"github.com/spf13/cobra"
)

func (a *app) doctorCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "doctor",
		Short:   "Say what this host can do and what to install",
		GroupID: groupNode,
		Long: `Check what a node on this machine would find: its sandboxes, its limits, its network, the runtimes of apps.
It changes nothing. The exit code is 1 if something is missing.`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			findings := a.env.Check(cmd.Context())
			var missing error
			for _, f := range findings {
				if !f.OK {
					missing = &silentError{errors.New("something is missing")}
				}
			}
			return errors.Join(list(a, asJSON, findings, "nothing was checked", findingsTable), missing)
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func findingsTable(findings []Finding) *table {
	t := newTable("", "CHECK", "FOUND")
	for _, f := range findings {
		mark := "ok"
		if !f.OK {
			mark = "--"
		}
		t.row(mark, f.Name, f.Detail)
		if f.Fix != "" {
			t.row("", "", "→ "+f.Fix)
		}
	}
	return t
}

// Finding is one thing that "lull doctor" looked at.
type Finding struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
	Fix    string `json:"fix,omitempty"`
}
