package node

import (
	"cmp"
	"context"
	"io"
	"time"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/control"
	"github.com/lull-dev/lull/journal"
	"github.com/lull-dev/lull/schedule"
)

// Apps lists the apps on this node.
func (n *Node) Apps(ctx context.Context) ([]control.AppInfo, error) {
	records, err := n.store.Apps(ctx)
	if err != nil {
		return nil, err
	}
	rows := make([]control.AppInfo, 0, len(records))
	for _, record := range records {
		rel, err := n.store.Release(ctx, record.Name, record.Current)
		if lull.KindOf(err) == lull.KindNotFound {
			continue // being deployed for the first time, or just removed
		}
		if err != nil {
			return nil, err
		}
		rows = append(rows, control.AppInfo{
			Name: record.Name, Release: record.Current, URL: n.url(record.Name), Environments: n.countUp(record.Name),
			Created: record.Created, Deployed: rel.Created,
		})
	}
	return rows, nil
}

// countUp counts the environments of an app that are not stopped.
func (n *Node) countUp(name string) int {
	a := n.known(name)
	if a == nil {
		return 0
	}
	up := 0
	for _, status := range a.fleet.Environments() {
		if !status.State.Final() {
			up++
		}
	}
	return up
}

// Releases lists the releases of an app that are kept.
func (n *Node) Releases(ctx context.Context, name string) ([]control.ReleaseInfo, error) {
	if n.known(name) == nil {
		return nil, unknown(name)
	}
	record, err := n.store.App(ctx, name)
	if err != nil {
		return nil, err
	}
	releases, err := n.store.Releases(ctx, name)
	if err != nil {
		return nil, err
	}
	rows := make([]control.ReleaseInfo, 0, len(releases))
	for _, rel := range releases {
		if rel.Number > record.Latest {
			continue // not ready yet
		}
		rows = append(rows, control.ReleaseInfo{
			Release: rel.Number, Current: rel.Number == record.Current, Created: rel.Created,
			Run: rel.Manifest.Run, Size: rel.Size,
		})
	}
	return rows, nil
}

// Environments lists the environments of one app, or of all for "".
func (n *Node) Environments(_ context.Context, name string) ([]control.Environment, error) {
	apps, err := n.named(name)
	if err != nil {
		return nil, err
	}
	rows := []control.Environment{}
	for _, a := range apps {
		for _, s := range a.fleet.Environments() {
			row := control.Environment{
				ID: s.ID, App: a.name, Release: s.Release, State: s.State, Exchanges: s.Exchanges, Streams: s.Streams,
				Held: s.Held, MemoryBytes: s.Memory, DiskBytes: s.Disk, CPUSeconds: s.CPU.Seconds(), Since: s.Since, Reason: s.Reason,
			}
			for _, move := range s.Moves {
				row.Moves = append(row.Moves, control.Transition{At: move.At, State: move.State, Why: move.Why})
			}
			rows = append(rows, row)
		}
	}
	return rows, nil
}

// named returns one app, or all for "".
func (n *Node) named(name string) ([]*app, error) {
	if name == "" {
		return n.sortedApps(), nil
	}
	a := n.known(name)
	if a == nil {
		return nil, unknown(name)
	}
	return []*app{a}, nil
}

// Schedules lists the schedules of an app, or of all.
func (n *Node) Schedules(_ context.Context, name string) ([]control.Schedule, error) {
	apps, err := n.named(name)
	if err != nil {
		return nil, err
	}
	rows := []control.Schedule{}
	for _, a := range apps {
		known := map[string]schedule.Status{}
		for _, s := range n.schedules.List(a.name) {
			known[s.Name] = s
		}
		schedules := a.current().Manifest.Schedules
		for i, s := range schedules {
			name := schedule.Name(schedules, i)
			status := known[name]
			rows = append(rows, control.Schedule{App: a.name, Name: name, Cron: s.Cron, Zone: cmp.Or(s.Zone, "UTC"),
				Next: orNil(status.Next), Last: orNil(status.Last), TookMS: status.Took.Milliseconds(), Result: status.Result})
		}
	}
	return rows, nil
}

func orNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// Logs reads the kept output of an app's environments.
func (n *Node) Logs(ctx context.Context, name string, q control.LogQuery, fn func(control.LogEntry) error) error {
	if n.known(name) == nil {
		return unknown(name)
	}
	return n.journal.Read(ctx, name, journal.Query{Last: q.Last, Environment: q.Environment, Follow: q.Follow},
		func(e journal.Entry) error { return fn(control.LogEntry(e)) })
}

// NodeInfo describes the node to its API.
func (n *Node) NodeInfo(context.Context) (control.NodeInfo, error) {
	return control.NodeInfo{
		Version: n.cfg.Version, Domain: n.cfg.Domain, HTTP: n.httpAddr.String(), URL: n.url("<app>"),
		Sandbox: n.iso.driver.Name(), Warnings: n.iso.warnings,
	}, nil
}

// fleetJournal is the journal as a fleet knows it.
type fleetJournal struct{ *journal.Journal }

func (j fleetJournal) Writer(app, env, stream string) io.WriteCloser {
	return j.Journal.Writer(app, env, stream)
}

// Tail returns the text of an environment's last lines; if it has complained of late (stderr), of its last complaints.
func (j fleetJournal) Tail(app, env string, n int) []string {
	var lines, complaints []string
	for _, entry := range j.Journal.Tail(app, env, 5*n) {
		lines = append(lines, entry.Text)
		if entry.Stream == "stderr" {
			complaints = append(complaints, entry.Text)
		}
	}
	if len(complaints) > 0 {
		lines = complaints
	}
	return lines[max(0, len(lines)-n):]
}
