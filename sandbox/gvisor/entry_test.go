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
	got := sentryArgs(withoutRootless(args), order{Memory: 128, CPUs: 2})
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
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	kept, stranger := min(pair[0], pair[1]), max(pair[0], pair[1])
	defer unix.Close(kept)
	others := socketsAbove(t, stranger) // the test's own, which must not be closed
	if len(others) > 0 {
		t.Fatalf("sockets %v are open above %d", others, stranger)
	}
	if err := closeStrangers(kept); err != nil {
		t.Fatal(err)
	}
	var stat unix.Stat_t
	if unix.Fstat(stranger, &stat) == nil {
		t.Error("the socket above the last donated file is still open")
	}
	if err := unix.Fstat(kept, &stat); err != nil {
		t.Errorf("the donated socket: %v", err)
	}
	if _, err := file.Stat(); err != nil {
		t.Errorf("the file that is no socket: %v", err)
	}
}

func socketsAbove(t *testing.T, last int) (found []int) {
	t.Helper()
	for fd := last + 1; fd < 256; fd++ {
		var stat unix.Stat_t
		if unix.Fstat(fd, &stat) == nil && stat.Mode&unix.S_IFMT == unix.S_IFSOCK {
			found = append(found, fd)
		}
	}
	return found
}

