// Package image turns an OCI image into a directory: the image's layers on top of each other, and what its configuration
// says about how to start it. An image is the output of "docker save", an OCI layout (a directory or a tar file of one),
// or the name of one in a registry.
package image

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/build/archive"
)

// Source says where an image is.
type Source struct {
	Name     string // a path below Dir (./chat.tar), or the name of an image in a registry (nginx:1.27)
	Dir      string // the app's files
	Scratch  string // an existing directory for what has to be unpacked on the way; the caller removes it
	Platform v1.Platform
	Limits   archive.Limits // of all files of the image together
}

// Image is an image that has been opened. It is used by one goroutine, which closes it.
type Image struct {
	image  v1.Image
	source Source
	config v1.Config
	file   *os.File // that the image is read from; nil if it is not a file
}

// Config is how an image wants to be started.
type Config struct {
	Args  []string // Entrypoint and Cmd; empty if it has neither
	Env   []string
	Dir   string // absolute
	User  string // as in the image: a name or number, perhaps with a group; empty is root
	Ports []int  // exposed TCP ports, in order
}

// Open finds an image and reads its configuration, not its layers; those of a layout in a directory are copied to Scratch.
func Open(ctx context.Context, source Source) (*Image, error) {
	i := &Image{source: source}
	err := i.find(ctx)
	if err == nil {
		err = i.configure()
	}
	if err != nil {
		i.Close()
		return nil, err
	}
	return i, nil
}

// Close closes the file that the image is read from.
func (i *Image) Close() error {
	if i.file == nil {
		return nil
	}
	return i.file.Close()
}

func (i *Image) find(ctx context.Context) error {
	root, err := os.OpenRoot(i.source.Dir)
	if err != nil {
		return fmt.Errorf("open image: %w", err)
	}
	defer root.Close()
	name := filepath.FromSlash(i.source.Name)
	info, err := root.Stat(name)
	switch {
	case err == nil && info.IsDir():
		i.image, err = fromLayoutDir(ctx, root, name, i.source)
	case err == nil && info.Mode().IsRegular():
		if i.file, err = root.Open(name); err == nil {
			err = i.fromFile()
		}
	case IsPath(i.source.Name):
		err = invalid("the path is relative to the app's directory, and the file must be inside it",
			"there is no image file %s", i.source.Name)
	default:
		i.image, err = fromRegistry(ctx, i.source)
	}
	return err
}

func (i *Image) configure() error {
	config, err := i.image.ConfigFile()
	if err != nil {
		return invalid("", "%s has no readable configuration: %s", i.source.Name, err)
	}
	is := v1.Platform{OS: config.OS, Architecture: config.Architecture}
	if is.OS != "" && is.Architecture != "" && !is.Satisfies(i.source.Platform) {
		return wrongPlatform(i.source, []string{is.String()})
	}
	i.config = config.Config
	return nil
}

// IsPath reports whether the name of an image can only be meant as a path.
func IsPath(name string) bool {
	for _, start := range []string{"./", "../", "/"} {
		if strings.HasPrefix(name, start) {
			return true
		}
	}
	return slices.Contains([]string{".tar", ".tgz", ".gz", ".zst"}, path.Ext(name))
}

// Config returns how the image wants to be started.
func (i *Image) Config() Config { return ConfigOf(i.config) }

// OCI returns the image's configuration as it is in the image.
func (i *Image) OCI() v1.Config { return i.config }

// ConfigOf returns how an image with this configuration wants to be started.
func ConfigOf(config v1.Config) Config {
	c := Config{Args: slices.Concat(config.Entrypoint, config.Cmd), Env: slices.Clone(config.Env),
		Dir: path.Join("/", config.WorkingDir), User: config.User}
	for exposed := range config.ExposedPorts {
		number, protocol, _ := strings.Cut(exposed, "/")
		port, err := strconv.Atoi(number)
		if err == nil && port > 0 && port < 65536 && (protocol == "" || protocol == "tcp") {
			c.Ports = append(c.Ports, port)
		}
	}
	slices.Sort(c.Ports)
	return c
}

// Unpack writes the files of all layers into dir, which must exist and be empty. Owners are kept if the process is root;
// setuid and setgid bits are dropped, since sandboxes ignore them, and so are devices, which a sandbox has of its own. If
// it fails the caller removes dir.
func (i *Image) Unpack(ctx context.Context, dir string) error {
	layers, err := i.image.Layers()
	if err != nil {
		return invalid("", "%s has no readable layers: %s", i.source.Name, err)
	}
	tree, err := newTree(dir, i.source.Limits)
	if err != nil {
		return err
	}
	defer tree.root.Close()
	if err := tree.root.Chmod(".", 0o755); err != nil { // any user must get in
		return fmt.Errorf("unpack image: %w", err)
	}
	for n, layer := range layers {
		if err := i.apply(ctx, tree, layer); err != nil {
			return fmt.Errorf("unpack layer %d of %d: %w", n+1, len(layers), err)
		}
	}
	if err := tree.finish(); err != nil {
		return err
	}
	return tree.makeDir(path.Join("/", i.config.WorkingDir))
}

func (i *Image) apply(ctx context.Context, tree *tree, layer v1.Layer) error {
	in, err := layer.Uncompressed()
	if err != nil {
		return invalid("", "%s has a layer that cannot be read: %s", i.source.Name, err)
	}
	defer in.Close()
	return tree.apply(ctx, in)
}

func invalid(hint, format string, args ...any) error {
	return &lull.Error{Kind: lull.KindInvalid, Message: "image: " + fmt.Sprintf(format, args...), Hint: hint}
}

func wrongPlatform(source Source, has []string) error {
	return invalid("build it for this node: docker build --platform "+source.Platform.String(),
		"%s is for %s; this node is %s", source.Name, strings.Join(has, ", "), source.Platform)
}
