package gvisor

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// order is what the node tells the processes of a sandbox beyond what gVisor's own command line says. It lies beside
// the OCI spec, in the bundle.
type order struct {
	Cgroups []string `json:"cgroups"` // files to write one's process id to
	CPUs    int      `json:"cpus"`    // what the app sees as the number of processors; 0: all of them
	Root    root     `json:"root"`
	errand
}

// errand is the part of an order that a spare's sentry gets later, over the line.
type errand struct {
	Memory    int64     `json:"memory"`          // what the app sees as the machine's memory; 0: all of it
	Processes int       `json:"processes"`       // the app's processes and threads; 0: no limit
	Wider     []widened `json:"wider,omitempty"` // of an app that is restored
}

const (
	orderFile  = "order.json"
	rootDir    = "root"  // the mount point of the root file system
	faultFile  = "fault" // why the sandbox's entry gave up
	gvisorLog  = "log"   // gVisor's own fatal errors
	gvisorDump = "panic" // what the Go runtime says when the sentry dies
)

func (o order) write(bundle string) error {
	data, err := json.Marshal(o)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(bundle, orderFile), data, 0o600)
}

func readOrder(bundle string) (o order, err error) {
	data, err := os.ReadFile(filepath.Join(bundle, orderFile))
	if err != nil {
		return o, err
	}
	if err := json.Unmarshal(data, &o); err != nil {
		return o, fmt.Errorf("read %s: %w", orderFile, err)
	}
	return o, nil
}
