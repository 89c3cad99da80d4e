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
	drafts lull.Size // expected by drafts that are being written
}

// entry is a sealed snapshot, or one that has been taken and is still on disk.
type entry struct {
	snapshot Snapshot
	evict    func() // told when it has been evicted; nil until somebody has a use for it
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
	s := &Store{dir: dir, limit: limit, log: log, kept: map[string]*entry{}}
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

// Adopt says who wants to know when the snapshot of an environment is evicted. It reports whether the snapshot is there.
func (s *Store) Adopt(environment string, evict func()) bool {
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
// snapshots are evicted; it fails with ErrFull if that does not help. The draft must be sealed or discarded.
func (s *Store) Begin(environment string, expected lull.Size) (*Draft, error) {
	victims, err := s.makeRoom(expected)
	for _, v := range victims {
		s.log.Warn("snapshot evicted to make room for another", "environment", v.snapshot.Environment, "size", v.snapshot.Size)
		if v.evict != nil {
			v.evict()
		}
	}
	if err != nil {
		return nil, err
	}
	d := &Draft{store: s, environment: environment, dir: filepath.Join(s.dir, environment+draftSuffix), expected: expected}
	if err := errors.Join(os.RemoveAll(d.dir), os.Mkdir(d.dir, 0o700)); err != nil {
		s.finish(expected)
		return nil, fmt.Errorf("begin a snapshot: %w", err)
	}
	return d, nil
}

// makeRoom evicts until another snapshot of that size fits, and counts it as a draft.
func (s *Store) makeRoom(expected lull.Size) (victims []*entry, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.limit > 0 && expected > s.limit {
		return nil, fmt.Errorf("%w: it may take %s, all of them together %s (--snapshots)", ErrFull, expected, s.limit)
	}
	for {
		free, err := freeSpace(s.dir)
		if err != nil {
			return victims, err
		}
		over := s.limit > 0 && s.size()+s.drafts+expected > s.limit
		if !over && free >= s.drafts+expected+spare {
			s.drafts += expected
			return victims, nil
		}
		oldest := s.oldest()
		if oldest == nil {
			return victims, fmt.Errorf("%w: it may take %s, and %s are free", ErrFull, expected, free)
		}
		delete(s.kept, oldest.snapshot.Environment)
		if err := os.RemoveAll(s.path(oldest.snapshot.Environment)); err != nil {
			return victims, fmt.Errorf("evict a snapshot: %w", err)
		}
		victims = append(victims, oldest)
	}
}

func (s *Store) oldest() (oldest *entry) {
	for _, e := range s.kept {
		if !e.taken && (oldest == nil || cmp.Or(e.snapshot.Made.Compare(oldest.snapshot.Made), strings.Compare(e.snapshot.Environment, oldest.snapshot.Environment)) < 0) {
			oldest = e
		}
	}
	return oldest
}

func freeSpace(dir string) (lull.Size, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return 0, fmt.Errorf("ask how much room is on disk: %w", err)
	}
	return lull.Size(stat.Bavail) * lull.Size(stat.Bsize), nil
}

func (s *Store) path(environment string) string { return filepath.Join(s.dir, environment) }

func (s *Store) finish(expected lull.Size) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drafts -= expected
}

// Take gives the snapshot of an environment out, for the one wake it is good for, if its files are all there. Whatever
// comes of it, the caller must Remove it.
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
