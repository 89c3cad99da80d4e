package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/build"
	"github.com/lull-dev/lull/build/archive"
	"github.com/lull-dev/lull/control"
	"github.com/lull-dev/lull/manifest"
)

const (
	// stopGrace is how long an app may take to end after SIGTERM.
	stopGrace = 5 * time.Second
	// keepReleases is how many releases of an app are kept for a rollback; the current one is always kept.
	keepReleases = 10
)

// deployment is one run of Deploy: what it has made so far, so that a failure can undo it.
type deployment struct {
	node *Node
	app  *app
	dir  string // scratch
	emit func(control.Event)
}

// Deploy turns an uploaded archive into the current release of an app. It returns when the release has the traffic; if it
// fails at any point nothing of it is left and the release before it goes on.
func (n *Node) Deploy(ctx context.Context, req control.DeployRequest, emit func(control.Event)) (control.Deployed, error) {
	dir, err := n.files.temp("deploy-")
	if err != nil {
		return control.Deployed{}, err
	}
	defer os.RemoveAll(dir)
	source := filepath.Join(dir, "source")
	if err := os.Mkdir(source, 0o700); err != nil {
		return control.Deployed{}, err
	}
	emit(control.Event{Phase: control.PhaseUpload})
	if err := archive.Unpack(req.Archive, source, archive.Upload()); err != nil {
		return control.Deployed{}, err
	}
	m, err := manifestOf(req, source)
	if err != nil {
		return control.Deployed{}, err
	}
	name := req.App
	if name == "" {
		name = m.Name
	}
	if !lull.ValidName(name) {
		return control.Deployed{}, &lull.Error{Kind: lull.KindInvalid, Message: fmt.Sprintf("%q is not a name for an app", name),
			Hint: "give one with --name or in lull.yaml: up to 40 lower-case letters, digits and single hyphens"}
	}
	m.Name = name
	a, err := n.claim(name, n.app)
	if err != nil {
		return control.Deployed{}, err
	}
	defer a.deploy.Unlock()
	d := deployment{node: n, app: a, dir: dir, emit: emit}
	rel, err := d.run(ctx, source, m)
	if err != nil {
		d.forgetNew(ctx)
		return control.Deployed{}, err
	}
	n.prune(context.WithoutCancel(ctx), name, rel.Number)
	return n.deployed(rel), nil
}

// manifestOf returns the manifest of a deploy: the one that was sent along, else that of the uploaded files.
func manifestOf(req control.DeployRequest, source string) (lull.Manifest, error) {
	if req.Manifest == nil {
		m, _, err := manifest.Load(source)
		return m, err
	}
	problems := manifest.Check(*req.Manifest)
	if len(problems) == 0 {
		return *req.Manifest, nil
	}
	messages := make([]string, len(problems))
	for i, p := range problems {
		messages[i] = p.Path + ": " + p.Message
	}
	return lull.Manifest{}, &lull.Error{Kind: lull.KindInvalid, Message: "the manifest that was sent along is wrong: " + strings.Join(messages, "; ")}
}

// claim finds an app and takes its deploy lock; the caller unlocks it. An app that was removed while the lock was free
// is no longer the one that find returns: then it starts over.
func (n *Node) claim(name string, find func(string) *app) (*app, error) {
	for {
		a := find(name)
		switch {
		case a == nil:
			return nil, unknown(name)
		case !a.deploy.TryLock():
			return nil, busy(name)
		case n.known(name) == a:
			return a, nil
		}
		a.deploy.Unlock()
	}
}

// known returns the named app, nil if there is none.
func (n *Node) known(name string) *app {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.apps[name]
}

func unknown(name string) error {
	return &lull.Error{Kind: lull.KindNotFound, Message: fmt.Sprintf("there is no app %q", name),
		Hint: "`lull apps` lists those that are there"}
}

func busy(name string) error {
	return &lull.Error{Kind: lull.KindConflict, Message: fmt.Sprintf("%s is being deployed or removed by another command", name),
		Hint: "wait until that is done and try again"}
}

func (d *deployment) run(ctx context.Context, source string, m lull.Manifest) (lull.Release, error) {
	if err := d.node.claimDomains(m.Name, m.Domains); err != nil {
		return lull.Release{}, err
	}
	d.emit(control.Event{Phase: control.PhaseBuild})
	result, err := d.node.builder.Build(ctx, build.Source{App: m.Name, Dir: source, Manifest: m}, buildOutput{d.emit})
	if err != nil {
		return lull.Release{}, err
	}
	d.emit(control.Event{Phase: control.PhaseStore})
	rel, err := d.store(ctx, result)
	if err != nil {
		return rel, err
	}
	d.emit(control.Event{Phase: control.PhaseStart, Text: fmt.Sprintf("starting %s", rel)})
	if err := d.node.change(ctx, d.app, rel); err != nil {
		return rel, errors.Join(err, d.node.discard(context.WithoutCancel(ctx), rel))
	}
	return rel, nil
}

// store makes the build's outcome a release: durable, but with no traffic yet.
func (d *deployment) store(ctx context.Context, result build.Result) (lull.Release, error) {
	packed := filepath.Join(d.dir, "release.tar.zst")
	size, err := pack(packed, result.Root)
	if err != nil {
		return lull.Release{}, fmt.Errorf("pack the release: %w", err)
	}
	file, err := os.Open(packed)
	if err != nil {
		return lull.Release{}, err
	}
	defer file.Close()
	rel, err := d.node.store.AddRelease(ctx, lull.Release{
		App: result.Manifest.Name, Created: time.Now().UTC(), Manifest: result.Manifest, Process: result.Process, Size: size,
	}, file)
	if err != nil {
		return lull.Release{}, fmt.Errorf("store the release: %w", err)
	}
	if err := d.node.files.adopt(rel, result.Root); err != nil {
		return rel, errors.Join(err, d.node.discard(context.WithoutCancel(ctx), rel))
	}
	return rel, nil
}

func pack(path, dir string) (lull.Size, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_EXCL, 0o600)
	if err != nil {
		return 0, err
	}
	err = archive.Pack(file, dir, archive.Release())
	size, seekErr := file.Seek(0, io.SeekEnd)
	return lull.Size(size), errors.Join(err, seekErr, file.Close())
}

// change gives the traffic of an app to rel, which is in the store: first the fleet, which waits until rel is ready, then
// the record, then the routes.
func (n *Node) change(ctx context.Context, a *app, rel lull.Release) error {
	files, err := n.siteOf(ctx, rel)
	if err != nil {
		return err
	}
	if files == nil {
		if err := a.fleet.Switch(ctx, rel); err != nil {
			return err
		}
	}
	// From here on rel has the traffic: a caller that goes away changes nothing.
	if err := n.store.Promote(context.WithoutCancel(ctx), rel.App, rel.Number); err != nil {
		return fmt.Errorf("record that %s is current: %w", rel, err)
	}
	n.route(a, rel, files)
	n.events.Wake()
	if files != nil {
		a.fleet.Retire(fmt.Sprintf("release %d, which is files only, replaced it", rel.Number))
	}
	if err := n.setSchedules(context.WithoutCancel(ctx), rel); err != nil {
		n.cfg.Log.Error("schedules not set before the next start", "release", rel, "error", err)
	}
	return nil
}

// discard removes a release that never became current.
func (n *Node) discard(ctx context.Context, rel lull.Release) error {
	return errors.Join(n.store.RemoveRelease(ctx, rel.App, rel.Number), n.files.remove(rel.App, rel.Number))
}

// forgetNew takes an app whose first deploy did not succeed off the node and out of the store.
func (d *deployment) forgetNew(ctx context.Context) {
	ctx = context.WithoutCancel(ctx)
	record, err := d.node.store.App(ctx, d.app.name)
	if err == nil && record.Current != 0 {
		return
	}
	d.node.forget(d.app)
	d.node.end(d.app, 0)
	if err == nil {
		err = d.node.store.RemoveApp(ctx, d.app.name)
	} else if lull.KindOf(err) == lull.KindNotFound {
		err = nil
	}
	err = errors.Join(err, d.node.files.removeApp(d.app.name), d.node.builder.Forget(d.app.name), d.node.journal.Remove(d.app.name))
	if err != nil {
		d.node.cfg.Log.Warn("failed deploy not wholly removed", "app", d.app.name, "error", err)
	}
}

// prune removes the oldest releases, but for the newest keepReleases and the current one.
func (n *Node) prune(ctx context.Context, name string, current int) {
	releases, err := n.store.Releases(ctx, name)
	if err != nil {
		n.cfg.Log.Warn("old releases not removed", "app", name, "error", err)
		return
	}
	slices.SortFunc(releases, func(a, b lull.Release) int { return b.Number - a.Number })
	for i, rel := range releases {
		if i < keepReleases || rel.Number == current {
			continue
		}
		if err := n.store.RemoveRelease(ctx, name, rel.Number); err != nil {
			n.cfg.Log.Warn("old release not removed", "release", rel, "error", err)
		}
	}
}

// Rollback makes an earlier release current again; release 0 is the one before the current one.
func (n *Node) Rollback(ctx context.Context, name string, release int, emit func(control.Event)) (control.Deployed, error) {
	a, err := n.claim(name, n.known)
	if err != nil {
		return control.Deployed{}, err
	}
	defer a.deploy.Unlock()
	if release == 0 {
		if release, err = n.previous(ctx, name); err != nil {
			return control.Deployed{}, err
		}
	}
	rel, err := n.store.Release(ctx, name, release)
	if err != nil {
		return control.Deployed{}, err
	}
	if err := n.claimDomains(name, rel.Manifest.Domains); err != nil {
		return control.Deployed{}, err
	}
	emit(control.Event{Phase: control.PhaseStart, Text: fmt.Sprintf("starting %s", rel)})
	if err := n.change(ctx, a, rel); err != nil {
		return control.Deployed{}, err
	}
	return n.deployed(rel), nil
}

// previous returns the newest release below the current one.
func (n *Node) previous(ctx context.Context, name string) (int, error) {
	record, err := n.store.App(ctx, name)
	if err != nil {
		return 0, err
	}
	releases, err := n.store.Releases(ctx, name)
	if err != nil {
		return 0, err
	}
	best := 0
	for _, rel := range releases {
		if rel.Number < record.Current {
			best = max(best, rel.Number)
		}
	}
	if best == 0 {
		return 0, &lull.Error{Kind: lull.KindNotFound, Message: fmt.Sprintf("%s has no release before %d", name, record.Current),
			Hint: "`lull releases " + name + "` lists those that are kept"}
	}
	return best, nil
}

// Remove stops an app and deletes everything that is kept of it.
func (n *Node) Remove(ctx context.Context, name string) error {
	a, err := n.claim(name, n.known)
	if err != nil {
		return err
	}
	defer a.deploy.Unlock()
	if err := n.store.RemoveApp(ctx, name); err != nil {
		return err
	}
	n.forget(a)
	n.end(a, stopGrace)
	return errors.Join(n.files.removeApp(name), n.builder.Forget(name), n.journal.Remove(name))
}

func (n *Node) deployed(rel lull.Release) control.Deployed {
	return control.Deployed{App: rel.App, Release: rel.Number, URL: n.url(rel.App)}
}

// buildOutput sends what a build prints to whoever deploys.
type buildOutput struct{ emit func(control.Event) }

func (o buildOutput) Write(p []byte) (int, error) {
	o.emit(control.Event{Phase: control.PhaseBuild, Text: string(p)})
	return len(p), nil
}
