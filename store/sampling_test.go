package store

import (
	"strings"
	"testing"
)

func TestSamplingIsReached(t *testing.T) {
	if !strings.HasPrefix(procStatFile, "/proc/") {
		t.Fatalf("the variable is %q: the NATS server no longer has it, look for what StopSampling must do now", procStatFile)
	}
}
