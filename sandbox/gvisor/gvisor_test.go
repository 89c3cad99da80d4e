package gvisor

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/lull-dev/lull/host"
	"github.com/lull-dev/lull/network"
	"github.com/lull-dev/lull/sandbox"
	"github.com/lull-dev/lull/sandbox/sandboxtest"
)

func TestMain(m *testing.M) {
	if os.Getenv(envNode) != "" {
		if err := runNode(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
	code := m.Run()
	if dir := filepath.Dir(built.path); built.path != "" {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

var built struct {
	once sync.Once
	path string
	err  error
}

// executable builds, once, a static binary to make sandboxes of: the test's own need not be static.
func executable(t testing.TB) string {
	t.Helper()
	built.once.Do(func() {
		var dir string
		if dir, built.err = os.MkdirTemp("", "lull-part-"); built.err != nil {
			return
		}
		built.path = filepath.Join(dir, "part")
		build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", built.path, "./testdata/part")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("%w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatalf("build the sandboxes' executable: %v", built.err)
	}
	return built.path
}

// needRoot ends the test where sandboxes cannot run. In CI that is a failure.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("gvisor sandboxes need root")
	}
	t.Skip("gvisor sandboxes need root")
}

// newDriver makes a driver with a slot and a network of its own.
func newDriver(t testing.TB) *Driver {
	t.Helper()
	needRoot(t)
	path := executable(t)
	slot, err := host.Claim(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := slot.Sweep(slog.New(slog.DiscardHandler), BundleOf, network.Sweep); err != nil {
		t.Fatal(errors.Join(err, slot.Release()))
	}
	net, err := network.Open(slot, network.Options{})
	if err != nil {
		t.Fatal(errors.Join(err, slot.Release()))
	}
	driver, err := New(Options{Slot: slot, Network: net, Executable: path, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(errors.Join(err, net.Close(), slot.Release()))
	}
	t.Cleanup(func() {
		if err := errors.Join(driver.Close(), net.Close(), slot.Release()); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	return driver
}

func TestConformance(t *testing.T) {
	sandboxtest.Run(t, func(t *testing.T) sandbox.Driver { return newDriver(t) })
}
