package archive

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"time"

	"github.com/klauspost/compress/zstd"
)

// freeBytes are not subject to Limits.Ratio: small files of zeros are common and harmless.
const freeBytes = 64 << 20

// Unpack writes the content of a tar file, plain or compressed with gzip or zstd, into dir, which must exist and should
// be empty. Whatever the archive says, nothing is written outside of dir. If it fails, what was written so far is still
// there: the caller removes dir. An upload that is over its limits is refused before anything is written, unless it takes
// more than its first 16 MB to tell.
func Unpack(r io.Reader, dir string, opts Options) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	defer root.Close()
	if !opts.AsIs {
		if r, err = survey(r, opts.Limits); err != nil {
			return err
		}
	}
	packed := &counter{r: r}
	plain, closePlain, err := Decompress(packed)
	if err != nil {
		return err
	}
	defer closePlain()
	u := &unpacker{root: root, packed: packed, opts: opts, tally: tally{limits: opts.Limits},
		kinds: map[string]byte{".": tar.TypeDir}, owned: os.Geteuid() == 0}
	return u.all(tar.NewReader(&ratio{r: plain, packed: packed, limit: int64(opts.Limits.Ratio)}))
}

// Decompress returns the plain form of r, which may be compressed with gzip or zstd. The caller calls the function it
// returns when done.
func Decompress(r io.Reader) (io.Reader, func(), error) {
	buffered := bufio.NewReaderSize(r, 64<<10)
	start, err := buffered.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, fmt.Errorf("unpack: %w", err)
	}
	switch {
	case bytes.HasPrefix(start, []byte{0x1f, 0x8b}):
		plain, err := gzip.NewReader(buffered)
		if err != nil {
			return nil, nil, invalid("", "cannot be read as gzip: %s", err)
		}
		return plain, func() { plain.Close() }, nil
	case bytes.HasPrefix(start, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		plain, err := zstd.NewReader(buffered, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, nil, invalid("", "cannot be read as zstd: %s", err)
		}
		return plain, plain.Close, nil
	}
	return buffered, func() {}, nil
}

type unpacker struct {
	root   *os.Root
	packed *counter
	opts   Options
	tally  tally
	kinds  map[string]byte // what has been written so far: the tar type by name
	links  []string
	dirs   []directory // whose modes are set last, so that a read-only directory can be filled
	owned  bool        // owners can be set
}

// directory is what is kept of a directory's header, which may hold another megabyte.
type directory struct {
	name     string
	mode     fs.FileMode
	uid, gid int
	changed  time.Time
}

func (u *unpacker) all(in *tar.Reader) error {
	for {
		header, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return u.broken(err)
		}
		if err := u.entry(header, in); err != nil {
			return err
		}
	}
	if u.packed.n == 0 {
		return invalid("", "is empty")
	}
	for _, name := range u.links {
		if !u.opts.AsIs && leaves(u.root, name) {
			return u.leavingLink(name, "a place")
		}
	}
	return u.finishDirectories()
}

// broken says why the archive cannot be read further.
func (u *unpacker) broken(err error) error {
	switch {
	case errors.Is(err, errRatio):
		return tooLarge("unpacks to more than %d times its own size", u.opts.Limits.Ratio)
	case u.packed.err != nil || errors.As(err, new(*fs.PathError)):
		return fmt.Errorf("unpack: %w", err) // of the connection it comes over, or the disk it goes to
	}
	return invalid("", "is damaged or not a tar file: %s", err)
}

func (u *unpacker) entry(header *tar.Header, content io.Reader) error {
	if header.Typeflag == tar.TypeXGlobalHeader {
		return nil // a comment, such as the commit that "git archive" writes
	}
	if err := u.tally.entry(); err != nil {
		return err
	}
	name, err := Local(header.Name)
	if err != nil {
		return err
	}
	if err := u.claim(name, header.Typeflag); err != nil {
		return err
	}
	switch header.Typeflag {
	case tar.TypeDir:
		return u.directory(name, header)
	case tar.TypeReg, tar.TypeGNUSparse:
		return u.file(name, header, content)
	case tar.TypeSymlink:
		return u.symlink(name, header)
	case tar.TypeLink:
		return u.hardLink(name, header)
	}
	return invalid("", "%s is a device, a pipe or of an unknown kind: only files, directories and links are accepted", quote(name))
}

// claim notes that name is being written. Nothing is written twice, and nothing through a link: a link followed by a
// file below it is the classic way out.
func (u *unpacker) claim(name string, kind byte) error {
	earlier, exists := u.kinds[name]
	if exists && !(earlier == tar.TypeDir && kind == tar.TypeDir) {
		return invalid("", "%s is in it twice", quote(name))
	}
	implied := false
	for parent := path.Dir(name); ; parent = path.Dir(parent) {
		above, exists := u.kinds[parent]
		if exists && above != tar.TypeDir {
			return invalid("", "%s lies below %s, which is not a directory", quote(name), quote(parent))
		}
		if exists {
			break
		}
		u.kinds[parent], implied = tar.TypeDir, true
		if err := u.tally.entry(); err != nil {
			return err
		}
	}
	u.kinds[name] = kind
	if !implied {
		return nil
	}
	if err := u.root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	return nil
}

func (u *unpacker) directory(name string, header *tar.Header) error {
	if name == "." {
		return nil
	}
	if err := u.root.Mkdir(name, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("unpack: %w", err)
	}
	u.dirs = append(u.dirs, directory{name, u.mode(header), header.Uid, header.Gid, header.ModTime})
	return nil
}

func (u *unpacker) file(name string, header *tar.Header, content io.Reader) error {
	if err := u.tally.file(header.Size); err != nil {
		return err
	}
	file, err := u.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	_, err = io.Copy(file, content)
	if err != nil {
		file.Close()
		return u.broken(err)
	}
	// Owner first: changing it clears bits of the mode.
	err = errors.Join(u.own(name, header.Uid, header.Gid), file.Chmod(u.mode(header)), file.Close(), u.stamp(name, header.ModTime))
	if err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	return nil
}

func (u *unpacker) symlink(name string, header *tar.Header) error {
	if len(header.Linkname) > maxName || header.Linkname == "" {
		return invalid("", "%s is a link without a usable target", quote(name))
	}
	if !u.opts.AsIs && !inside(name, header.Linkname) {
		return u.leavingLink(name, header.Linkname)
	}
	if err := errors.Join(u.root.Symlink(header.Linkname, name), u.own(name, header.Uid, header.Gid)); err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	u.links = append(u.links, name)
	return nil
}

func (u *unpacker) leavingLink(name, target string) error {
	return invalid("", "%s is a link to %s outside the app's directory", quote(name), quote(target))
}

// hardLink makes a second name for a file of this archive, and for nothing else: not for a link, and not for a file that
// was in the directory before.
func (u *unpacker) hardLink(name string, header *tar.Header) error {
	target, err := Local(header.Linkname)
	if err != nil {
		return err
	}
	kind := u.kinds[target]
	if target == name || kind != tar.TypeReg && kind != tar.TypeGNUSparse && kind != tar.TypeLink {
		return invalid("", "%s is a hard link to %s, which is not a file before it in the archive", quote(name), quote(target))
	}
	if err := u.root.Link(target, name); err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	return nil
}

// finishDirectories sets modes and times, from the deepest up: writing into a directory changes its time.
func (u *unpacker) finishDirectories() error {
	for _, dir := range slices.Backward(u.dirs) {
		err := errors.Join(u.own(dir.name, dir.uid, dir.gid), u.root.Chmod(dir.name, dir.mode), u.stamp(dir.name, dir.changed))
		if err != nil {
			return fmt.Errorf("unpack: %w", err)
		}
	}
	return nil
}

func (u *unpacker) mode(header *tar.Header) fs.FileMode {
	mode := header.FileInfo().Mode()
	if !u.opts.AsIs {
		return plainMode(mode).Perm()
	}
	return mode.Perm() | mode&fs.ModeSticky
}

func (u *unpacker) own(name string, uid, gid int) error {
	if !u.opts.AsIs || !u.owned {
		return nil
	}
	return u.root.Lchown(name, uid, gid)
}

func (u *unpacker) stamp(name string, when time.Time) error {
	if when.Before(time.Unix(0, 0)) || when.Year() > 2200 {
		return nil // not every file system can store it
	}
	return u.root.Chtimes(name, when, when)
}

// counter counts the packed bytes and keeps the error of their source apart from errors in what they say.
type counter struct {
	r   io.Reader
	n   int64
	err error // other than the end
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		c.err = err
	}
	return n, err
}

var errRatio = errors.New("unpacks to too much")

// ratio passes plain bytes on until they are out of proportion to the packed ones.
type ratio struct {
	r      io.Reader
	packed *counter
	plain  int64
	limit  int64
}

func (r *ratio) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.plain += int64(n)
	if r.limit > 0 && r.plain > freeBytes && r.plain/r.limit > r.packed.n {
		return n, errRatio
	}
	return n, err
}
