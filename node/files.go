package node

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sync/singleflight"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/build/archive"
	"github.com/lull-dev/lull/store"
)

// files keeps the unpacked files of releases at <data>/releases/<app>/<number>. The archive in the store is what counts;
// a directory here can be removed at any time when no environment uses it, and is unpacked again when one needs it.
type files struct {
	root    string // <data>/releases
	scratch string // <data>/tmp, on the same file system, so that directories can be moved
	store   *store.Store
	unpack  singleflight.Group
}

// openFiles makes the directories and removes what an earlier node was in the middle of.
func openFiles(data string, s *store.Store) (*files, error) {
	f := &files{root: filepath.Join(data, "releases"), scratch: filepath.Join(data, "tmp"), store: s}
	if err := os.RemoveAll(f.scratch); err != nil {
		return nil, fmt.Errorf("clear the scratch directory: %w", err)
	}
	for _, dir := range []string{f.root, f.scratch} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return nil, fmt.Errorf("make the data directory: %w", err)
		}
	}
	return f, nil
}

// temp makes an empty directory that the caller must remove or move.
func (f *files) temp(pattern string) (string, error) { return os.MkdirTemp(f.scratch, pattern) }

func (f *files) dir(app string, number int) string {
	return filepath.Join(f.root, app, strconv.Itoa(number))
}

// adopt moves a built directory into its place.
func (f *files) adopt(rel lull.Release, built string) error {
	dir := f.dir(rel.App, rel.Number)
	if err := os.MkdirAll(filepath.Dir(dir), 0o711); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.Rename(built, dir)
}

// ensure returns the directory of a release, unpacked from the store if it is not there. Concurrent calls unpack once.
func (f *files) ensure(ctx context.Context, rel lull.Release) (string, error) {
	dir := f.dir(rel.App, rel.Number)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	_, err, _ := f.unpack.Do(dir, func() (any, error) { return nil, f.fetch(ctx, rel) })
	return dir, err
}

func (f *files) fetch(ctx context.Context, rel lull.Release) error {
	temp, err := f.temp("unpack-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	archived, err := f.store.Files(ctx, rel)
	if err != nil {
		return err
	}
	defer archived.Close()
	if err := archive.Unpack(archived, temp, archive.Release()); err != nil {
		return err
	}
	return f.adopt(rel, temp)
}

// remove deletes the directory of one release.
func (f *files) remove(app string, number int) error { return os.RemoveAll(f.dir(app, number)) }

// removeApp deletes the directories of all releases of an app.
func (f *files) removeApp(app string) error { return os.RemoveAll(filepath.Join(f.root, app)) }

// sweep deletes the directories of all releases that are not in keep.
func (f *files) sweep(keep map[string][]int) error {
	apps, err := os.ReadDir(f.root)
	if err != nil {
		return err
	}
	for _, app := range apps {
		numbers, err := os.ReadDir(filepath.Join(f.root, app.Name()))
		if err != nil {
			return err
		}
		for _, entry := range numbers {
			number, err := strconv.Atoi(entry.Name())
			if err == nil && slices.Contains(keep[app.Name()], number) {
				continue
			}
			if err := os.RemoveAll(filepath.Join(f.root, app.Name(), entry.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
