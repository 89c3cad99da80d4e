package snapshot

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/lull-dev/lull"
)

// file is a file of a snapshot as it was written.
type file struct {
	Name string    `json:"name"`
	Size lull.Size `json:"size"`
}

// Draft is a snapshot that is being made. It is used by one goroutine.
type Draft struct {
	store       *Store
	environment string
	dir         string
	seal        Snapshot
	over        bool
}

// Dir returns the directory to write to.
func (d *Draft) Dir() string { return d.dir }

// Finish notes what was written, with what is known about the environment; Size, Made and Files are filled in. After it
// nothing but Seal or Discard is left to do.
func (d *Draft) Finish(about Snapshot) error {
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return fmt.Errorf("finish a snapshot: %w", err)
	}
	about.Environment, about.Made = d.environment, time.Now()
	for _, e := range entries {
		f, err := measure(d.dir, e.Name())
		if err == nil {
			err = os.Chmod(filepath.Join(d.dir, e.Name()), 0o600)
		}
		if err != nil {
			return fmt.Errorf("finish a snapshot: %w", err)
		}
		about.Files = append(about.Files, f)
		about.Size += f.Size
	}
	data, err := json.Marshal(about)
	if err == nil {
		err = os.WriteFile(filepath.Join(d.dir, sealFile), data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("finish a snapshot: %w", err)
	}
	d.seal = about
	return nil
}

// Seal makes the draft the environment's snapshot: from now on it counts. When it has to go to make room evict is asked,
// from another goroutine: it says false if the environment is wanted at that moment; else it is not to be woken any more.
func (d *Draft) Seal(evict func() bool) (Snapshot, error) {
	s := d.store
	path := s.path(d.environment)
	if err := errors.Join(os.RemoveAll(path), os.Rename(d.dir, path)); err != nil {
		return Snapshot{}, errors.Join(fmt.Errorf("seal a snapshot: %w", err), d.Discard())
	}
	d.over = true
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.drafts, d.environment)
	s.kept[d.environment] = &entry{snapshot: d.seal, evict: evict}
	return d.seal, nil
}

// Discard removes the draft. After Seal it does nothing.
func (d *Draft) Discard() error {
	if d.over {
		return nil
	}
	d.over = true
	defer d.store.finish(d.environment)
	return os.RemoveAll(d.dir)
}

// measure looks at a file, which has to be one: a pipe, say, could keep a reader waiting.
func measure(dir, name string) (file, error) {
	info, err := os.Lstat(filepath.Join(dir, name))
	if err != nil {
		return file{}, err
	}
	if !info.Mode().IsRegular() {
		return file{}, fmt.Errorf("%s is not a file", name)
	}
	return file{name, lull.Size(info.Size())}, nil
}

// check compares what is in dir with what was written.
func check(dir string, files []file) error {
	for _, want := range files {
		got, err := measure(dir, want.Name)
		switch {
		case err != nil:
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		case got != want:
			return fmt.Errorf("%w: %s has %s of %s", ErrDamaged, want.Name, got.Size, want.Size)
		}
	}
	return nil
}
