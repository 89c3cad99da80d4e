package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/lull-dev/lull/e2e/rig"
)

// The limits that the project has set itself.
const (
	maxColdRatio = 2.5
	maxResume    = 5 * time.Millisecond
	maxAdded     = 150 * time.Microsecond
	maxCPURatio  = 1.0
)

// settle is how long what was stopped gets to be gone: its clearing up is not part of the next start.
const settle = 300 * time.Millisecond

// coldStarts compares the first answer of an app that is not running with that of a bare server that is started by hand.
func (b bench) coldStarts(ctx context.Context, node *rig.Node) ([]row, error) {
	say("cold starts: %d of each kind", b.coldRounds)
	if err := b.deploy(ctx, node, "cold", "idle: {pause: 50ms, stop: 50ms}\n"); err != nil {
		return nil, err
	}
	var lull, plain sample
	for range b.coldRounds {
		took, err := coldLull(ctx, node)
		if err != nil {
			return nil, err
		}
		lull = append(lull, took)
		if took, err = coldBare(ctx); err != nil {
			return nil, err
		}
		plain = append(plain, took)
	}
	ratio := float64(lull.median()) / float64(plain.median())
	return []row{{
		what:  "Cold start to the first answer",
		with:  lull.String(),
		bare:  plain.String() + " (`node server.js`)",
		value: fmt.Sprintf("%.2f ×", ratio),
		limit: fmt.Sprintf("%.1f ×", maxColdRatio),
		over:  ratio > maxColdRatio,
	}}, nil
}

func coldLull(ctx context.Context, node *rig.Node) (time.Duration, error) {
	err := awaitEnvironments(ctx, node, "cold", func(up []rig.Environment) bool { return len(up) == 0 })
	if err != nil {
		return 0, err
	}
	time.Sleep(settle)
	client := node.Client()
	defer client.CloseIdleConnections()
	got, err := ask(ctx, client, node.URL("cold", "/"))
	if err == nil && rig.Took(got.header) != "start" {
		err = fmt.Errorf("a cold start was none: %q", rig.Took(got.header))
	}
	return got.took, err
}

func coldBare(ctx context.Context) (time.Duration, error) { return coldBareIn(ctx, appDir()) }

// coldBareIn starts the server in a directory by hand and returns the time to its first answer.
func coldBareIn(ctx context.Context, dir string) (time.Duration, error) {
	time.Sleep(settle)
	start := time.Now()
	server, err := startBareIn(dir)
	if err != nil {
		return 0, err
	}
	defer server.stop()
	err = awaitAnswer(ctx, server.address)
	return time.Since(start), err
}

// pauses compares the first answer after a pause with the one right after it, on the same connection.
func (b bench) pauses(ctx context.Context, node *rig.Node) ([]row, error) {
	say("pauses: %d", b.pauseRounds)
	if err := b.deploy(ctx, node, "pauses", "idle: {pause: 50ms}\n"); err != nil {
		return nil, err
	}
	client, url := node.Client(), node.URL("pauses", "/")
	defer client.CloseIdleConnections()
	var resumed, warm sample
	for round := range b.pauseRounds + 1 {
		err := awaitEnvironments(ctx, node, "pauses", func(up []rig.Environment) bool { return len(up) == 1 && up[0].State == "paused" })
		if err != nil {
			return nil, err
		}
		first, err := askFor(ctx, client, url, "resume")
		if err != nil {
			return nil, err
		}
		second, err := askFor(ctx, client, url, "warm")
		if err != nil {
			return nil, err
		}
		if round > 0 { // the first pause of an environment is its longest, and the connection is new
			resumed, warm = append(resumed, first), append(warm, second)
		}
	}
	added := resumed.median() - warm.median()
	return []row{{
		what:  "First answer after a pause",
		with:  resumed.String(),
		bare:  warm.String() + " (warm)",
		value: "+" + short(added),
		limit: "+" + short(maxResume),
		over:  added > maxResume,
	}}, nil
}

// askFor is ask for an answer that must have taken a certain way to its place.
func askFor(ctx context.Context, client *http.Client, url, took string) (time.Duration, error) {
	got, err := ask(ctx, client, url)
	if err == nil && rig.Took(got.header) != took {
		err = fmt.Errorf("an answer came by %q, not %q", rig.Took(got.header), took)
	}
	return got.took, err
}

// latency compares warm answers through the gateway with those of the same sandbox, asked past it. Requests alternate,
// each kind on one connection.
func (b bench) latency(ctx context.Context, node *rig.Node) ([]row, error) {
	say("latency: %d requests each", b.requests)
	if err := b.deploy(ctx, node, "latency", "idle: {pause: 1m}\nscale: {max: 1}\n"); err != nil {
		return nil, err
	}
	through := node.Client()
	defer through.CloseIdleConnections()
	address, err := ask(ctx, through, node.URL("latency", "/address"))
	if err != nil {
		return nil, err
	}
	past := rig.ClientOf(address.body + ":8080")
	defer past.CloseIdleConnections()
	var gateway, direct sample
	const warmUp = 200
	for round := range b.requests + warmUp {
		one, err := ask(ctx, through, node.URL("latency", "/"))
		if err != nil {
			return nil, err
		}
		other, err := ask(ctx, past, "http://"+address.body+":8080/")
		if err != nil {
			return nil, fmt.Errorf("ask the sandbox past the gateway: %w", err)
		}
		if round >= warmUp {
			gateway, direct = append(gateway, one.took), append(direct, other.took)
		}
	}
	added := gateway.median() - direct.median()
	return []row{{
		what:  "Warm answer through the gateway",
		with:  gateway.String(),
		bare:  direct.String() + " (the same sandbox, directly)",
		value: "+" + short(added),
		limit: "+" + short(maxAdded),
		over:  added > maxAdded,
	}}, nil
}
