package image

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/build/archive"
)

// Tree is the file system of an image in the making: a directory that is read and written while no sandbox has it. Links
// in it are those of the image, and followed as in there. It is used by one goroutine, which closes it.
type Tree struct{ t *tree }

// OpenTree opens a directory as the file system of an image. limits are what may still be written into it.
func OpenTree(dir string, limits archive.Limits) (*Tree, error) {
	t, err := newTree(dir, limits)
	if err != nil {
		return nil, err
	}
	t.layer = map[string]bool{}
	return &Tree{t}, nil
}

// Close sets the modes of the directories that Put has written.
func (t *Tree) Close() error { return errors.Join(t.t.finish(), t.t.root.Close()) }

// Root is the directory. Names that Find has returned have no links in them.
func (t *Tree) Root() *os.Root { return t.t.root }

// Left returns what may still be written.
func (t *Tree) Left() archive.Limits { return left(t.t.limits, t.t.bytes, t.t.entries) }

// left takes what was written off. A limit of 0 would be none.
func left(limits archive.Limits, bytes int64, entries int) archive.Limits {
	if limits.Bytes > 0 {
		limits.Bytes = max(1, limits.Bytes-lull.Size(bytes))
	}
	if limits.Entries > 0 {
		limits.Entries = max(1, limits.Entries-entries)
	}
	return limits
}

// missing is for resolve: what is not there is not made.
func missing(string, fs.FileMode) error { return fs.ErrNotExist }

// Find follows all links of a path and returns where it leads to. The error is fs.ErrNotExist if there is nothing.
func (t *Tree) Find(name string) (real string, info fs.FileInfo, err error) {
	name = path.Join(".", path.Join("/", name)[1:])
	for range maxLinks {
		dir, err := t.t.resolve(path.Dir(name), missing)
		if err != nil {
			return "", nil, err
		}
		real = path.Join(dir, path.Base(name))
		if info, err = t.t.root.Lstat(real); err != nil {
			return "", nil, err
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			return real, info, nil
		}
		target, err := t.t.root.Readlink(real)
		if err != nil {
			return "", nil, err
		}
		if !path.IsAbs(target) {
			target = path.Join("/", dir, target)
		}
		name = path.Join(".", path.Clean(target)[1:])
	}
	return "", nil, invalid("", "%q leads through too many links", name)
}

// IsDir reports whether a path leads to a directory.
func (t *Tree) IsDir(name string) bool {
	_, info, err := t.Find(name)
	return err == nil && info.IsDir()
}

// MakeDir makes a directory and those above it, if they are missing.
func (t *Tree) MakeDir(name string) error { return t.t.makeDir(path.Join("/", name)) }

// Put writes one file, directory or link in place of what was there; a directory stays with what is in it. What the
// header says of owner and mode counts, without setuid and setgid. Other kinds of files are left out. The name of a hard
// link's target begins at the top of the tree.
func (t *Tree) Put(name string, header *tar.Header, content io.Reader) error {
	if t.t.entries++; t.t.limits.Entries > 0 && t.t.entries > t.t.limits.Entries {
		return tooLarge(t.t.limits)
	}
	name, err := clean(path.Join("/", name))
	if err != nil || name == "." {
		return err
	}
	dir, err := t.t.follow(path.Dir(name))
	if err != nil {
		return err
	}
	real := path.Join(dir, path.Base(name))
	info, err := t.t.root.Lstat(real)
	isDir := header.Typeflag == tar.TypeDir
	switch {
	case err == nil && info.IsDir() && !isDir:
		return invalid("", "there is a directory %q already, where a file is to be put", name)
	case err == nil && info.Mode()&fs.ModeSymlink != 0 && isDir && t.IsDir(name):
		return nil // what follows goes where the link leads
	}
	return t.t.put(real, header, content)
}

// Tidy makes what steps have left fit for a release: only files, directories and links, without setuid and setgid bits,
// and within the limits.
func (t *Tree) Tidy() error {
	return t.walk(func(name string, mode fs.FileMode) error {
		switch {
		case mode&fs.ModeSymlink != 0:
			return nil
		case !mode.IsDir() && !mode.IsRegular():
			return t.t.root.Remove(name)
		case mode&(fs.ModeSetuid|fs.ModeSetgid) != 0:
			return t.t.root.Chmod(name, mode.Perm()|mode&fs.ModeSticky)
		}
		return nil
	})
}

// Count takes what is in the tree off its limits and returns what is left of them.
func (t *Tree) Count() (archive.Limits, error) {
	err := t.walk(func(string, fs.FileMode) error { return nil })
	return t.Left(), err
}

// walk visits everything in the tree, and fails as soon as that is more than the limits.
func (t *Tree) walk(visit func(name string, mode fs.FileMode) error) error {
	limits := t.t.limits
	t.t.bytes, t.t.entries = 0, 0
	err := fs.WalkDir(t.t.root.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if t.t.entries++; info.Mode().IsRegular() {
			t.t.bytes += info.Size()
		}
		if limits.Entries > 0 && t.t.entries > limits.Entries || limits.Bytes > 0 && t.t.bytes > int64(limits.Bytes) {
			return tooLarge(limits)
		}
		return visit(name, info.Mode())
	})
	if err != nil && !errors.As(err, new(*lull.Error)) {
		return fmt.Errorf("look through image: %w", err)
	}
	return err
}

// Header describes a file of a tree as Put takes it. It returns nil for what Put leaves out.
func (t *Tree) Header(real string, info fs.FileInfo) (*tar.Header, error) {
	mode := info.Mode()
	header := &tar.Header{Mode: int64(mode.Perm()), ModTime: info.ModTime()}
	header.Uid, header.Gid = owner(info)
	switch {
	case mode.IsDir():
		header.Typeflag = tar.TypeDir
		if mode&fs.ModeSticky != 0 {
			header.Mode |= 0o1000
		}
	case mode.IsRegular():
		header.Typeflag, header.Size = tar.TypeReg, info.Size()
	case mode&fs.ModeSymlink != 0:
		header.Typeflag = tar.TypeSymlink
		var err error
		if header.Linkname, err = t.t.root.Readlink(real); err != nil {
			return nil, err
		}
	default:
		return nil, nil
	}
	return header, nil
}

// Below joins a name from an archive to a directory, never above it.
func Below(dir, name string) (string, error) {
	name, err := clean(strings.TrimPrefix(name, "./"))
	return path.Join(dir, name), err
}

// owner returns the user and group that a file belongs to.
func owner(info fs.FileInfo) (uid, gid int) {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(stat.Uid), int(stat.Gid)
	}
	return 0, 0
}
