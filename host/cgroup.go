package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// killDeadline bounds the wait for killed processes to end. One in an uninterruptible wait (a dead network file system)
// may never.
const killDeadline = 10 * time.Second

// removeCgroups kills the processes in the cgroup of that name and in those below it, in every hierarchy, version 1 and
// 2, and removes the cgroups. It says how many processes that were.
func removeCgroups(name string) (int, error) {
	dirs, err := cgroups(name)
	if err != nil {
		return 0, fmt.Errorf("list cgroups: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), killDeadline)
	defer cancel()
	killed := map[int]bool{} // a process is in a cgroup of every hierarchy
	// All hierarchies at once: what is frozen in one does not die before it is thawed there.
	err = retry(ctx, func() (bool, error) { return killAll(dirs, killed) })
	if err != nil {
		return len(killed), fmt.Errorf("kill processes in cgroups %s: %w", name, err)
	}
	for _, dir := range slices.Backward(dirs) {
		if err := removeDir(ctx, dir); err != nil {
			return len(killed), fmt.Errorf("remove cgroup %s: %w", dir, err)
		}
	}
	return len(killed), nil
}

// cgroups lists the cgroup of that name and all below it, in every hierarchy, parents first.
func cgroups(name string) ([]string, error) {
	mounts, err := Mounts()
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, mount := range mounts {
		if mount.Type != "cgroup" && mount.Type != "cgroup2" {
			continue
		}
		below, err := directories(filepath.Join(mount.Point, name))
		if err != nil {
			return nil, err
		}
		dirs = append(dirs, below...)
	}
	return dirs, nil
}

// killAll kills what is in the cgroups and says whether there was nothing. One call is not enough: processes may be
// forking.
func killAll(dirs []string, killed map[int]bool) (empty bool, err error) {
	empty = true
	for _, dir := range dirs {
		pids, err := processes(dir)
		if err != nil {
			return false, err
		}
		if len(pids) > 0 {
			kill(dir, pids, killed)
			empty = false
		}
	}
	return empty, nil
}

// kill ends the processes of a cgroup.
func kill(dir string, pids []int, killed map[int]bool) {
	_ = os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0) // version 2
	for _, pid := range pids {
		_ = unix.Kill(pid, unix.SIGKILL) // it may have ended meanwhile
		killed[pid] = true
	}
	_ = os.WriteFile(filepath.Join(dir, "freezer.state"), []byte("THAWED"), 0) // version 1: a frozen process does not die
}

// removeDir removes a cgroup without any below it. One whose last process has just ended is busy for a moment.
func removeDir(ctx context.Context, dir string) error {
	return retry(ctx, func() (bool, error) {
		switch err := unix.Rmdir(dir); {
		case err == nil || errors.Is(err, unix.ENOENT):
			return true, nil
		case errors.Is(err, unix.EBUSY):
			return false, nil
		default:
			return false, err
		}
	})
}

// retry calls try until it is done, fails, or ctx ends.
func retry(ctx context.Context, try func() (done bool, err error)) error {
	again := time.NewTicker(2 * time.Millisecond)
	defer again.Stop()
	for {
		done, err := try()
		if done || err != nil {
			return err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// directories lists root and all directories below it, parents first; nothing if root does not exist.
func directories(root string) ([]string, error) {
	var dirs []string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, os.ErrNotExist):
			return nil
		case err != nil:
			return err
		case entry.IsDir():
			dirs = append(dirs, path)
		}
		return nil
	})
	return dirs, err
}

// processes lists those in a cgroup, without the cgroups below it.
func processes(dir string) ([]int, error) {
	data, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil // just removed, or a threaded cgroup, whose processes its parent lists
	}
	if err != nil {
		return nil, fmt.Errorf("list processes of cgroup %s: %w", dir, err)
	}
	var pids []int
	for _, word := range strings.Fields(string(data)) {
		if pid, err := strconv.Atoi(word); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
