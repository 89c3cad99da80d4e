package gvisor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// showItself shows the image's own files at the path at, for a build to write to. What is missing for a process to run is
// made in them, without following a link: an earlier step of the build has left what it liked there.
func (r root) showItself(at string) error {
	if err := unix.Mount(r.Image, at, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("show %s as the root: %w", r.Image, err)
	}
	if err := unix.Mount("", at, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
		return fmt.Errorf("show %s as the root: %w", r.Image, err)
	}
	top, err := os.OpenRoot(at)
	if err != nil {
		return err
	}
	defer top.Close()
	for _, d := range r.Dirs {
		if err := makeInside(top, d); err != nil {
			return err
		}
	}
	for _, name := range imageEtc {
		if err := showInside(top, filepath.Join(r.Etc, name), "etc/"+name); err != nil {
			return fmt.Errorf("show /etc/%s: %w", name, err)
		}
	}
	return nil
}

// makeInside makes d if nothing is there. gVisor mounts on the three at the top and must find a directory or nothing.
func makeInside(top *os.Root, d dir) error {
	name := strings.TrimPrefix(d.Path, "/")
	info, err := top.Lstat(name)
	switch {
	case err == nil && !info.IsDir() && path.Dir(name) == "." && d.Mode&0o1000 == 0 && name != "run":
		return fmt.Errorf("/%s is not a directory in the image", name)
	case !errors.Is(err, fs.ErrNotExist):
		return nil // it is there, or behind a link: then it is the image's own affair
	}
	if err := top.MkdirAll(name, 0o755); err != nil {
		return nil // behind a link
	}
	mode := fs.FileMode(d.Mode & 0o777)
	if d.Mode&unix.S_ISVTX != 0 {
		mode |= fs.ModeSticky
	}
	return top.Chmod(name, mode)
}

// showInside puts a file of the host, read-only, over one in the image, which is made if it is missing. Links are followed
// as the image's processes would. Where there can be no such file it does nothing.
func showInside(top *os.Root, source, name string) error {
	dir, err := top.Open(".")
	if err != nil {
		return err
	}
	defer dir.Close()
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	place, err := unix.Openat2(int(dir.Fd()), name, &how)
	if errors.Is(err, unix.ENOENT) {
		if file, err := makeFile(top, name); err == nil {
			file.Close()
		}
		place, err = unix.Openat2(int(dir.Fd()), name, &how)
	}
	if err != nil {
		return nil
	}
	defer unix.Close(place)
	var stat unix.Stat_t
	if err := unix.Fstat(place, &stat); err != nil || stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return err
	}
	tree, err := unix.OpenTree(unix.AT_FDCWD, source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	// The file is every sandbox's.
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return err
	}
	return unix.MoveMount(tree, "", place, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

func makeFile(top *os.Root, name string) (*os.File, error) {
	if err := top.MkdirAll(path.Dir(name), 0o755); err != nil {
		return nil, err
	}
	return top.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
}
