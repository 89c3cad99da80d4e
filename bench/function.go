package main

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
)

// maxFunctionRatio is how much longer a handler may take as a function than behind a server of its own.
const maxFunctionRatio = 1.5

// maxEmulatorRatio is how much longer it may take than with a local emulator, which has no sandbox.
const maxEmulatorRatio = 1.0

// functions compares warm invocations of a function with the same handler behind a plain HTTP server, both in sandboxes and
// through the gateway, and with serverless-offline. Requests alternate, each kind on one connection.
func (b bench) functions(ctx context.Context) (rows []row, err error) {
	emulator, err := b.startOffline(ctx)
	if err != nil {
		return nil, err
	}
	defer emulator.stop()
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
	client := node.Client()
	defer client.CloseIdleConnections()
	took, err := b.warm(ctx, []warmed{{client, node.URL("handler", "/")}, {client, node.URL("server", "/")}, {http.DefaultClient, emulator.url}})
	if err != nil {
		return nil, err
	}
	for i, beside := range []struct {
		name  string
		limit float64
	}{{"the same handler behind `http.createServer`", maxFunctionRatio}, {"serverless-offline, without a sandbox", maxEmulatorRatio}} {
		ratio := float64(took[0].median()) / float64(took[i+1].median())
		rows = append(rows, row{
			what:  "Warm invocation of a function",
			with:  took[0].String(),
			bare:  took[i+1].String() + " (" + beside.name + ")",
			value: fmt.Sprintf("%.2f ×", ratio),
			limit: fmt.Sprintf("%.1f ×", beside.limit),
			over:  ratio > beside.limit,
		})
	}
	return rows, nil
}

// warmed is a server that is asked again and again.
type warmed struct {
	client *http.Client
	url    string
}

// warm asks servers in turn and returns how long each took.
func (b bench) warm(ctx context.Context, servers []warmed) ([]sample, error) {
	samples := make([]sample, len(servers))
	const warmUp = 200
	for round := range b.requests + warmUp {
		for i, server := range servers {
			got, err := ask(ctx, server.client, server.url)
			if err != nil {
				return nil, err
			}
			if got.body != "hello /" {
				return nil, fmt.Errorf("%s answers %q", server.url, got.body)
			}
			if round >= warmUp {
				samples[i] = append(samples[i], got.took)
			}
		}
	}
	return samples, nil
}
