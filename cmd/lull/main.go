// Command lull runs servers that sleep in every lull and wake on the next byte.
package main

import (
	"context"
	"os"

	"github.com/lull-dev/lull/cli"
	"github.com/lull-dev/lull/function/runtime"
	"github.com/lull-dev/lull/node"
	"github.com/lull-dev/lull/sandbox/gvisor"
	"github.com/lull-dev/lull/store"
)

func main() {
	store.StopSampling()
	if gvisor.Main() { // this process is a sandbox
		return
	}
	if runtime.Main() { // this process is inside one, and runs a function
		return
	}
	os.Exit(cli.Main(cli.System(serve)))
}

// serve is node.Run as the command line knows it.
func serve(ctx context.Context, opts cli.ServeOptions, ready func(cli.Serving), force <-chan struct{}) error {
	return node.Run(ctx, node.Config{
		Data: opts.Data, HTTP: opts.HTTP, API: opts.API, Domain: opts.Domain, Sandbox: opts.Sandbox,
		QuietHeaders: opts.QuietHeaders, ConfigDir: opts.ConfigDir, Version: opts.Version, Drain: opts.Drain,
		Memory: opts.Memory, Snapshots: opts.Snapshots, Log: opts.Log,
	}, func(info node.Info) { ready(cli.Serving(info)) }, force)
}
