package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"path/filepath"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/build/archive"
)

// fromLayoutFile reads a tar file of an OCI layout.
func fromLayoutFile(open tarball.Opener, source Source) (v1.Image, error) {
	in, err := open()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(source.Scratch, "layout")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("unpack image: %w", err)
	}
	if err := archive.Unpack(in, dir, archive.Options{Limits: source.Limits}); err != nil {
		return nil, err
	}
	return fromLayout(dir, source, func(name string) error {
		info, err := os.Lstat(filepath.Join(dir, name))
		return misfit(name, info, err, maxDocument)
	})
}

// fromLayoutDir reads an OCI layout in a directory that a stranger may have filled. The library opens files by their full
// names and follows links, so it gets a copy of those that the image needs.
func fromLayoutDir(ctx context.Context, root *os.Root, name string, source Source) (v1.Image, error) {
	from, err := root.OpenRoot(name)
	if err != nil {
		return nil, fmt.Errorf("open image: %w", err)
	}
	defer from.Close()
	c := &layoutCopy{ctx: ctx, from: from, to: filepath.Join(source.Scratch, "layout"), limits: source.Limits}
	image, err := fromLayout(c.to, source, func(name string) error { return c.file(name, maxDocument) })
	if err == nil {
		err = c.layers(image, source)
	}
	if c.failed != nil {
		return nil, c.failed
	}
	return image, err
}

// fromLayout reads an OCI layout in a directory of ours. fits is asked before a document is read into memory, by its name
// in the layout.
func fromLayout(dir string, source Source, fits func(name string) error) (v1.Image, error) {
	for _, name := range []string{"oci-layout", "index.json"} {
		if err := fits(name); err != nil {
			return nil, invalid("an OCI layout is a directory with oci-layout, index.json and blobs", "%s is not an OCI layout: %s", source.Name, err)
		}
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, invalid("", "%s is not an OCI layout: %s", source.Name, err)
	}
	return choose(index, source, func(h v1.Hash) error { return fits(blob(h)) })
}

// blob is the name of a blob in a layout.
func blob(h v1.Hash) string { return path.Join("blobs", h.Algorithm, h.Hex) }

// misfit reports what keeps a file from being read, given what Lstat says of it.
func misfit(name string, info fs.FileInfo, err error, most int64) error {
	switch base := path.Base(name); {
	case err != nil:
		return fmt.Errorf("%s is missing", base)
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file", base)
	case info.Size() > most:
		return fmt.Errorf("%s is larger than %s", base, lull.Size(most))
	}
	return nil
}

// layoutCopy is a copy of a layout in the making. It holds regular files only: no links are followed, not even inside.
type layoutCopy struct {
	ctx     context.Context
	from    *os.Root
	to      string
	limits  archive.Limits
	bytes   int64
	entries int
	failed  error // why the copy was given up, if the layout is not to blame
}

// layers copies the layers of an image.
func (c *layoutCopy) layers(image v1.Image, source Source) error {
	manifest, err := image.Manifest()
	if err != nil {
		return invalid("", "%s has no readable manifest: %s", source.Name, err)
	}
	for _, layer := range manifest.Layers {
		if err := c.file(blob(layer.Digest), math.MaxInt64); err != nil {
			return invalid("", "%s is incomplete: %s", source.Name, err)
		}
	}
	return nil
}

// file copies one file, unless it has been copied.
func (c *layoutCopy) file(name string, most int64) error {
	for i := range name {
		if name[i] != '/' {
			continue
		}
		if info, err := c.from.Lstat(name[:i]); err != nil || !info.IsDir() {
			return fmt.Errorf("%s is not a directory", name[:i])
		}
	}
	info, err := c.from.Lstat(name)
	if err := misfit(name, info, err, most); err != nil {
		return err
	}
	c.failed = c.copy(name, info.Size())
	return c.failed
}

func (c *layoutCopy) copy(name string, size int64) error {
	to := filepath.Join(c.to, name)
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return fmt.Errorf("copy layout: %w", err)
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil
	case err != nil:
		return fmt.Errorf("copy layout: %w", err)
	}
	defer out.Close()
	c.entries++
	if c.limits.Entries > 0 && c.entries > c.limits.Entries || c.limits.Bytes > 0 && size > int64(c.limits.Bytes)-c.bytes {
		return tooLarge(c.limits)
	}
	c.bytes += size
	in, err := c.from.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("copy layout: %w", err)
	}
	defer in.Close()
	if _, err = io.CopyN(out, reader{c.ctx, in}, size); c.ctx.Err() != nil {
		return context.Cause(c.ctx)
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("copy layout: %w", err)
	}
	return nil
}
