package gvisor

import (
	"fmt"
	"maps"
	"slices"

	"gvisor.dev/gvisor/runsc/config"
	"gvisor.dev/gvisor/runsc/flag"

	"github.com/lull-dev/lull"
)

// extraSettings are for looking into a sandbox: {"debug": "true", "debug-log": "/some/dir/", "strace": "true"}. The
// first lines of the sentry's log say how long each step of a start took.
var extraSettings map[string]string

// configure returns gVisor's configuration for one sandbox, whose files lie in dir.
//
// "rootless" is for gVisor's code in the node's process only, where its one effect is that the node's own standard
// streams are not given to the sandbox's user (chown); withoutRootless takes it back for the sandbox's processes.
func configure(dir, scratch, namespace string, disk lull.Size, writable bool) (*config.Config, error) {
	overlay := "root:dir=" + scratch
	switch {
	case writable:
		overlay = "none"
	case disk > 0:
		overlay += fmt.Sprintf(",size=%d", int64(disk))
	}
	settings := map[string]string{
		"root":                    dir,
		"log":                     dir + "/" + gvisorLog,
		"panic-log":               dir + "/" + gvisorDump,
		"ignore-cgroups":          "true", // they are ours: see order.Cgroups
		"rootless":                "true",
		"overlay2":                overlay,
		"file-access-mounts":      "exclusive", // nobody else changes the files while a sandbox has them
		"gofer-network-namespace": namespace,   // it has no use for one, and making or keeping an empty one costs time
		"restore-spec-validation": "ignore",    // the spec is a spare's, and openSnapshot has seen to it
		"host-settings":           "ignore",    // not looked at in every start
		"allow-connected-on-save": "true",      // else a snapshot that leaves the sandbox alive marks its connections as ended
	}
	maps.Copy(settings, extraSettings)
	if namespace == "" {
		settings["gofer-network-namespace"] = "new"
	}
	flags := flag.NewFlagSet("gvisor", flag.ContinueOnError)
	config.RegisterFlags(flags)
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		if err := flags.Set(name, settings[name]); err != nil {
			return nil, fmt.Errorf("configure gVisor: %s: %w", name, err)
		}
	}
	conf, err := config.NewFromFlags(flags)
	if err != nil {
		return nil, fmt.Errorf("configure gVisor: %w", err)
	}
	return conf, nil
}
