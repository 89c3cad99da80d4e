package snapshot

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/lull-dev/lull"
)

// file is a file of a snapshot as it was written. The checksum is for accidents: the disk's, or a write that was cut off.
// Nobody but root can write there.
type file struct {
	Name string    `json:"name"`
	Size lull.Size `json:"size"`
	CRC  uint32    `json:"crc32c"`
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Draft is a snapshot that is being made. It is used by one goroutine.
type Draft struct {
	store       *Store
	environment string
	dir         string
	expected    lull.Size
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
		f, err := sum(d.dir, e.Name())
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

// Seal makes the draft the environment's snapshot: from now on it counts. evict is told, from another goroutine, if it
// has to go to make room.
func (d *Draft) Seal(evict func()) (Snapshot, error) {
	s := d.store
	path := s.path(d.environment)
	if err := errors.Join(os.RemoveAll(path), os.Rename(d.dir, path)); err != nil {
		return Snapshot{}, errors.Join(fmt.Errorf("seal a snapshot: %w", err), d.Discard())
	}
	d.over = true
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drafts -= d.expected
	s.kept[d.environment] = &entry{snapshot: d.seal, evict: evict}
	return d.seal, nil
}

// Discard removes the draft. After Seal it does nothing.
func (d *Draft) Discard() error {
	if d.over {
		return nil
	}
	d.over = true
	d.store.finish(d.expected)
	return os.RemoveAll(d.dir)
}

// sum reads a file.
func sum(dir, name string) (file, error) {
	f, err := openPlain(filepath.Join(dir, name))
	if err != nil {
		return file{}, err
	}
	defer f.Close()
	hash := crc32.New(castagnoli)
	n, err := io.CopyBuffer(struct{ io.Writer }{hash}, struct{ io.Reader }{f}, make([]byte, 1<<20))
	return file{Name: name, Size: lull.Size(n), CRC: hash.Sum32()}, err
}

// openPlain opens a file that is one: anything else, such as a pipe, could keep the reader waiting.
func openPlain(path string) (*os.File, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file", filepath.Base(path))
	}
	return os.Open(path)
}

// check compares what is in dir with what was written.
func check(dir string, files []file) error {
	for _, want := range files {
		info, err := os.Lstat(filepath.Join(dir, want.Name))
		switch {
		case err != nil:
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		case lull.Size(info.Size()) != want.Size:
			return fmt.Errorf("%w: %s has %s of %s", ErrDamaged, want.Name, lull.Size(info.Size()), want.Size)
		}
		got, err := sum(dir, want.Name)
		switch {
		case err != nil:
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		case got != want:
			return fmt.Errorf("%w: the checksum of %s is wrong", ErrDamaged, want.Name)
		}
	}
	return nil
}
