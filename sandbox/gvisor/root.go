package gvisor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// root is the plan of a sandbox's root file system. The gofer builds it at its start, in its own mount namespace: the
// host never sees any of these mounts, and they are gone with the process.
//
// All of it is the read-only lower half. The writable upper half is gVisor's overlay, one for the whole tree, so that
// one number bounds what an environment writes, wherever it writes.
type root struct {
	Image string `json:"image,omitempty"` // an image's files; "": made of nothing but what is below
	Write bool   `json:"write,omitempty"` // writes reach the image's files
	Etc   string `json:"etc"`             // directory whose files lie in /etc; for an image on top of its own
	Links []link `json:"links,omitempty"`
	Dirs  []dir  `json:"dirs,omitempty"`
	Binds []bind `json:"binds,omitempty"` // after Dirs, in this order
}

// link is a symbolic link.
type link struct{ Path, To string }

// dir is a directory that is made if it is not there.
type dir struct {
	Path     string
	Mode     uint32
	UID, GID int
}

// bind shows a directory or file of the host. One that is not Shown is left to gVisor, which needs the place for it.
type bind struct {
	Source, Target string
	Shown          bool
}

// build makes the tree at the path at, which is a directory of the host that stays empty there.
func (r root) build(at string) error {
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("detach mounts: %w", err)
	}
	if r.Write {
		return r.showItself(at)
	}
	if err := unix.Mount("lull-root", at, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755,size=4m"); err != nil {
		return fmt.Errorf("mount root: %w", err)
	}
	tree := at
	if r.Image != "" {
		tree = filepath.Join(at, "top")
		if err := os.Mkdir(tree, 0o755); err != nil {
			return err
		}
		if err := likeImage(tree, r.Image, ""); err != nil {
			return err
		}
	}
	if err := r.fill(tree); err != nil {
		return err
	}
	if r.Image != "" {
		// The image's own files stay as they are: what is missing comes from a layer above them.
		layers := "lowerdir=" + escapeLayer(tree) + ":" + escapeLayer(r.Image)
		if err := unix.Mount("lull-image", at, "overlay", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_RDONLY, layers); err != nil {
			return fmt.Errorf("put files on top of image %s: %w", r.Image, err)
		}
	}
	for _, b := range r.Binds {
		if !b.Shown {
			continue
		}
		if err := unix.Mount(b.Source, filepath.Join(at, b.Target), "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("show %s as %s: %w", b.Source, b.Target, err)
		}
	}
	return nil
}

// escapeLayer writes a path as overlayfs wants it among its options.
func escapeLayer(path string) string {
	return strings.NewReplacer(`\`, `\\`, `:`, `\:`, `,`, `\,`).Replace(path)
}

// fill makes the directories, links and places of mounts in tree.
func (r root) fill(tree string) error {
	for _, d := range r.Dirs {
		if r.Image != "" && exists(filepath.Join(r.Image, d.Path)) {
			continue
		}
		if err := r.makeDir(tree, d); err != nil {
			return err
		}
	}
	for _, l := range r.Links {
		if err := os.Symlink(l.To, filepath.Join(tree, l.Path)); err != nil {
			return err
		}
	}
	if r.Image != "" {
		if err := r.copyEtc(tree); err != nil {
			return err
		}
	}
	for _, b := range r.Binds {
		info, err := os.Stat(b.Source)
		if err == nil {
			err = r.makePlace(tree, b.Target, info.IsDir())
		}
		if err != nil {
			return fmt.Errorf("make place for %s: %w", b.Target, err)
		}
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// makeDir makes d and the directories above it. A directory that the image has as well looks as it does there.
func (r root) makeDir(tree string, d dir) error {
	path := ""
	for _, name := range strings.Split(strings.Trim(d.Path, "/"), "/") {
		path += "/" + name
		err := os.Mkdir(filepath.Join(tree, path), 0o755)
		switch {
		case errors.Is(err, fs.ErrExist):
			continue
		case err != nil:
			return err
		}
		if r.Image != "" {
			if err := likeImage(filepath.Join(tree, path), r.Image, path); err != nil {
				return err
			}
		}
	}
	if r.Image != "" && exists(filepath.Join(r.Image, d.Path)) {
		return nil
	}
	made := filepath.Join(tree, d.Path)
	return errors.Join(os.Chown(made, d.UID, d.GID), unix.Chmod(made, d.Mode)) // Chmod knows the sticky bit by number
}

// likeImage gives a directory the owner and mode of the image's directory of that path, if there is one.
func likeImage(made, image, path string) error {
	var stat unix.Stat_t
	if unix.Lstat(filepath.Join(image, path), &stat) != nil || stat.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	return errors.Join(os.Chown(made, int(stat.Uid), int(stat.Gid)), unix.Chmod(made, stat.Mode&0o7777))
}

// copyEtc puts the files of r.Etc above the image's.
func (r root) copyEtc(tree string) error {
	if err := r.makeDir(tree, dir{Path: "/etc", Mode: 0o755}); err != nil {
		return err
	}
	for _, name := range imageEtc {
		data, err := os.ReadFile(filepath.Join(r.Etc, name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(tree, "etc", name), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}
