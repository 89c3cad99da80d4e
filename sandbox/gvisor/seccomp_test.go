package gvisor

import (
	"flag"
	"os"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"
	"gvisor.dev/gvisor/runsc/boot/filter"

	"github.com/lull-dev/lull/sandbox/gvisor/internal/rules"
)

var update = flag.Bool("update", false, "write seccomp.json anew")

// raceEnabled is set by a file that is compiled with the race detector only.
var raceEnabled bool

const seccompArch = "amd64" // of the program in seccomp.json

func TestSeccompProgram(t *testing.T) {
	if runtime.GOARCH != seccompArch || raceEnabled {
		t.Logf("the program is for %s without the race detector, which has rules of its own", seccompArch)
		return
	}
	fresh, err := rules.Compile()
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		data, err := storeSeccomp(fresh)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile("seccomp.json", append(data, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	stored, err := loadSeccomp(seccompFile)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(fresh, stored); diff != "" {
		t.Errorf("gVisor's rules have changed: run this test with -update (-fresh +stored)\n%.2000s", diff)
	}
	installSeccomp()
	if _, ok := filter.GetPrecompiled(stored.Name); !ok {
		t.Error("gVisor does not know the program: filter.precompiledPrograms is no longer what it was")
	}
}
