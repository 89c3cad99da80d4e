package node

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/fleet"
	"github.com/lull-dev/lull/gateway"
	"github.com/lull-dev/lull/sandbox"
)

// app is an app on this node: its fleet, and the lock that lets one deploy, rollback or removal happen at a time.
type app struct {
	name   string
	fleet  *fleet.Fleet
	deploy sync.Mutex

	mu       sync.RWMutex // guards what follows
	release  lull.Release // the one that gets new connections; the zero value before the first is ready
	settings gateway.Settings
	front    front
	local    *gateway.Local // what the node itself serves of it, if it ever has
}

// current returns the release that gets new connections.
func (a *app) current() lull.Release {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.release
}

// loadApps makes a fleet for every app in the store, and finishes what a killed node left half-done: a release above
// App.Latest was stored but never became ready.
func (n *Node) loadApps(ctx context.Context) error {
	apps, err := n.store.Apps(ctx)
	if err != nil {
		return fmt.Errorf("read the apps: %w", err)
	}
	keep := map[string][]int{}
	for _, record := range apps {
		releases, err := n.store.Releases(ctx, record.Name)
		if err != nil {
			return fmt.Errorf("read the releases of %s: %w", record.Name, err)
		}
		for _, rel := range releases {
			if rel.Number > record.Latest {
				n.cfg.Log.Info("unfinished deploy removed", "release", rel)
				if err := n.store.RemoveRelease(ctx, rel.App, rel.Number); err != nil {
					return err
				}
				continue
			}
			keep[rel.App] = append(keep[rel.App], rel.Number)
			if rel.Number != record.Current {
				continue
			}
			if err := n.use(ctx, rel); err != nil {
				n.cfg.Log.Error("app not served", "release", rel, "error", err)
			}
		}
		if record.Current == 0 {
			if err := n.store.RemoveApp(ctx, record.Name); err != nil {
				return err
			}
		}
	}
	return n.files.sweep(keep)
}

// use makes rel the current release of its app without starting anything.
func (n *Node) use(ctx context.Context, rel lull.Release) error {
	a := n.app(rel.App)
	files, err := n.siteOf(ctx, rel)
	if err != nil {
		return err
	}
	if files == nil {
		a.fleet.Use(rel)
	}
	n.route(a, rel, files)
	return n.setSchedules(ctx, rel)
}

// app returns the named app on this node; it is made at its first use.
func (n *Node) app(name string) *app {
	n.mu.Lock()
	defer n.mu.Unlock()
	if a, ok := n.apps[name]; ok {
		return a
	}
	a := &app{name: name}
	a.fleet = fleet.New(fleet.Config{
		App: name, Driver: n.iso.driver, Prepare: n.prepare, Journal: fleetJournal{n.journal},
		Log: n.cfg.Log.With("app", name), Metrics: n.metrics, Drain: n.cfg.Drain,
		Snapshots: n.shared.snapshots, Memory: n.shared.memory, Wakes: n.shared.wakes, Writes: n.shared.writes,
		Overhead: n.iso.driver.Capabilities().Overhead,
	})
	n.apps[name] = a
	return a
}

// route publishes what the gateway must know of a release that gets new connections. files serves it, if it is files only.
func (n *Node) route(a *app, rel lull.Release, files http.Handler) {
	n.mu.Lock()
	defer n.mu.Unlock()
	a.mu.Lock()
	defer a.mu.Unlock()
	m := rel.Manifest
	for _, domain := range a.release.Manifest.Domains {
		delete(n.routes, domain)
	}
	for _, domain := range m.Domains {
		n.routes[domain] = a.name
	}
	a.release = rel
	a.settings = gateway.Settings{RequestTimeout: m.Timeout.Request.Std(), IdlePause: m.Idle.Pause.Std(), Affinity: m.Affinity}
	if m.IsFunction() {
		a.settings.RequestTimeout += functionGrace
	}
	a.front = front{fleet: a.fleet}
	switch {
	case files != nil:
		n.locally(a, files)
		a.front.local, a.front.all = a.local, true
	case m.Function.WebSocket.Route != "":
		n.locally(a, n.sockets.Handler(a.name))
		a.front.local = a.local
	}
	if m.Function.WebSocket.Route == "" {
		n.sockets.CloseApp(a.name)
	}
}

// functionGrace is what the gateway waits longer than a function may take, which is for its runtime to see to.
const functionGrace = time.Second

// claimDomains reports an error if one of the domains is another app's.
func (n *Node) claimDomains(name string, domains []string) error {
	n.mu.RLock()
	defer n.mu.RUnlock()
	for _, domain := range domains {
		if owner, ok := n.routes[domain]; ok && owner != name {
			return &lull.Error{Kind: lull.KindConflict, Message: fmt.Sprintf("the domain %s belongs to the app %s", domain, owner),
				Hint: "take it out of the domains of one of the two"}
		}
	}
	return nil
}

// Fleet finds the app that a host name belongs to, for the gateway.
func (n *Node) Fleet(host string) (gateway.Fleet, gateway.Settings, error) {
	n.mu.RLock()
	name, ok := n.routes[host]
	if !ok {
		name, ok = strings.CutSuffix(host, "."+n.cfg.Domain)
	}
	a := n.apps[name]
	n.mu.RUnlock()
	if !ok || a == nil {
		return nil, gateway.Settings{}, noApp(host, n.cfg.Domain)
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.front.fleet == nil { // its first deploy has not finished
		return nil, gateway.Settings{}, noApp(host, n.cfg.Domain)
	}
	return a.front, a.settings, nil
}

func noApp(host, domain string) error {
	return &lull.Error{Kind: lull.KindNoApp, Message: fmt.Sprintf("No app has the address %s.", host),
		Hint: fmt.Sprintf("Deploy one with `lull deploy`; it is then reached at <name>.%s. `lull apps` lists those that are there.", domain)}
}

// prepare turns a release into what its sandboxes are started with; its files are put in place if they are not.
func (n *Node) prepare(ctx context.Context, rel lull.Release) (sandbox.Spec, error) {
	dir, err := n.files.ensure(ctx, rel)
	if err != nil {
		return sandbox.Spec{}, fmt.Errorf("put the files of %s in place: %w", rel, err)
	}
	spec := sandbox.Spec{
		Args:   rel.Process.Args,
		Env:    append(slices.Clone(rel.Process.Env), fmt.Sprintf("PORT=%d", rel.Process.Port)),
		Dir:    rel.Process.Dir,
		User:   rel.Process.User,
		Limits: rel.Manifest.Resources,
		Egress: rel.Manifest.Egress,
	}
	if rel.Process.Root == lull.RootImage {
		spec.Root = dir
		return spec, nil
	}
	spec.Mounts = []sandbox.Mount{{Source: dir, Target: rel.Manifest.FilesDir(), Mode: sandbox.Layered}}
	switch {
	case rel.Manifest.IsFunction():
		n.asFunction(&spec, rel, dir)
	case usesTools(rel.Process.Args):
		spec.Mounts = append(spec.Mounts, n.tools())
	}
	return spec, nil
}

// forget takes an app off this node. Its fleet must have been closed.
func (n *Node) forget(a *app) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.apps, a.name)
	for _, domain := range a.current().Manifest.Domains {
		delete(n.routes, domain)
	}
}

// end ends everything of an app that has been forgotten. Exchanges may go on for as long as grace.
func (n *Node) end(a *app, grace time.Duration) {
	n.events.Forget(a.name)
	n.schedules.Remove(a.name)
	n.sockets.CloseApp(a.name)
	a.fleet.Close(grace)
	n.endLocal(a, grace)
}

// endLocal ends what the node itself serves of an app.
func (n *Node) endLocal(a *app, grace time.Duration) {
	a.mu.Lock()
	local := a.local
	a.local, a.front = nil, front{}
	a.mu.Unlock()
	if local == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if err := local.Close(ctx); err != nil && ctx.Err() == nil {
		n.cfg.Log.Warn("app not ended in good order", "app", a.name, "error", err)
	}
}

// sortedApps returns the apps on this node, by name.
func (n *Node) sortedApps() []*app {
	n.mu.RLock()
	defer n.mu.RUnlock()
	list := make([]*app, 0, len(n.apps))
	for _, a := range n.apps {
		list = append(list, a)
	}
	slices.SortFunc(list, func(a, b *app) int { return cmp.Compare(a.name, b.name) })
	return list
}

// adopt takes over the environments that the node before has put on disk; what belongs to nobody is removed.
func (n *Node) adopt() {
	for _, s := range n.shared.snapshots.List() {
		if a := n.known(s.App); a != nil && a.fleet.Adopt(s) {
			continue
		}
		n.cfg.Log.Info("snapshot removed: its release is not the current one", "environment", s.Environment, "app", s.App, "release", s.Release)
		if err := n.shared.snapshots.Remove(s.Environment); err != nil {
			n.cfg.Log.Error("snapshot not removed", "environment", s.Environment, "error", err)
		}
	}
}

// suspendFleets puts all environments of all apps on disk, at once, and stops those that cannot be.
func (n *Node) suspendFleets() {
	var wg sync.WaitGroup
	for _, a := range n.sortedApps() {
		wg.Go(func() {
			a.fleet.Suspend(stopGrace)
			n.endLocal(a, stopGrace)
		})
	}
	wg.Wait()
}
