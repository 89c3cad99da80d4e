package node

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/host"
	"github.com/lull-dev/lull/network"
	"github.com/lull-dev/lull/sandbox"
	"github.com/lull-dev/lull/sandbox/gvisor"
	"github.com/lull-dev/lull/sandbox/process"
)

// isolation is the driver and what it stands on, in the order in which they were opened.
type isolation struct {
	driver   sandbox.Driver
	slot     *host.Slot       // nil for process
	network  *network.Network // nil for process
	warnings []string
}

const processWarning = "sandbox \"process\": apps run as plain processes without isolation, limits or hibernation; use it for development only"

// openIsolation opens the driver that cfg asks for. Without a wish it is gvisor where that can run, else process with a
// warning that says what is lost.
func openIsolation(cfg Config, services uint16) (*isolation, error) {
	switch cfg.Sandbox {
	case "process":
		return openProcess(cfg.Log), nil
	case "gvisor":
		return openGvisor(cfg, services)
	case "":
		iso, err := openGvisor(cfg, services)
		if err == nil {
			return iso, nil
		}
		iso = openProcess(cfg.Log)
		iso.warnings = append(iso.warnings, fmt.Sprintf("sandbox \"gvisor\" cannot run here (%v); run `lull doctor`", err))
		return iso, nil
	}
	return nil, &lull.Error{Kind: lull.KindInvalid, Message: fmt.Sprintf("there is no sandbox %q", cfg.Sandbox),
		Hint: "choose gvisor or process"}
}

func openProcess(log *slog.Logger) *isolation {
	return &isolation{driver: process.New(log), warnings: []string{processWarning}}
}

// openGvisor claims a slot of this machine, removes what dead nodes left behind, and opens network and driver.
func openGvisor(cfg Config, services uint16) (iso *isolation, err error) {
	if os.Geteuid() != 0 {
		return nil, &lull.Error{Kind: lull.KindUnsupported, Message: "the gvisor sandbox needs root",
			Hint: "run as root, or use --sandbox process for development"}
	}
	iso = &isolation{}
	defer func() {
		if err != nil {
			err = errors.Join(err, iso.close())
		}
	}()
	if iso.slot, err = host.Claim(""); err != nil {
		return iso, fmt.Errorf("claim a slot on this machine: %w", err)
	}
	if err = iso.slot.Sweep(cfg.Log, gvisor.BundleOf, network.Sweep); err != nil {
		return iso, fmt.Errorf("remove what an earlier node left: %w", err)
	}
	if iso.network, err = network.Open(iso.slot, network.Options{Log: cfg.Log, Services: services}); err != nil {
		return iso, fmt.Errorf("open the network of environments: %w", err)
	}
	scratch := filepath.Join(cfg.Data, "scratch") // on the disk the operator chose for data
	if err = os.MkdirAll(scratch, 0o700); err != nil {
		return iso, fmt.Errorf("make the scratch directory of environments: %w", err)
	}
	iso.driver, err = gvisor.New(gvisor.Options{
		Slot: iso.slot, Network: iso.network, Log: cfg.Log, Executable: cfg.Executable, Scratch: scratch,
	})
	return iso, err
}

// close ends what is open, last opened first.
func (iso *isolation) close() error {
	var errs []error
	if iso.driver != nil {
		errs = append(errs, iso.driver.Close())
	}
	if iso.network != nil {
		errs = append(errs, iso.network.Close())
	}
	if iso.slot != nil {
		errs = append(errs, iso.slot.Release())
	}
	return errors.Join(errs...)
}
