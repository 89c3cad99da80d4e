package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/build/archive"
)

// Names that say what a layer takes away from those below it.
const (
	whiteout = ".wh."         // .wh.x: x is gone
	opaque   = ".wh..wh..opq" // everything that was in this directory is gone
	ignored  = ".wh..wh."     // notes of a storage driver
)

// maxLinks is how many links a path may lead through, as in the kernel.
const maxLinks = 40

// tree is a file system that layers are applied to, from the bottom up. Links in it are those of the image: an absolute
// one begins at the top of the tree. So every path is followed here, link by link; the operating system is only given
// paths without any.
type tree struct {
	root    *os.Root
	limits  archive.Limits
	bytes   int64
	entries int
	owned   bool                 // owners can be set
	layer   map[string]bool      // what the layer under way has brought, and the directories that is in
	dirs    map[string]directory // whose modes are set last, so that a read-only directory can be filled

	// The directory of the last entry, followed: entries of one directory stand together.
	lastDir, lastReal string
}

// directory is what is kept of a directory's header, which may hold another megabyte.
type directory struct {
	mode     fs.FileMode
	uid, gid int
}

func newTree(dir string, limits archive.Limits) (*tree, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("unpack image: %w", err)
	}
	return &tree{root: root, limits: limits, owned: os.Geteuid() == 0, dirs: map[string]directory{}}, nil
}

// apply puts a layer, as a plain tar file, on top of what is there.
func (t *tree) apply(ctx context.Context, in io.Reader) error {
	t.layer = map[string]bool{}
	for files := tar.NewReader(reader{ctx, in}); ; {
		header, err := files.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return invalid("", "a layer is damaged: %s", err)
		}
		if err := t.entry(header, files); err != nil {
			return err
		}
	}
}

func (t *tree) entry(header *tar.Header, content io.Reader) error {
	if t.entries++; t.limits.Entries > 0 && t.entries > t.limits.Entries {
		return tooLarge(t.limits)
	}
	name, err := clean(header.Name)
	if err != nil || name == "." || header.Typeflag == tar.TypeXGlobalHeader {
		return err
	}
	base := path.Base(name)
	dir, err := t.follow(path.Dir(name))
	if err != nil {
		return err
	}
	switch {
	case base == opaque:
		return t.hideAll(dir)
	case strings.HasPrefix(base, ignored):
		return nil
	case strings.HasPrefix(base, whiteout):
		gone := strings.TrimPrefix(base, whiteout)
		if gone == "" || gone == "." || gone == ".." {
			return invalid("", "a layer takes away %q, which is not a file", name)
		}
		return t.hide(path.Join(dir, gone))
	}
	return t.put(path.Join(dir, base), header, content)
}

// put writes one entry; real has no links in it.
func (t *tree) put(real string, header *tar.Header, content io.Reader) error {
	switch header.Typeflag {
	case tar.TypeDir, tar.TypeReg, tar.TypeGNUSparse, tar.TypeSymlink, tar.TypeLink:
	default:
		return nil // devices and pipes: a sandbox has its own
	}
	linked := ""
	if header.Typeflag == tar.TypeLink {
		var err error
		if linked, err = t.target(header.Linkname); err != nil || linked == real {
			return err
		}
	}
	if err := t.makeRoom(real, header.Typeflag == tar.TypeDir); err != nil {
		return err
	}
	t.note(real)
	var err error
	switch header.Typeflag {
	case tar.TypeDir:
		t.dirs[real] = directory{mode(header), header.Uid, header.Gid}
		if err = t.root.Mkdir(real, 0o755); errors.Is(err, fs.ErrExist) {
			err = nil
		}
	case tar.TypeSymlink:
		t.lastDir = ""
		err = errors.Join(t.root.Symlink(header.Linkname, real), t.own(real, header.Uid, header.Gid))
	case tar.TypeLink:
		err = t.root.Link(linked, real)
	default:
		return t.file(real, header, content)
	}
	if err != nil {
		return fmt.Errorf("unpack image: %w", err)
	}
	return nil
}

// target is the existing file that a hard link means.
func (t *tree) target(name string) (string, error) {
	name, err := clean(name)
	if err != nil {
		return "", err
	}
	dir, err := t.follow(path.Dir(name))
	if err != nil {
		return "", err
	}
	real := path.Join(dir, path.Base(name))
	if info, err := t.root.Lstat(real); err != nil || info.IsDir() {
		return "", invalid("", "a layer has a hard link to %q, which is not a file", name)
	}
	return real, nil
}

func (t *tree) file(real string, header *tar.Header, content io.Reader) error {
	if header.Size < 0 || t.limits.Bytes > 0 && header.Size > int64(t.limits.Bytes)-t.bytes {
		return tooLarge(t.limits)
	}
	t.bytes += header.Size
	file, err := t.root.OpenFile(real, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("unpack image: %w", err)
	}
	if _, err := io.Copy(file, content); err != nil {
		file.Close()
		if errors.As(err, new(*fs.PathError)) {
			return fmt.Errorf("unpack image: %w", err) // of the disk
		}
		return invalid("", "a layer cannot be read to its end: %s", err)
	}
	err = errors.Join(t.own(real, header.Uid, header.Gid), file.Chmod(mode(header)), file.Close(), t.stamp(real, header))
	if err != nil {
		return fmt.Errorf("unpack image: %w", err)
	}
	return nil
}

// makeRoom removes what is at real, unless it is a directory and remains one.
func (t *tree) makeRoom(real string, forDir bool) error {
	info, err := t.root.Lstat(real)
	switch {
	case errors.Is(err, fs.ErrNotExist) || err == nil && info.IsDir() && forDir:
		return nil
	case err != nil:
		return fmt.Errorf("unpack image: %w", err)
	}
	return t.remove(real, info.IsDir())
}

func (t *tree) remove(real string, isDir bool) error {
	t.lastDir = ""
	if isDir {
		for name := range t.dirs {
			if name == real || strings.HasPrefix(name, real+"/") {
				delete(t.dirs, name)
			}
		}
	}
	if err := t.root.RemoveAll(real); err != nil {
		return fmt.Errorf("unpack image: %w", err)
	}
	return nil
}

// note remembers that the layer under way has brought real.
func (t *tree) note(real string) {
	for ; real != "." && !t.layer[real]; real = path.Dir(real) {
		t.layer[real] = true
	}
}

// hide removes a file of the layers below; what the same layer brings under that name stays.
func (t *tree) hide(real string) error {
	info, err := t.root.Lstat(real)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("unpack image: %w", err)
	case !t.layer[real]:
		return t.remove(real, info.IsDir())
	case info.IsDir():
		return t.hideAll(real)
	}
	return nil
}

// hideAll removes all that the layers below have in a directory.
func (t *tree) hideAll(dir string) error {
	entries, err := fs.ReadDir(t.root.FS(), dir)
	if err != nil {
		return fmt.Errorf("unpack image: %w", err)
	}
	for _, entry := range entries {
		if err := t.hide(path.Join(dir, entry.Name())); err != nil {
			return err
		}
	}
	return nil
}

// follow returns the directory that a path leads to, free of links, and makes what is missing.
func (t *tree) follow(dir string) (string, error) { return t.resolve(dir, t.root.Mkdir) }

// resolve is follow with another answer to what is missing.
func (t *tree) resolve(dir string, mkdir func(name string, mode fs.FileMode) error) (string, error) {
	if dir == t.lastDir && t.lastDir != "" {
		return t.lastReal, nil
	}
	real, links := ".", 0
	for todo := strings.Split(dir, "/"); len(todo) > 0; {
		part := todo[0]
		todo = todo[1:]
		if part == "" || part == "." {
			continue
		}
		if part == ".." {
			real = path.Dir(real)
			continue
		}
		next := path.Join(real, part)
		info, err := t.root.Lstat(next)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			err = mkdir(next, 0o755)
		case err == nil && info.Mode()&fs.ModeSymlink != 0:
			if links++; links > maxLinks {
				return "", invalid("", "%q leads through too many links", dir)
			}
			var target string
			if target, err = t.root.Readlink(next); err != nil {
				break
			}
			if next = real; path.IsAbs(target) {
				next = "."
			}
			todo = slices.Concat(strings.Split(target, "/"), todo)
		case err == nil && !info.IsDir():
			return "", invalid("", "a layer has something below %q, which is not a directory", next)
		}
		if err != nil {
			return "", fmt.Errorf("unpack image: %w", err)
		}
		real = next
	}
	t.lastDir, t.lastReal = dir, real
	return real, nil
}

// makeDir makes a directory of the image if it is missing, as its working directory may be.
func (t *tree) makeDir(name string) error {
	_, err := t.follow(name)
	return err
}

// finish sets the modes of directories, from the deepest up.
func (t *tree) finish() error {
	names := make([]string, 0, len(t.dirs))
	for name := range t.dirs {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range slices.Backward(names) {
		dir := t.dirs[name]
		if err := errors.Join(t.own(name, dir.uid, dir.gid), t.root.Chmod(name, dir.mode)); err != nil {
			return fmt.Errorf("unpack image: %w", err)
		}
	}
	return nil
}

func (t *tree) own(real string, uid, gid int) error {
	if !t.owned {
		return nil
	}
	return t.root.Lchown(real, uid, gid)
}

func (t *tree) stamp(real string, header *tar.Header) error {
	if when := header.ModTime; when.After(time.Unix(0, 0)) && when.Year() < 2200 {
		return t.root.Chtimes(real, when, when)
	}
	return nil
}

func mode(header *tar.Header) fs.FileMode {
	mode := header.FileInfo().Mode()
	return mode.Perm() | mode&fs.ModeSticky
}

// clean returns the name of an entry, relative to the top. Some tools write names with a slash in front.
func clean(name string) (string, error) {
	name = strings.TrimLeft(name, "/")
	if name == "" {
		return ".", nil
	}
	return archive.Local(name)
}

func tooLarge(limits archive.Limits) error {
	return &lull.Error{Kind: lull.KindTooLarge,
		Message: fmt.Sprintf("image: it holds more than %s or %d files", limits.Bytes, limits.Entries),
		Hint:    "start from a smaller base image, such as one whose tag ends in -slim or -alpine"}
}

// reader stops when its context is done.
type reader struct {
	ctx context.Context
	in  io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.in.Read(p)
}
