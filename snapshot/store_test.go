package snapshot_test

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/snapshot"
)

func open(t *testing.T, dir string, limit lull.Size) *snapshot.Store {
	t.Helper()
	s, err := snapshot.Open(dir, limit, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// draft writes a snapshot of two files.
func draft(t *testing.T, s *snapshot.Store, environment string) *snapshot.Draft {
	t.Helper()
	d, err := s.Begin(environment, lull.MB)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{"state": "the kernel's state", "pages": "its memory"} {
		if err := os.WriteFile(filepath.Join(d.Dir(), name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func seal(t *testing.T, s *snapshot.Store, environment string, evict func() bool) snapshot.Snapshot {
	t.Helper()
	d := draft(t, s, environment)
	if err := d.Finish(snapshot.Snapshot{App: "chat", Release: 3, Port: 8080}); err != nil {
		t.Fatal(err)
	}
	sealed, err := d.Seal(evict)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func names(s *snapshot.Store) (list []string) {
	for _, found := range s.List() {
		list = append(list, found.Environment)
	}
	return list
}

func TestSnapshotServesOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "snapshots")
	sealed := seal(t, open(t, dir, 0), "chat-1", nil)

	s := open(t, dir, 0) // as the next node finds it
	if diff := cmp.Diff(sealed.Files, s.List()[0].Files); diff != "" || s.List()[0].App != "chat" {
		t.Errorf("found %+v: (-sealed +found)\n%s", s.List(), diff)
	}
	if !s.Adopt("chat-1", nil) || s.Adopt("chat-2", nil) {
		t.Error("adopted wrongly")
	}
	where, taken, err := s.Take("chat-1")
	if err != nil || taken.Port != 8080 {
		t.Fatalf("take: %+v, %v", taken, err)
	}
	if data, err := os.ReadFile(filepath.Join(where, "pages")); string(data) != "its memory" {
		t.Errorf("pages: %q, %v", data, err)
	}
	if _, _, err := s.Take("chat-1"); !errors.Is(err, snapshot.ErrGone) {
		t.Errorf("taken twice: %v", err)
	}
	if list := names(open(t, dir, 0)); len(list) > 0 { // the node is killed while it wakes
		t.Errorf("found again: %q", list)
	}
	if err := s.Remove("chat-1"); err != nil {
		t.Error(err)
	}
	if used, _ := s.Used(); used != 0 {
		t.Errorf("%s are used", used)
	}
}

func TestWhatIsNotSealedIsRemoved(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "snapshots")
	s := open(t, dir, 0)
	seal(t, s, "whole", nil)
	written := draft(t, s, "written")
	finished := draft(t, s, "finished")
	if err := finished.Finish(snapshot.Snapshot{}); err != nil {
		t.Fatal(err)
	}
	seal(t, s, "garbled", nil)
	if err := os.WriteFile(filepath.Join(dir, "garbled", "sealed.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	seal(t, s, "moved", nil)
	if err := os.Rename(filepath.Join(dir, "moved"), filepath.Join(dir, "elsewhere")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"whole"}, names(open(t, dir, 0))); diff != "" {
		t.Errorf("found (-want +got)\n%s", diff)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("left: %v, %v", entries, err)
	}
	for _, d := range []*snapshot.Draft{written, finished} {
		if err := d.Discard(); err != nil {
			t.Error(err)
		}
	}
}

func TestDamage(t *testing.T) {
	for name, damage := range map[string]func(path string) error{
		"truncated": func(path string) error { return os.Truncate(path, 3) },
		"extended":  func(path string) error { return os.Truncate(path, 300) },
		"missing":   os.Remove,
		"a pipe":    func(path string) error { return errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o600)) },
	} {
		for _, file := range []string{"state", "pages", "sealed.json"} {
			dir := filepath.Join(t.TempDir(), "snapshots")
			s := open(t, dir, 0)
			seal(t, s, "chat-1", nil)
			if err := damage(filepath.Join(dir, "chat-1", file)); err != nil {
				t.Fatal(err)
			}
			_, _, err := s.Take("chat-1")
			if file == "sealed.json" && name != "missing" { // this node knows better
				if err != nil {
					t.Errorf("%s %s: %v", file, name, err)
				}
			} else if !errors.Is(err, snapshot.ErrDamaged) {
				t.Errorf("%s %s: %v", file, name, err)
			}
		}
	}
}

func TestSnapshotsArePrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "snapshots")
	seal(t, open(t, dir, 0), "chat-1", nil)
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %s", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestTheOldestMakesRoom(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "snapshots")
	size := seal(t, open(t, dir, 0), "probe", nil).Size
	s := open(t, filepath.Join(t.TempDir(), "snapshots"), lull.MB+size+size/2)
	var evicted []string
	for _, name := range []string{"first", "second", "third"} {
		seal(t, s, name, func() bool {
			evicted = append(evicted, name)
			return true
		})
	}
	if diff := cmp.Diff([]string{"second", "third"}, names(s)); diff != "" {
		t.Errorf("kept (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff([]string{"first"}, evicted); diff != "" {
		t.Errorf("told (-want +got)\n%s", diff)
	}
	// One that is being woken does not go.
	if _, _, err := s.Take("second"); err != nil {
		t.Fatal(err)
	}
	d, err := s.Begin("fourth", lull.MB)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"first", "third"}, evicted); diff != "" {
		t.Errorf("told (-want +got)\n%s", diff)
	}
	if _, err := s.Begin("fifth", lull.MB); !errors.Is(err, snapshot.ErrFull) {
		t.Errorf("beside a draft: %v", err)
	}
	if _, err := s.Begin("giant", lull.GB); !errors.Is(err, snapshot.ErrFull) {
		t.Errorf("more than there is: %v", err)
	}
	if err := d.Discard(); err != nil {
		t.Error(err)
	}
}

// What cannot make enough room is not evicted, and neither is one whose environment is wanted.
func TestNothingIsEvictedInVain(t *testing.T) {
	size := seal(t, open(t, filepath.Join(t.TempDir(), "snapshots"), 0), "probe", nil).Size
	s := open(t, filepath.Join(t.TempDir(), "snapshots"), 2*lull.MB+size)
	wanted := map[string]bool{"first": true}
	for _, name := range []string{"first", "second"} {
		seal(t, s, name, func() bool { return !wanted[name] })
	}
	d := draft(t, s, "third")
	if _, err := s.Begin("fourth", 2*lull.MB); !errors.Is(err, snapshot.ErrFull) {
		t.Errorf("beside a draft: %v", err)
	}
	if diff := cmp.Diff([]string{"first", "second"}, names(s)); diff != "" {
		t.Errorf("kept (-want +got)\n%s", diff)
	}
	other, err := s.Begin("fourth", lull.MB)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"first"}, names(s)); diff != "" {
		t.Errorf("kept (-want +got)\n%s", diff)
	}
	if _, _, err := s.Take("first"); err != nil {
		t.Error(err)
	}
	if err := errors.Join(s.Spend("first"), d.Discard(), other.Discard()); err != nil {
		t.Error(err)
	}
}
