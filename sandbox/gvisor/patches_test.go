package gvisor

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"gvisor.dev/gvisor/pkg/sentry/kernel"
)

// sentryLog runs a program in a sandbox and returns what the sentry logged.
func sentryLog(t *testing.T, args ...string) string {
	t.Helper()
	d := newDriver(t)
	logs := t.TempDir()
	extraSettings = map[string]string{"debug": "true", "debug-log": logs + "/"}
	defer func() { extraSettings = nil }()
	spec := quietSpec("logged")
	spec.Args = args
	sb, err := d.Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	defer sb.Close()
	<-sb.Done()
	files, err := filepath.Glob(filepath.Join(logs, "*.boot.*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("logs are %v, %v", files, err)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// What is changed in gVisor for speed falls back to what gVisor does by itself. So nothing but this would notice.
func TestFastPathsAreTaken(t *testing.T) {
	// It reads the clock, and is over before gVisor would take its second reading by itself.
	log := sentryLog(t, "sh", "-c", "date; sleep 0.2; date")
	for what, line := range map[string]string{
		"the precompiled seccomp program":  "Loaded precompiled seccomp instructions",
		"the early reading of the clock":   "CalibratedClock(Monotonic): ready",
		"the capabilities without re-exec": "Capabilities applied to all threads",
	} {
		if !strings.Contains(log, line) {
			t.Errorf("%s is not used: no %q in the sentry's log", what, line)
		}
	}
	if _, ok := reflect.TypeFor[kernel.Timekeeper]().FieldByName("params"); !ok {
		t.Error("gVisor's timekeeper has no field params any more")
	}
}
