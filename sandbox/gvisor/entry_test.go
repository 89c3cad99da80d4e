package gvisor

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestIsPart(t *testing.T) {
	for _, c := range []struct {
		args []string
		want bool
	}{
		{[]string{"runsc-sandbox", "--root=/x", "boot", "--bundle=/b", "id"}, true},
		{[]string{"runsc-gofer", "--root=/x", "gofer", "--bundle", "/b", "id"}, true},
		{[]string{"/proc/self/exe", "umount", "--sync-fd=3", "/proc"}, true},
		{[]string{"lull", "serve"}, false},
		{[]string{"/usr/bin/lull", "boot"}, false},
		{[]string{"/proc/self/exe", "serve"}, false},
		{[]string{"runsc"}, false},
		{nil, false},
	} {
		if got := isPart(c.args); got != c.want {
			t.Errorf("%q: got %v", c.args, got)
		}
	}
}

func TestBundleOf(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"x", "boot", "--bundle=/b", "id"}, "/b"},
		{[]string{"x", "gofer", "--bundle", "/b", "id"}, "/b"},
		{[]string{"x", "umount", "/proc"}, ""},
		{[]string{"x", "--bundle"}, ""},
	} {
		if got := bundleOf(c.args); got != c.want {
			t.Errorf("%q: got %q", c.args, got)
		}
	}
}

func TestSentryArgs(t *testing.T) {
	args := []string{"runsc-sandbox", "--rootless=true", "--root=/x", "boot", "--bundle=/b", "--total-host-memory", "9000", "--total-memory", "9000", "id"}
	got := sentryArgs(withoutRootless(args), order{CPUs: 2, errand: errand{Memory: 128}})
	want := []string{"runsc-sandbox", "--root=/x", "boot", "--cpu-num", "2", "--bundle=/b", "--total-host-memory", "9000", "--total-memory", "128", "id"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if diff := cmp.Diff(args, sentryArgs(args, order{})); diff != "" {
		t.Errorf("without limits: (-want +got)\n%s", diff)
	}
}

func TestLastDonated(t *testing.T) {
	args := []string{"x", "--log-fd=3", "boot", "--io-fds=4", "--io-fds=5", "--pass-fd=17:1", "--pass-fd=16:0", "--start-sync-fd=9", "--fdlimit=99", "--cpu-num", "50", "id"}
	if got := lastDonated(args); got != 17 {
		t.Errorf("got %d, want 17", got)
	}
	if got := lastDonated([]string{"x", "umount"}); got != 2 {
		t.Errorf("without any: got %d, want 2", got)
	}
}

func TestCloseStrangers(t *testing.T) {
	file, err := os.Open(os.DevNull) // marked, as all that Go opens
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	kept, err := unix.Eventfd(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(kept)
	stranger, err := unix.FcntlInt(uintptr(kept), unix.F_DUPFD, 250) // away from all that the test binary has open
	if err != nil {
		t.Fatal(err)
	}
	marked, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 250)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(marked)
	if err := closeStrangers(stranger - 1); err != nil {
		t.Fatal(err)
	}
	var stat unix.Stat_t
	if unix.Fstat(stranger, &stat) == nil {
		t.Error("what was inherited is still open")
	}
	for _, fd := range []int{kept, marked} {
		if err := unix.Fstat(fd, &stat); err != nil {
			t.Errorf("%d, which is not a stranger: %v", fd, err)
		}
	}
}
