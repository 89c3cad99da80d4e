package image

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/build/archive"
)

// maxDocument bounds the JSON documents of an image, which are read into memory. Registries refuse more than 4 MB.
const maxDocument = 4 << 20

// maxEntries bounds the names in the tar file of an image, which are kept. A layer has a handful of them.
const maxEntries = 10_000

const hintSave = "make an image file with: docker save -o image.tar NAME"

// fromFile reads a tar file: the output of "docker save", or an OCI layout. Both may be compressed as a whole.
func (i *Image) fromFile() error {
	if err := i.decompress(); err != nil {
		return err
	}
	sizes, err := i.entries()
	if err != nil {
		return err
	}
	switch {
	case sizes["manifest.json"] > 0:
		i.image, err = fromDocker(i.open, sizes, i.source)
	case sizes["index.json"] > 0:
		i.image, err = fromLayoutFile(i.open, i.source)
	default:
		err = invalid(hintSave, "%s is a tar file, but not of an image: it holds neither manifest.json nor index.json", i.source.Name)
	}
	return err
}

// open returns a reader of the image's file from its start. Any number may be open at once.
func (i *Image) open() (io.ReadCloser, error) {
	info, err := i.file.Stat()
	if err != nil {
		return nil, err
	}
	return io.NopCloser(io.NewSectionReader(i.file, 0, info.Size())), nil
}

// decompress replaces a compressed file by its plain form: it is read many times, out of order.
func (i *Image) decompress() error {
	start := make([]byte, 4)
	if _, err := i.file.ReadAt(start, 0); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("open image: %w", err)
	}
	if string(start[:2]) != "\x1f\x8b" && string(start) != "\x28\xb5\x2f\xfd" {
		return nil
	}
	plain, done, err := archive.Decompress(i.file)
	if err != nil {
		return err
	}
	defer done()
	out, err := os.OpenFile(filepath.Join(i.source.Scratch, "image.tar"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("decompress image: %w", err)
	}
	packed := i.file
	i.file = out
	defer packed.Close()
	limit := int64(i.source.Limits.Bytes)
	if n, err := io.Copy(out, io.LimitReader(plain, limit+1)); err != nil {
		return invalid(hintSave, "%s is damaged: %s", i.source.Name, err)
	} else if n > limit {
		return tooLarge(i.source.Limits)
	}
	return nil
}

// entries returns the sizes of the regular files in the tar file, by clean name, and -1 for what is something else. The
// library takes the first entry of a name, whatever it is, so there must be no other.
func (i *Image) entries() (map[string]int64, error) {
	in, err := i.open()
	if err != nil {
		return nil, err
	}
	sizes := map[string]int64{}
	for files := tar.NewReader(in); ; {
		header, err := files.Next()
		switch {
		case errors.Is(err, io.EOF):
			return sizes, nil
		case err != nil:
			return nil, invalid(hintSave, "%s is not a tar file, or damaged: %s", i.source.Name, err)
		case header.Typeflag == tar.TypeXGlobalHeader:
			continue
		}
		name, err := archive.Local(header.Name)
		if err != nil {
			return nil, err
		}
		if _, twice := sizes[name]; twice && header.Typeflag != tar.TypeDir {
			return nil, invalid(hintSave, "%s holds %q twice", i.source.Name, name)
		}
		if sizes[name] = -1; header.Typeflag == tar.TypeReg {
			sizes[name] = header.Size
		}
		if len(sizes) > maxEntries {
			return nil, invalid(hintSave, "%s holds too many files for an image", i.source.Name)
		}
	}
}

func fromDocker(open tarball.Opener, sizes map[string]int64, source Source) (v1.Image, error) {
	if sizes["manifest.json"] > maxDocument {
		return nil, invalid("", "manifest.json in %s is larger than %s", source.Name, lull.Size(maxDocument))
	}
	images, err := tarball.LoadManifest(open)
	if err != nil {
		return nil, invalid(hintSave, "manifest.json in %s cannot be read: %s", source.Name, err)
	}
	if len(images) != 1 {
		var tags []string
		for _, each := range images {
			tags = append(tags, each.RepoTags...)
		}
		return nil, invalid("save one alone: docker save -o image.tar NAME", "%s holds %d images (%s), not one",
			source.Name, len(images), strings.Join(tags, ", "))
	}
	size, found := sizes[path.Clean(images[0].Config)]
	if !found || size < 0 || size > maxDocument {
		return nil, invalid(hintSave, "%s has no configuration of at most %s", source.Name, lull.Size(maxDocument))
	}
	image, err := tarball.Image(open, nil)
	if err != nil {
		return nil, invalid(hintSave, "%s cannot be read: %s", source.Name, err)
	}
	return image, nil
}
