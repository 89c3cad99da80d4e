package cli

import (
	"fmt"
	"math"
	"time"

	"github.com/spf13/cobra"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/control"
)

func (a *app) appsCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "apps",
		Short:   "List apps and their URLs",
		GroupID: groupLook,
		Args:    exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			node, err := a.node()
			if err != nil {
				return err
			}
			apps, err := node.Apps(cmd.Context())
			if err != nil {
				return err
			}
			return list(a, asJSON, apps, "no apps yet: deploy one with \"lull deploy DIR\"", a.appsTable)
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func (a *app) appsTable(apps []control.AppInfo) *table {
	t := newTable("APP", ">RELEASE", ">ENVIRONMENTS", "DEPLOYED", "URL")
	for _, app := range apps {
		t.row(app.Name, app.Release, app.Environments, a.ago(app.Deployed), app.URL)
	}
	return t
}

func (a *app) releasesCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "releases APP",
		Short:   "List the releases of an app",
		GroupID: groupLook,
		Args:    exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			node, err := a.node()
			if err != nil {
				return err
			}
			releases, err := node.Releases(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return list(a, asJSON, releases, args[0]+" has no releases", a.releasesTable)
		},
	}
	jsonFlag(cmd, &asJSON)
	a.completeApps(cmd)
	return cmd
}

func (a *app) releasesTable(releases []control.ReleaseInfo) *table {
	t := newTable(">RELEASE", "", "CREATED", ">SIZE", "RUN")
	for _, r := range releases {
		mark := ""
		if r.Current {
			mark = "current"
		}
		t.row(r.Release, mark, a.ago(r.Created), r.Size, r.Run)
	}
	return t
}

func (a *app) psCommand() *cobra.Command {
	var asJSON, moves, schedules bool
	cmd := &cobra.Command{
		Use:     "ps [APP]",
		Short:   "List environments and their states",
		GroupID: groupLook,
		Long: `List the environments of one app or of all: sandboxes that run a release.

States: starting, running, paused (no CPU, memory kept), hibernated (on disk), stopped, failed.
FOR is how long an environment has been in its state, REASON why it came into it.
EXCHANGES are requests in flight, STREAMS open WebSockets and other long answers; streams are held while their
environment sleeps. With --moves it lists the last steps of each environment instead, and what caused them, with
--schedules the schedules, when each is due next, and how its last call went.`,
		Args: between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			node, err := a.node()
			if err != nil {
				return err
			}
			app := append(args, "")[0]
			if schedules {
				due, err := node.Schedules(cmd.Context(), app)
				if err != nil {
					return err
				}
				return list(a, asJSON, due, "no schedules: a manifest's \"schedules\" makes some", a.schedulesTable)
			}
			environments, err := node.Environments(cmd.Context(), app)
			if err != nil {
				return err
			}
			render := a.psTable
			if moves {
				render = a.movesTable
			}
			return list(a, asJSON, environments, "no environments: the next request starts one", render)
		},
	}
	jsonFlag(cmd, &asJSON)
	cmd.Flags().BoolVar(&moves, "moves", false, "list what brought each environment into its last states")
	cmd.Flags().BoolVar(&schedules, "schedules", false, "list schedules and when they are due")
	cmd.MarkFlagsMutuallyExclusive("moves", "schedules")
	a.completeApps(cmd)
	return cmd
}

func (a *app) psTable(environments []control.Environment) *table {
	t := newTable("ENVIRONMENT", "APP", ">RELEASE", "STATE", ">FOR", ">EXCHANGES", ">STREAMS", ">MEMORY", ">CPU", "REASON")
	for _, e := range environments {
		t.row(e.ID, e.App, e.Release, e.State, age(a.env.Now().Sub(e.Since)), e.Exchanges, streams(e), e.MemoryBytes,
			cpuTime(e.CPUSeconds), e.Reason)
	}
	return t
}

// movesTable is the wake log: the last steps of each environment, oldest first.
func (a *app) movesTable(environments []control.Environment) *table {
	t := newTable("ENVIRONMENT", "APP", "AT", "STATE", "WHY")
	for _, e := range environments {
		for _, m := range e.Moves {
			t.row(e.ID, e.App, m.At.Local().Format(time.DateTime), m.State, m.Why)
		}
	}
	return t
}

func (a *app) schedulesTable(schedules []control.Schedule) *table {
	t := newTable("SCHEDULE", "APP", "CRON", "NEXT", "LAST", ">TOOK", "RESULT")
	for _, s := range schedules {
		cron, took := s.Cron, "-"
		if s.Zone != "UTC" {
			cron += " (" + s.Zone + ")"
		}
		if s.Result != "" {
			took = lull.Duration(time.Duration(s.TookMS) * time.Millisecond).String()
		}
		t.row(s.Name, s.App, cron, moment(s.Next), moment(s.Last), took, s.Result)
	}
	return t
}

// moment is a point in time as people here write it; "-" if there is none.
func moment(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.Local().Format(time.DateTime)
}

// streams says how many streams are open, and how many of them are held while the environment sleeps.
func streams(e control.Environment) string {
	if e.Held == 0 {
		return fmt.Sprint(e.Streams)
	}
	return fmt.Sprintf("%d (%d held)", e.Streams, e.Held)
}

// cpuTime keeps the hundredths: they show that a paused environment uses nothing.
func cpuTime(seconds float64) string {
	if seconds < 100 {
		return fmt.Sprintf("%.2fs", seconds)
	}
	return lull.Duration(math.Round(seconds) * float64(time.Second)).String()
}

// list prints rows as JSON or as a table; empty is what to say where a table would have no rows.
func list[T any](a *app, asJSON bool, rows []T, empty string, render func([]T) *table) error {
	switch {
	case asJSON && rows == nil:
		return writeJSON(a.env.Stdout, []T{})
	case asJSON:
		return writeJSON(a.env.Stdout, rows)
	case len(rows) == 0:
		a.say("%s", empty)
		return nil
	}
	return render(rows).write(a.env.Stdout)
}

// ago says how long ago t was; "-" if it never was.
func (a *app) ago(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return age(a.env.Now().Sub(t)) + " ago"
}

func jsonFlag(cmd *cobra.Command, value *bool) {
	cmd.Flags().BoolVar(value, "json", false, "print JSON, for programs")
}

// completeApps lets a shell complete the names of apps.
func (a *app) completeApps(cmd *cobra.Command) {
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		node, err := a.node()
		if err != nil || len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		apps, _ := node.Apps(cmd.Context())
		var names []string
		for _, app := range apps {
			names = append(names, app.Name)
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
