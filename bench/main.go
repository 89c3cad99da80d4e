// Command bench measures what Lull costs beside the same server without it, in the same run on the same machine: how
// long a cold start takes, what a pause adds to the next answer, what the gateway adds to a warm one, what forwarding
// costs in processor time compared with Caddy; how fast apps wake from disk, and what those asleep and their held streams
// cost. It prints ratios and medians; -markdown prints them for
// docs/benchmarks.md.
//
//	go run ./bench            as root; LULL_BINARY names a binary to measure, without it one is built
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/lull-dev/lull/e2e/rig"
)

// options say how much is measured.
type options struct {
	coldRounds  int
	pauseRounds int
	requests    int           // each, for the gateway's latency
	rate        int           // requests a second, for the cost of forwarding
	load        time.Duration // of that load, each time
	loadRounds  int

	resumeApps   int
	resumeRounds int
	heldStreams  int
	tickTime     time.Duration
	sleepers     int
	only         string
}

func main() {
	var opts options
	flag.IntVar(&opts.coldRounds, "cold", 15, "cold starts of each kind")
	flag.IntVar(&opts.pauseRounds, "pauses", 40, "pauses")
	flag.IntVar(&opts.requests, "requests", 2000, "requests through the gateway, and as many past it")
	flag.IntVar(&opts.rate, "rate", 1000, "requests a second through a proxy")
	flag.DurationVar(&opts.load, "load", 10*time.Second, "how long a proxy is under load each time")
	flag.IntVar(&opts.loadRounds, "loads", 3, "how many times each proxy is under load")
	flag.IntVar(&opts.resumeApps, "resume-apps", 100, "paused environments that are resumed at random")
	flag.IntVar(&opts.resumeRounds, "resumes", 600, "resumes")
	flag.IntVar(&opts.heldStreams, "streams", 10_000, "held streams, or as many as this machine allows a process")
	flag.DurationVar(&opts.tickTime, "ticks", 15*time.Second, "how long ticks are watched")
	flag.IntVar(&opts.sleepers, "sleepers", 500, "hibernated environments")
	flag.StringVar(&opts.only, "only", "", "measure one `part`: isolated, functions, forwarding, wakes, resumes, streams, ticks or many")
	markdown := flag.Bool("markdown", false, "print Markdown")
	strict := flag.Bool("strict", false, "exit with 1 if something is over its limit")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 40*time.Minute)
	defer cancel()
	rows, err := measure(ctx, opts)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	over := report{rows, machine(ctx)}.write(os.Stdout, *markdown)
	if *strict && over {
		os.Exit(1)
	}
}

// measure runs all measurements, one after the other.
func measure(ctx context.Context, opts options) (rows []row, err error) {
	dir, err := os.MkdirTemp("", "lull-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	b := bench{options: opts, dir: dir}
	if b.binary, err = rig.Build(ctx, dir); err != nil {
		return nil, err
	}
	for _, part := range []struct {
		name string
		run  func(context.Context) ([]row, error)
	}{{"isolated", b.isolated}, {"functions", b.functions}, {"forwarding", b.forwarding}, {"", b.asleep}} {
		if opts.only != "" && part.name != "" && opts.only != part.name {
			continue
		}
		more, err := part.run(ctx)
		if err != nil {
			return nil, err
		}
		rows = append(rows, more...)
	}
	return rows, nil
}

// bench is one run.
type bench struct {
	options
	dir    string
	binary string
}

// isolated measures what needs real sandboxes.
func (b bench) isolated(ctx context.Context) (rows []row, err error) {
	node, err := b.start(ctx, "gvisor")
	if err != nil {
		return nil, err
	}
	defer func() { err = stop(ctx, node, err) }()
	for _, run := range []func(context.Context, *rig.Node) ([]row, error){b.coldStarts, b.pauses, b.latency} {
		more, err := run(ctx, node)
		if err != nil {
			return nil, err
		}
		rows = append(rows, more...)
	}
	return rows, nil
}

func (b bench) start(ctx context.Context, sandbox string) (*rig.Node, error) {
	say("starting a node with --sandbox %s", sandbox)
	dir := filepath.Join(b.dir, sandbox)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return rig.Start(ctx, rig.Options{Binary: b.binary, Dir: dir, Sandbox: sandbox})
}

// stop ends a node also if ctx has ended; err is what came before.
func stop(ctx context.Context, node *rig.Node, err error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if stopErr := node.Stop(ctx); err == nil {
		return stopErr
	}
	return err
}

// deploy deploys the bench's app with a manifest of its own.
func (b bench) deploy(ctx context.Context, node *rig.Node, name, manifest string) error {
	return b.deployDir(ctx, node, appDir(), name, manifest)
}

// deployDir is deploy for the app in a directory.
func (b bench) deployDir(ctx context.Context, node *rig.Node, from, name, manifest string) error {
	dir := filepath.Join(b.dir, "app-"+name)
	if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "lull.yaml"), []byte(manifest), 0o644); err != nil {
		return err
	}
	_, err := node.Deploy(ctx, dir, name)
	return err
}

// appDir is the app that is measured, whether the program runs in the repository's root or in its own directory.
func appDir() string {
	if _, err := os.Stat("bench/app"); err == nil {
		return "bench/app"
	}
	return "app"
}

// say tells the person who waits what is going on.
func say(format string, args ...any) { fmt.Fprintf(os.Stderr, "# "+format+"\n", args...) }
