package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/lull-dev/lull/e2e/rig"
)

// many hibernates hundreds of environments, looks at the node's memory, and wakes some at once.
func (b bench) many(ctx context.Context, node *rig.Node) ([]row, error) {
	say("hibernated environments: %d", b.sleepers)
	before, err := b.settledRSS(ctx, node)
	if err != nil {
		return nil, err
	}
	names, err := b.deployMany(ctx, node, b.sleepers, "idle: {pause: 100ms, hibernate: 2s}\nresources: {memory: 96MB}\n")
	if err != nil {
		return nil, err
	}
	if err := awaitStates(ctx, node, "hibernated", len(names)); err != nil {
		return nil, err
	}
	after, err := b.settledRSS(ctx, node)
	if err != nil {
		return nil, err
	}
	rows := []row{{
		what: fmt.Sprintf("The node's memory per hibernated app, at %d", len(names)), with: fmt.Sprintf("%.1f MB", float64(after)/(1<<20)),
		bare: fmt.Sprintf("%.1f MB (without them)", float64(before)/(1<<20)), value: fmt.Sprintf("%.1f KB", float64(after-before)/float64(len(names))/1024), limit: "-",
	}}
	for _, at := range []int{1, 10, 100} {
		woken, err := b.storm(ctx, node, names, min(at, len(names)))
		if err != nil {
			return nil, err
		}
		rows = append(rows, woken)
	}
	return rows, nil
}

// storm wakes so many of the environments at once, a few times, each time others. None may fail.
func (b bench) storm(ctx context.Context, node *rig.Node, names []string, at int) (row, error) {
	rounds := max(1, min(10, len(names)/(2*at)))
	var took sample
	for range rounds {
		if err := awaitStates(ctx, node, "hibernated", len(names)); err != nil {
			return row{}, err
		}
		order := rand.Perm(len(names))[:at]
		client := node.Client()
		var mu sync.Mutex // guards took and failed
		var failed error
		var waking sync.WaitGroup
		for _, i := range order {
			waking.Go(func() {
				d, err := askFor(ctx, client, node.URL(names[i], "/"), "wake")
				mu.Lock()
				defer mu.Unlock()
				took, failed = append(took, d), errors.Join(failed, err)
			})
		}
		waking.Wait()
		client.CloseIdleConnections()
		if failed != nil {
			return row{}, fmt.Errorf("%d wakes at once: %w", at, failed)
		}
	}
	return row{
		what: fmt.Sprintf("%d wakes at once, of %d hibernated", at, len(names)), with: took.String(), bare: fmt.Sprintf("%d wakes, none failed", len(took)),
		value: fmt.Sprintf("%s, 99 %%: %s", short(took.median()), short(took.quantile(0.99))), limit: "none fails",
	}, nil
}

// deployMany deploys the same app under many names, four at a time.
func (b bench) deployMany(ctx context.Context, node *rig.Node, n int, manifest string) (names []string, err error) {
	dir := filepath.Join(b.dir, "app")
	if err := os.CopyFS(dir, os.DirFS(appDir())); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "lull.yaml"), []byte(manifest), 0o644); err != nil {
		return nil, err
	}
	next := make(chan string, n)
	for i := range n {
		names = append(names, fmt.Sprintf("app-%d", i))
		next <- names[i]
	}
	close(next)
	var mu sync.Mutex // guards err
	var deploying sync.WaitGroup
	for range 4 {
		deploying.Go(func() {
			for name := range next {
				_, deployErr := node.Deploy(ctx, dir, name)
				mu.Lock()
				err = errors.Join(err, deployErr)
				mu.Unlock()
				if deployErr != nil {
					return
				}
			}
		})
	}
	deploying.Wait()
	return names, err
}

// awaitStates waits until so many environments are in a state.
func awaitStates(ctx context.Context, node *rig.Node, state string, n int) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	again := time.NewTicker(200 * time.Millisecond)
	defer again.Stop()
	for {
		values, err := node.Metrics(ctx)
		if err != nil {
			return err
		}
		are := 0
		for name, value := range values {
			if inState(name, state) {
				are += int(value)
			}
		}
		if are >= n {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d of %d environments are %s: %w", are, n, state, ctx.Err())
		case <-again.C:
		}
	}
}

// inState reports whether a metric counts environments in a state.
func inState(name, state string) bool {
	return strings.HasPrefix(name, "lull_environments{") && strings.Contains(name, fmt.Sprintf("state=%q", state))
}
