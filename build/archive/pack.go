package archive

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/klauspost/compress/zstd"
)

// Pack writes the files of dir to w as a tar file compressed with zstd, in the order of their names. Directories, files
// and links are packed; sockets, pipes and devices hold nothing and are left out.
func Pack(w io.Writer, dir string, opts Options) (err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	defer root.Close()
	p := &packer{root: root, opts: opts, tally: tally{limits: opts.Limits}}
	if opts.Ignore && len(opts.Only) == 0 {
		if p.ignore, err = readIgnore(root, opts.Rules); err != nil {
			return err
		}
	}
	// One level of concurrency: the files of an app are few and a node has better things to do.
	compressor, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	p.out = tar.NewWriter(compressor)
	if err := p.all(); err != nil {
		compressor.Close()
		return err
	}
	return errors.Join(p.out.Close(), compressor.Close())
}

type packer struct {
	root   *os.Root
	out    *tar.Writer
	opts   Options
	ignore *ignore
	tally  tally
}

func (p *packer) all() error {
	if len(p.opts.Only) == 0 {
		return p.directory(".", false)
	}
	for _, name := range slices.Sorted(slices.Values(p.opts.Only)) {
		name, err := Local(name)
		if err != nil {
			return err
		}
		if err := p.entry(name, false); err != nil {
			return err
		}
	}
	return nil
}

// directory packs what is in a directory, in order. ignored says that the directory itself is left out, with something
// in it that may not be.
func (p *packer) directory(name string, ignored bool) error {
	entries, err := fs.ReadDir(p.root.FS(), name)
	if err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	for _, entry := range entries {
		if err := p.entry(path.Join(name, entry.Name()), ignored); err != nil {
			return err
		}
	}
	return nil
}

func (p *packer) entry(name string, below bool) error {
	info, err := p.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) && len(p.opts.Only) == 0 {
		return nil // removed since the directory was read
	}
	if err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	ignored := below
	if p.ignore != nil {
		var descend bool
		if ignored, descend = p.ignore.match(name, info.IsDir(), below); ignored && !descend {
			return nil
		}
	}
	if err := p.tally.entry(); err != nil {
		return err
	}
	switch {
	case info.IsDir():
		if !ignored {
			if err := p.header(name+"/", "", info); err != nil {
				return err
			}
		}
		return p.directory(name, ignored)
	case info.Mode().IsRegular():
		return p.file(name, info)
	case info.Mode()&fs.ModeSymlink != 0:
		return p.link(name, info)
	}
	return nil
}

func (p *packer) file(name string, info fs.FileInfo) error {
	// Without O_NONBLOCK a pipe put there in the meantime would block for ever.
	file, err := p.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	defer file.Close()
	if err := p.tally.file(info.Size()); err != nil {
		return err
	}
	if err := p.header(name, "", info); err != nil {
		return err
	}
	if _, err := io.CopyN(p.out, file, info.Size()); errors.Is(err, io.EOF) {
		return invalid("try again once nothing writes to it", "%s became shorter while it was read", quote(name))
	} else if err != nil {
		return fmt.Errorf("pack %s: %w", quote(name), err)
	}
	return nil
}

func (p *packer) link(name string, info fs.FileInfo) error {
	target, err := p.root.Readlink(name)
	if err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	if !p.opts.AsIs && (!inside(name, target) || leaves(p.root, name)) {
		return invalid("replace it by what it points to, or name it in .lullignore",
			"%s is a link to %s, which is outside the app's directory", quote(name), quote(target))
	}
	return p.header(name, target, info)
}

// leaves reports whether following the link at name, and the links it leads to, ends outside. A link to nothing stays.
func leaves(root *os.Root, name string) bool {
	_, err := root.Stat(name)
	for _, harmless := range []error{nil, fs.ErrNotExist, fs.ErrPermission, syscall.ELOOP, syscall.ENOTDIR, syscall.ENAMETOOLONG} {
		if errors.Is(err, harmless) {
			return false
		}
	}
	return !strings.Contains(err.Error(), "too many") // os.Root's own count of links, which has no error value
}

func (p *packer) header(name, target string, info fs.FileInfo) error {
	// The time of change is kept: web servers derive ETags from it.
	header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Linkname: target, ModTime: info.ModTime().Truncate(time.Second),
		Mode: int64(plainMode(info.Mode()).Perm())}
	switch {
	case info.IsDir():
		header.Typeflag = tar.TypeDir
	case target != "":
		header.Typeflag = tar.TypeSymlink
	default:
		header.Size = info.Size()
	}
	if p.opts.AsIs {
		header.Mode = int64(info.Mode().Perm())
		if info.Mode()&fs.ModeSticky != 0 {
			header.Mode |= 0o1000
		}
		if owner, ok := info.Sys().(*syscall.Stat_t); ok {
			header.Uid, header.Gid = int(owner.Uid), int(owner.Gid)
		}
	}
	if err := p.out.WriteHeader(header); err != nil {
		return fmt.Errorf("pack %s: %w", quote(name), err)
	}
	return nil
}

// plainMode is the mode of an uploaded file: the app, which runs as another user, can read it; nobody else can write.
func plainMode(mode fs.FileMode) fs.FileMode {
	if mode.IsDir() || mode&0o111 != 0 {
		return mode.Type() | 0o755
	}
	return mode.Type() | 0o644
}
