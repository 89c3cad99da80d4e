package host

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseMounts(t *testing.T) {
	const text = `22 28 0:21 / /proc rw,relatime shared:5 - proc proc rw
35 28 0:31 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
40 28 0:4 net:[4026532281] /run/lull/my\040dir/x\011y rw - nsfs nsfs rw
`
	got, err := parseMounts(strings.NewReader(text))
	must(t, err)
	want := []Mount{
		{Point: "/proc", Type: "proc", Options: "rw"},
		{Point: "/sys/fs/cgroup/cpu", Type: "cgroup", Options: "rw,cpu"},
		{Point: "/run/lull/my dir/x\ty", Type: "nsfs", Options: "rw"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestMountsOfThisMachine(t *testing.T) {
	mounts, err := Mounts()
	must(t, err)
	for _, mount := range mounts {
		if mount.Point == "/proc" && mount.Type == "proc" {
			return
		}
	}
	t.Errorf("no /proc among %v", mounts)
}

func FuzzParseMounts(f *testing.F) {
	f.Add("22 28 0:21 / /proc rw shared:5 - proc proc rw\n")
	f.Add(`1 2 0:4 / /a\040\ rw - t s o`)
	f.Fuzz(func(t *testing.T, text string) {
		mounts, err := parseMounts(strings.NewReader(text))
		if err == nil && len(mounts) > strings.Count(text, "\n")+1 {
			t.Errorf("%d mounts in %q", len(mounts), text)
		}
	})
}
