package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/lull-dev/lull/e2e/rig"
)

// maxFunctionRatio is how much longer a handler may take as a function than behind a server of its own.
const maxFunctionRatio = 1.5

// functions compares warm invocations of a function with the same handler behind a plain HTTP server, both in sandboxes and
// through the gateway. Requests alternate, each kind on one connection.
func (b bench) functions(ctx context.Context) (rows []row, err error) {
	node, err := b.start(ctx, "gvisor")
	if err != nil {
		return nil, err
	}
	defer func() { err = stop(ctx, node, err) }()
	say("functions: %d invocations", b.requests)
	from := filepath.Join(filepath.Dir(appDir()), "function")
	for name, manifest := range map[string]string{
		"handler": "function: {handler: index.handler, runtime: nodejs20.x}\nidle: {pause: 1m}\nscale: {max: 1}\n",
		"server":  "run: node server.mjs\nidle: {pause: 1m}\nscale: {max: 1}\n",
	} {
		if err := b.deployDir(ctx, node, from, name, manifest); err != nil {
			return nil, err
		}
	}
	asFunction, err := b.warm(ctx, node, "handler", "server")
	if err != nil {
		return nil, err
	}
	ratio := float64(asFunction[0].median()) / float64(asFunction[1].median())
	return []row{{
		what:  "Warm invocation of a function",
		with:  asFunction[0].String(),
		bare:  asFunction[1].String() + " (the same handler behind `http.createServer`)",
		value: fmt.Sprintf("%.2f ×", ratio),
		limit: fmt.Sprintf("%.1f ×", maxFunctionRatio),
		over:  ratio > maxFunctionRatio,
	}}, nil
}

// warm asks two apps in turn and returns how long each took.
func (b bench) warm(ctx context.Context, node *rig.Node, apps ...string) ([]sample, error) {
	samples := make([]sample, len(apps))
	client := node.Client()
	defer client.CloseIdleConnections()
	const warmUp = 200
	for round := range b.requests + warmUp {
		for i, app := range apps {
			got, err := ask(ctx, client, node.URL(app, "/"))
			if err != nil {
				return nil, err
			}
			if got.body != "hello /" {
				return nil, fmt.Errorf("%s answers %q", app, got.body)
			}
			if round >= warmUp {
				samples[i] = append(samples[i], got.took)
			}
		}
	}
	return samples, nil
}
