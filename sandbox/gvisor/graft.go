package gvisor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// goferRoot is where a gofer has the sandbox's root in its mount namespace.
const goferRoot = "/root"

// graft puts directories and mounts into the root file system that a gofer has built, before the sentry looks at it.
// None of them lies in another mount: see graftable.
func graft(gofer int, dirs []dir, binds []bind) error {
	trees := make([]int, 0, len(binds))
	defer func() {
		for _, fd := range trees {
			_ = unix.Close(fd)
		}
	}()
	for _, b := range binds {
		fd, err := unix.OpenTree(unix.AT_FDCWD, b.Source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
		if err != nil {
			return fmt.Errorf("open %s: %w", b.Source, err)
		}
		trees = append(trees, fd)
	}
	namespace, err := unix.Open(fmt.Sprintf("/proc/%d/ns/mnt", gofer), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("find the gofer's mounts: %w", err)
	}
	defer unix.Close(namespace)

	grafted := make(chan error)
	go func() { // the receive below waits
		runtime.LockOSThread() // for ever: the thread ends with this goroutine
		grafted <- graftInside(namespace, dirs, binds, trees)
	}()
	return <-grafted
}

// graftInside moves the calling thread to the gofer's mount namespace, from where there is no way back.
func graftInside(namespace int, dirs []dir, binds []bind, trees []int) error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	if err := unix.Setns(namespace, unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("enter the gofer's mounts: %w", err)
	}
	const usual = unix.MS_REMOUNT | unix.MS_BIND | unix.MS_NOSUID | unix.MS_NODEV
	if err := unix.Mount("", goferRoot, "", usual, ""); err != nil {
		return fmt.Errorf("open root: %w", err)
	}
	err := makePlaces(dirs, binds, trees)
	if err := errors.Join(err, unix.Mount("", goferRoot, "", usual|unix.MS_RDONLY, "")); err != nil {
		return err
	}
	for i, b := range binds {
		place := filepath.Join(goferRoot, b.Target)
		if err := unix.MoveMount(trees[i], "", unix.AT_FDCWD, place, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fmt.Errorf("show %s as %s: %w", b.Source, b.Target, err)
		}
		// As in root.build: what is mounted there later is not seen by others.
		if err := unix.Mount("", place, "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("detach %s: %w", b.Source, err)
		}
	}
	return nil
}

func makePlaces(dirs []dir, binds []bind, trees []int) error {
	var r root
	for _, d := range dirs {
		if err := r.makeDir(goferRoot, d); err != nil {
			return err
		}
	}
	for i, b := range binds {
		var stat unix.Stat_t
		err := unix.Fstat(trees[i], &stat)
		if err == nil {
			err = r.makePlace(goferRoot, b.Target, stat.Mode&unix.S_IFMT == unix.S_IFDIR)
		}
		if err != nil {
			return fmt.Errorf("make place for %s: %w", b.Target, err)
		}
	}
	return nil
}

// makePlace makes an empty directory or file to mount something on.
func (r root) makePlace(tree, target string, isDir bool) error {
	if isDir {
		return r.makeDir(tree, dir{Path: target, Mode: 0o755})
	}
	if err := r.makeDir(tree, dir{Path: filepath.Dir(target), Mode: 0o755}); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(tree, target), nil, 0o644)
}
