// Package snapshot keeps the snapshots of hibernated environments on this node's disk: within a budget, readable by the
// node alone, and each of them good for one wake.
//
//	<dir>/<environment>.draft/   being written; removed at the next Open
//	<dir>/<environment>/         sealed: sealed.json names every file with its size
//	<dir>/<environment>/         without sealed.json: taken, by a wake; removed at the next Open
//
// What is in the files is the driver's, which also notices a wrong byte in them. A snapshot is not synchronised to the disk
// when it is sealed: after a power failure a torn one is found out, and the environment starts cold.
package snapshot

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lull-dev/lull"
)

// ErrFull is returned by Begin when there is no room for a snapshot.
var ErrFull = errors.New("no room on disk for a snapshot")

// ErrGone is returned by Take for a snapshot that is not there: it was evicted, removed, or taken already.
var ErrGone = errors.New("the snapshot is gone")

// ErrDamaged is returned by Take for a snapshot that is not as it was written.
var ErrDamaged = errors.New("the snapshot is damaged")

// Snapshot describes an environment on disk.
type Snapshot struct {
	Environment string    `json:"environment"`
	App         string    `json:"app"`
	Release     int       `json:"release"`
	Port        int       `json:"port"`   // the app listens on
	Idle        time.Time `json:"idle"`   // since when
	Memory      lull.Size `json:"memory"` // that it held
	Made        time.Time `json:"made"`
	Size        lull.Size `json:"size"` // on disk
	Files       []file    `json:"files"`
}

const (
	sealFile    = "sealed.json"
	draftSuffix = ".draft"
	// spare is what snapshots leave free on the disk, for everything else that the node writes.
	spare = 256 * lull.MB
)

// Store is the snapshots of a node. Its methods may be called concurrently.
type Store struct {
	dir   string
	limit lull.Size
	log   *slog.Logger

	mu     sync.Mutex // guards what follows
	kept   map[string]*entry
	drafts map[string]lull.Size // what those that are being written are expected to take, by environment
}

// entry is a sealed snapshot, or one that has been taken and is still on disk.
type entry struct {
	snapshot Snapshot
	evict    func() bool // asked whether it may be evicted; nil until somebody has a use for it
	taken    bool
}

// Open finds the snapshots in dir, which is made, and removes what is left of others. limit bounds their size in all; 0
// is without a limit but the disk's.
func Open(dir string, limit lull.Size, log *slog.Logger) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the snapshots: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open the snapshots: %w", err)
	}
	s := &Store{dir: dir, limit: limit, log: log, kept: map[string]*entry{}, drafts: map[string]lull.Size{}}
	for _, e := range entries {
		found, err := readSeal(filepath.Join(dir, e.Name()))
		if err == nil && found.Environment == e.Name() {
			s.kept[e.Name()] = &entry{snapshot: found}
			continue
		}
		if !strings.HasSuffix(e.Name(), draftSuffix) {
			log.Info("unfinished snapshot removed", "environment", e.Name())
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return nil, fmt.Errorf("remove an unfinished snapshot: %w", err)
		}
	}
	return s, nil
}

func readSeal(dir string) (found Snapshot, err error) {
	data, err := os.ReadFile(filepath.Join(dir, sealFile))
	if err != nil {
		return found, err
	}
	return found, json.Unmarshal(data, &found)
}

// List returns the snapshots, the oldest first.
func (s *Store) List() (list []Snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.kept {
		if !e.taken {
			list = append(list, e.snapshot)
		}
	}
	slices.SortFunc(list, func(a, b Snapshot) int { return a.Made.Compare(b.Made) })
	return list
}

// Used returns the size of all snapshots on disk and what they may be at most; 0 is no limit.
func (s *Store) Used() (used, limit lull.Size) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.size(), s.limit
}

func (s *Store) size() (total lull.Size) {
	for _, e := range s.kept {
		total += e.snapshot.Size
	}
	return total
}

// Adopt says who is asked before the snapshot of an environment is evicted; see Draft.Seal. It reports whether the snapshot
// is there.
func (s *Store) Adopt(environment string, evict func() bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.kept[environment]
	if e == nil || e.taken {
		return false
	}
	e.evict = evict
	return true
}

// Begin makes a directory for a snapshot that is expected to be of that size at most. If there is no room the oldest
// snapshots are evicted, but none if all of them together would not help: then it fails with ErrFull. The draft must be
// sealed or discarded.
func (s *Store) Begin(environment string, expected lull.Size) (*Draft, error) {
	asked := map[*entry]bool{}
	for {
		oldest, err := s.reserve(environment, expected, asked)
		if err != nil {
			return nil, err
		}
		if oldest == nil {
			break
		}
		asked[oldest] = true
		if oldest.evict == nil || oldest.evict() {
			if err := s.drop(oldest); err != nil {
				return nil, err
			}
		}
	}
	d := &Draft{store: s, environment: environment, dir: s.draftPath(environment)}
	if err := errors.Join(os.RemoveAll(d.dir), os.Mkdir(d.dir, 0o700)); err != nil {
		s.finish(environment)
		return nil, fmt.Errorf("begin a snapshot: %w", err)
	}
	return d, nil
}

// reserve counts a draft of that size if it fits. If not, it returns the snapshot that is to make room first, of those that
// have not been asked yet, provided that all of them together make enough.
func (s *Store) reserve(environment string, expected lull.Size, asked map[*entry]bool) (oldest *entry, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.limit > 0 && expected > s.limit {
		return nil, fmt.Errorf("%w: it may take %s, all of them together %s (--snapshots)", ErrFull, expected, s.limit)
	}
	free, err := freeSpace(s.dir)
	if err != nil {
		return nil, err
	}
	missing := expected + spare + s.unwritten() - free
	if s.limit > 0 {
		missing = max(missing, s.size()+s.drafting()+expected-s.limit)
	}
	if missing <= 0 {
		s.drafts[environment] = expected
		return nil, nil
	}
	var evictable lull.Size
	for _, e := range s.kept {
		if e.taken || asked[e] {
			continue
		}
		evictable += e.snapshot.Size
		if oldest == nil || cmp.Or(e.snapshot.Made.Compare(oldest.snapshot.Made), strings.Compare(e.snapshot.Environment, oldest.snapshot.Environment)) < 0 {
			oldest = e
		}
	}
	if evictable < missing {
		return nil, fmt.Errorf("%w: it may take %s, and %s are free", ErrFull, expected, free)
	}
	return oldest, nil
}

// drop removes a snapshot whose environment has agreed to it.
func (s *Store) drop(e *entry) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept[e.snapshot.Environment] != e || e.taken {
		return nil
	}
	s.log.Warn("snapshot evicted to make room for another", "environment", e.snapshot.Environment, "size", e.snapshot.Size)
	delete(s.kept, e.snapshot.Environment)
	if err := os.RemoveAll(s.path(e.snapshot.Environment)); err != nil {
		return fmt.Errorf("evict a snapshot: %w", err)
	}
	return nil
}

// drafting is what drafts are expected to take in all.
func (s *Store) drafting() (total lull.Size) {
	for _, expected := range s.drafts {
		total += expected
	}
	return total
}

// unwritten is what drafts are still to write: the rest is not free any more.
func (s *Store) unwritten() (total lull.Size) {
	for environment, expected := range s.drafts {
		total += max(expected-written(s.draftPath(environment)), 0)
	}
	return total
}

// written is what the files of a draft take on disk so far.
func written(dir string) (total lull.Size) {
	entries, _ := os.ReadDir(dir) // a draft that is just being made, or moved, counts in full
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil {
			if stat, ok := info.Sys().(*syscall.Stat_t); ok {
				total += lull.Size(stat.Blocks) * 512
			}
		}
	}
	return total
}

func freeSpace(dir string) (lull.Size, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return 0, fmt.Errorf("ask how much room is on disk: %w", err)
	}
	return lull.Size(stat.Bavail) * lull.Size(stat.Bsize), nil
}

func (s *Store) path(environment string) string { return filepath.Join(s.dir, environment) }

func (s *Store) draftPath(environment string) string { return s.path(environment) + draftSuffix }

func (s *Store) finish(environment string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.drafts, environment)
}

// Take gives the snapshot of an environment out, for the one wake it is good for, if its files are all there. That it has
// been taken outlives this process; for the machine to lose power see Spend. Whatever comes of it, the caller must Remove it.
func (s *Store) Take(environment string) (dir string, taken Snapshot, err error) {
	s.mu.Lock()
	e := s.kept[environment]
	if e == nil || e.taken {
		s.mu.Unlock()
		return "", Snapshot{}, ErrGone
	}
	e.taken = true
	s.mu.Unlock()
	dir = s.path(environment)
	// From here on it cannot serve again, whatever happens to this process.
	if err := os.Remove(filepath.Join(dir, sealFile)); err != nil {
		return "", Snapshot{}, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err := check(dir, e.snapshot.Files); err != nil {
		return "", Snapshot{}, err
	}
	return dir, e.snapshot, nil
}

// Spend waits until it is on the disk that the snapshot of an environment has been taken: from then on it does not serve
// again even if the machine loses power.
func (s *Store) Spend(environment string) error {
	dir, err := os.Open(s.path(environment))
	if err != nil {
		return fmt.Errorf("spend the snapshot of %s: %w", environment, err)
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("spend the snapshot of %s: %w", environment, err)
	}
	return nil
}

// Remove removes the snapshot of an environment, if there is one.
func (s *Store) Remove(environment string) error {
	err := os.RemoveAll(s.path(environment))
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.kept, environment)
	if err != nil {
		return fmt.Errorf("remove the snapshot of %s: %w", environment, err)
	}
	return nil
}
