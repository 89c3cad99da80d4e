package rig

import (
	"os"
	"path/filepath"
	"testing"
)

func TestReadMetrics(t *testing.T) {
	values, err := readMetrics("# HELP a what it is\n# TYPE a counter\na{b=\"c d\"} 1\na{b=\"e\"} 2.5\ngo_goroutines 17\n")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]float64{`a{b="c d"}`: 1, `a{b="e"}`: 2.5, "a": 3.5, "go_goroutines": 17} {
		if values[name] != want {
			t.Errorf("%s is %g, want %g", name, values[name], want)
		}
	}
	if _, err := readMetrics("a b\n"); err == nil {
		t.Error("a value that is no number is no error")
	}
}

func TestDiskUsageCountsBlocksNotHoles(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "full"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "hole"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, "hole"), 1<<30); err != nil {
		t.Fatal(err)
	}
	if used, err := DiskUsage(dir); err != nil || used < 1<<20 || used > 2<<20 {
		t.Errorf("1 MB and a hole take %d bytes: %v", used, err)
	}
	if used, err := DiskUsage(filepath.Join(dir, "none")); err != nil || used != 0 {
		t.Errorf("what is not there takes %d bytes: %v", used, err)
	}
}
