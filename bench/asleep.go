package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/lull-dev/lull/e2e/rig"
)

// The limits that the project has set itself for what is asleep.
const (
	maxWakeHello    = 1.0
	maxWakeDeps     = 0.35
	maxResumeMedian = 3 * time.Millisecond
	maxResumeTail   = 10 * time.Millisecond
	maxStreamBytes  = 8 << 10
	maxTick         = 20 * time.Millisecond
)

// asleep measures what sleeps on disk and in memory, and what wakes from there. Each measurement has a node of its own, so
// that what the others have left does not count.
func (b bench) asleep(ctx context.Context) (rows []row, err error) {
	for _, m := range []struct {
		name string
		run  func(context.Context, *rig.Node) ([]row, error)
	}{
		{"wakes", b.wakes}, {"resumes", b.resumes}, {"streams", b.streams}, {"ticks", b.ticks}, {"many", b.many},
	} {
		more, err := b.beside(ctx, m.name, m.run)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.name, err)
		}
		rows = append(rows, more...)
	}
	return rows, nil
}

// beside runs a measurement with a node of its own, five minutes at most.
func (b bench) beside(ctx context.Context, name string, run func(context.Context, *rig.Node) ([]row, error)) (rows []row, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	if b.only != "" && b.only != name {
		return nil, nil
	}
	b.dir = filepath.Join(b.dir, name)
	if err := os.Mkdir(b.dir, 0o755); err != nil {
		return nil, err
	}
	node, err := b.start(ctx, "gvisor")
	if err != nil {
		return nil, err
	}
	defer func() { err = stop(ctx, node, err) }()
	return run(ctx, node)
}

// allAre says that an app has one environment, in a state.
func allAre(state string) func([]rig.Environment) bool {
	return func(up []rig.Environment) bool { return len(up) == 1 && up[0].State == state }
}

// wakes compares the first answer of an app on disk with that of the same server, bare, from its start.
func (b bench) wakes(ctx context.Context, node *rig.Node) (rows []row, err error) {
	deps, err := b.installed(ctx)
	if err != nil {
		return nil, err
	}
	for _, app := range []struct {
		what, name, dir, bareDir string
		limit                    float64
	}{
		{"Wake from disk to the first answer: hello-world", "wake-hello", appDir(), appDir(), maxWakeHello},
		{"Wake from disk to the first answer: Express, Socket.IO, axios, lodash, moment, zod, express-session", "wake-deps", depsDir(), deps, maxWakeDeps},
	} {
		say("%s: %d times", app.name, b.coldRounds)
		if err := b.deployDir(ctx, node, app.dir, app.name, "idle: {pause: 50ms, hibernate: 150ms}\n"); err != nil {
			return nil, err
		}
		var woken, plain sample
		for range b.coldRounds {
			if err := awaitEnvironments(ctx, node, app.name, allAre("hibernated")); err != nil {
				return nil, err
			}
			time.Sleep(settle)
			client := node.Client()
			took, err := askFor(ctx, client, node.URL(app.name, "/"), "wake")
			client.CloseIdleConnections()
			if err != nil {
				return nil, err
			}
			woken = append(woken, took)
			if took, err = coldBareIn(ctx, app.bareDir); err != nil {
				return nil, err
			}
			plain = append(plain, took)
		}
		ratio := float64(woken.median()) / float64(plain.median())
		rows = append(rows, row{
			what: app.what, with: woken.String(), bare: plain.String() + " (`node server.js`)",
			value: fmt.Sprintf("%.2f ×", ratio), limit: fmt.Sprintf("%.2f ×", app.limit), over: ratio > app.limit,
		})
	}
	return rows, nil
}

// installed copies the app with dependencies and installs them, for the bare server.
func (b bench) installed(ctx context.Context) (dir string, err error) {
	dir = filepath.Join(b.dir, "deps")
	if err := os.CopyFS(dir, os.DirFS(depsDir())); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "npm", "ci", "--omit=dev", "--no-audit", "--no-fund")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm ci: %w\n%s", err, out)
	}
	return dir, nil
}

// depsDir is the app with dependencies, as appDir is the one without.
func depsDir() string { return filepath.Join(filepath.Dir(appDir()), "deps") }

// resumes asks 100 paused environments at random.
func (b bench) resumes(ctx context.Context, node *rig.Node) ([]row, error) {
	say("resumes: %d among %d environments", b.resumeRounds, b.resumeApps)
	names, err := b.deployMany(ctx, node, b.resumeApps, "idle: {pause: 100ms, hibernate: 1h}\nresources: {memory: 96MB}\n")
	if err != nil {
		return nil, err
	}
	if err := awaitStates(ctx, node, "paused", len(names)); err != nil {
		return nil, err
	}
	client := node.Client()
	defer client.CloseIdleConnections()
	var waits, answers sample
	for len(answers) < b.resumeRounds {
		name := names[rand.IntN(len(names))]
		got, err := ask(ctx, client, node.URL(name, "/"))
		if err != nil {
			return nil, err
		}
		if rig.Took(got.header) != "resume" {
			continue // asked twice within its pause
		}
		answers = append(answers, got.took)
		waits = append(waits, waited(got.header))
	}
	r := row{
		what: fmt.Sprintf("Resume, one of %d environments at random", len(names)), with: waits.String(),
		bare:  answers.String() + " (to the answer)",
		value: fmt.Sprintf("%s, 99 %%: %s", short(waits.median()), short(waits.quantile(0.99))),
		limit: fmt.Sprintf("%s, 99 %%: %s", short(maxResumeMedian), short(maxResumeTail)),
		over:  waits.median() > maxResumeMedian || waits.quantile(0.99) > maxResumeTail,
	}
	return []row{r}, nil
}

// streams opens many WebSockets to one server and, when they are held, looks what that costs the node's own memory.
func (b bench) streams(ctx context.Context, node *rig.Node) ([]row, error) {
	n := rig.StreamsThatFit(b.heldStreams)
	say("held streams: %d", n)
	crowd, err := b.gather(ctx, node, "held", "idle: {pause: 500ms, hibernate: 1s}\nresources: {memory: 2GB}\n", 0)
	if err != nil {
		return nil, err
	}
	defer crowd.Stop()
	before, err := b.settledRSS(ctx, node)
	if err != nil {
		return nil, err
	}
	many, err := node.Gather(ctx, filepath.Join(b.dir, "crowd"), n, 0, "held", "/")
	if err != nil {
		return nil, err
	}
	defer many.Stop()
	if err := awaitEnvironments(ctx, node, "held", allAre("hibernated")); err != nil {
		return nil, err
	}
	after, err := b.settledRSS(ctx, node)
	if err != nil {
		return nil, err
	}
	each := (after - before) / int64(n)
	return []row{{
		what: fmt.Sprintf("The node's memory per held stream, at %d", n), with: fmt.Sprintf("%.1f MB", float64(after)/(1<<20)),
		bare: fmt.Sprintf("%.1f MB (without them)", float64(before)/(1<<20)), value: fmt.Sprintf("%.1f KB", float64(each)/1024),
		limit: fmt.Sprintf("%d KB", maxStreamBytes>>10), over: each > maxStreamBytes,
	}}, nil
}

// ticks measures the processor time, the sandbox's and the node's, that a tick with 1,000 held streams takes.
func (b bench) ticks(ctx context.Context, node *rig.Node) ([]row, error) {
	const streams = 1000
	say("ticks: %d streams, for %s", streams, b.tickTime)
	crowd, err := b.gather(ctx, node, "ticks", "idle: {pause: 500ms, hibernate: 1h}\n", streams)
	if err != nil {
		return nil, err
	}
	defer crowd.Stop()
	if err := awaitEnvironments(ctx, node, "ticks", allAre("paused")); err != nil {
		return nil, err
	}
	type reading struct {
		ticks float64
		cpu   time.Duration
	}
	read := func() (r reading, err error) {
		values, err := node.Metrics(ctx)
		if err != nil {
			return r, err
		}
		up, err := node.Environments(ctx, "ticks")
		if err != nil || len(up) != 1 {
			return r, errors.Join(err, fmt.Errorf("%d environments", len(up)))
		}
		own, err := rig.CPU(node.PID())
		return reading{values[`lull_wakes_total{app="ticks",from="paused",reason="tick"}`],
			own + time.Duration(up[0].CPUSeconds*float64(time.Second))}, err
	}
	before, err := read()
	if err != nil {
		return nil, err
	}
	time.Sleep(b.tickTime)
	after, err := read()
	if err != nil {
		return nil, err
	}
	n := after.ticks - before.ticks
	if n < 3 {
		return nil, fmt.Errorf("%g ticks in %s", n, b.tickTime)
	}
	each := time.Duration(float64(after.cpu-before.cpu) / n)
	return []row{{
		what: fmt.Sprintf("Processor time of a tick with %d held streams", streams), with: short(each),
		bare: fmt.Sprintf("%g ticks, node and sandbox together", n), value: short(each), limit: short(maxTick), over: each > maxTick,
	}}, nil
}

// gather deploys the server of many streams and opens some.
func (b bench) gather(ctx context.Context, node *rig.Node, name, manifest string, clients int) (*rig.Crowd, error) {
	binary, err := rig.BuildCrowd(ctx, b.dir)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(filepath.Dir(appDir()), "..", "e2e", "apps", "ws-numbers")
	manifest += "scale: {max: 1}\nstreams: 12000\nstream: {quiet: 1s, tick: 1s}\n"
	if err := b.deployDir(ctx, node, dir, name, manifest); err != nil {
		return nil, err
	}
	return node.Gather(ctx, binary, max(clients, 1), 0, name, "/")
}

// settledRSS is the node's memory once it stops falling: the runtime gives memory back late.
func (b bench) settledRSS(ctx context.Context, node *rig.Node) (least int64, err error) {
	for range 8 {
		rss, err := rig.RSS(node.PID())
		if err != nil {
			return 0, err
		}
		if least == 0 || rss < least {
			least = rss
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(time.Second):
		}
	}
	return least, nil
}
