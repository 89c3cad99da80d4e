package host

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// killStrays kills the processes that were started for a sandbox whose bundle is below dir, and says how many that were.
// Nobody may be starting any.
func killStrays(dir string, bundleOf func(args []string) string) (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), killDeadline)
	defer cancel()
	killed := map[int]bool{}
	err := retry(ctx, func() (bool, error) { // they may be forking
		pids, err := strays(dir, bundleOf)
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL) // it may have ended meanwhile
			killed[pid] = true
		}
		return len(pids) == 0, err
	})
	if err != nil {
		return len(killed), fmt.Errorf("kill processes of sandboxes in %s: %w", dir, err)
	}
	return len(killed), nil
}

// strays lists them. One that has ended has no command line. A node in a container may have a slot and sandboxes of the
// same names: what counts is what the process itself sees in that place.
func strays(dir string, bundleOf func(args []string) string) (pids []int, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		line, _ := os.ReadFile(filepath.Join("/proc", entry.Name(), "cmdline"))
		bundle := bundleOf(strings.Split(string(line), "\x00"))
		if strings.HasPrefix(bundle, dir+"/") && sameFile(bundle, filepath.Join("/proc", entry.Name(), "root", bundle)) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

func sameFile(one, other string) bool {
	a, err := os.Stat(one)
	b, otherErr := os.Stat(other)
	return err == nil && otherErr == nil && os.SameFile(a, b)
}
