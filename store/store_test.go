package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lull-dev/lull"
)

// open opens a store in dir and closes it with the test.
func open(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(t.Context(), dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, s) })
	return s
}

func closed(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Errorf("close store: %v", err)
	}
}

func release(app string) lull.Release {
	m := lull.DefaultManifest()
	m.Name, m.Env = app, map[string]string{"LOG": "debug"}
	return lull.Release{
		App: app, Created: time.Date(2026, 3, 1, 12, 0, 0, 5, time.UTC), Manifest: m,
		Process: lull.Process{Args: []string{"node", "server.js"}, Dir: lull.AppDir, Root: lull.RootHost, Port: 8080},
	}
}

// add adds a release with the given text as its archive.
func add(t testing.TB, s *Store, app, text string) lull.Release {
	t.Helper()
	rel, err := s.AddRelease(t.Context(), release(app), strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return rel
}

func content(t testing.TB, s *Store, rel lull.Release) []byte {
	t.Helper()
	r, err := s.Files(t.Context(), rel)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("read files of %s: %v", rel, err)
	}
	return data
}

func wantKind(t testing.TB, err error, kind lull.Kind) {
	t.Helper()
	if err == nil || lull.KindOf(err) != kind {
		t.Errorf("got error %v of kind %q, want kind %q", err, lull.KindOf(err), kind)
	}
}

func TestReleaseComesBackAsItWasAdded(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	want := add(t, s, "chat", "files of one")
	if want.Number != 1 || want.Size != 12 || want.Files == "" {
		t.Fatalf("got %+v", want)
	}
	closed(t, s)
	s = open(t, dir)
	got, err := s.Release(t.Context(), "chat", 1)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("release after a restart (-want +got):\n%s", diff)
	}
	if got := string(content(t, s, got)); got != "files of one" {
		t.Errorf("files after a restart: %q", got)
	}
}

func TestAppFollowsItsReleases(t *testing.T) {
	s := open(t, t.TempDir())
	add(t, s, "chat", "one")
	add(t, s, "chat", "two")
	add(t, s, "blog", "one")
	check := func(want lull.App) {
		t.Helper()
		got, err := s.App(t.Context(), "chat")
		want.Name, want.Created = "chat", release("chat").Created
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("app (-want +got):\n%s%v", diff, err)
		}
	}
	check(lull.App{Current: 0})
	for _, step := range []struct{ promote, latest int }{{2, 2}, {1, 2}} {
		if err := s.Promote(t.Context(), "chat", step.promote); err != nil {
			t.Fatal(err)
		}
		check(lull.App{Current: step.promote, Latest: step.latest})
	}
	apps, err := s.Apps(t.Context())
	if err != nil || len(apps) != 2 || apps[0].Name != "blog" || apps[1].Name != "chat" {
		t.Errorf("apps: %v, %v", apps, err)
	}
	releases, err := s.Releases(t.Context(), "chat")
	if err != nil || len(releases) != 2 || releases[0].Number != 1 || releases[1].Number != 2 {
		t.Errorf("releases: %v, %v", releases, err)
	}
}

func TestWhatIsMissingIsNotFound(t *testing.T) {
	s, ctx := open(t, t.TempDir()), t.Context()
	add(t, s, "chat", "one")
	calls := map[string]func(app string, number int) error{
		"App":           func(app string, _ int) error { _, err := s.App(ctx, app+"x"); return err },
		"Release":       func(app string, n int) error { _, err := s.Release(ctx, app, n); return err },
		"Releases":      func(app string, _ int) error { _, err := s.Releases(ctx, app+"x"); return err },
		"Promote":       func(app string, n int) error { return s.Promote(ctx, app, n) },
		"RemoveRelease": func(app string, n int) error { return s.RemoveRelease(ctx, app, n) },
		"RemoveApp":     func(app string, _ int) error { return s.RemoveApp(ctx, app+"x") },
		"Files":         func(app string, n int) error { _, err := s.Files(ctx, lull.Release{App: app, Number: n}); return err },
	}
	for name, call := range calls {
		for _, app := range []string{"chat", "nope", "", ">", "*", "a.b", "../x", strings.Repeat("x", 100)} {
			if err := call(app, 7); lull.KindOf(err) != lull.KindNotFound {
				t.Errorf("%s(%q): got %v", name, app, err)
			}
		}
	}
}

func TestBadNamesAreRefused(t *testing.T) {
	s := open(t, t.TempDir())
	for _, app := range []string{"", "Chat", "a.b", ">", "a b", "../x", "a/b", strings.Repeat("x", 41)} {
		_, err := s.AddRelease(t.Context(), release(app), strings.NewReader(""))
		wantKind(t, err, lull.KindInvalid)
	}
}

func TestNumbersAreNeverGivenTwice(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for want := 1; want <= 3; want++ {
		rel := add(t, s, "chat", "x")
		if rel.Number != want {
			t.Errorf("got number %d, want %d", rel.Number, want)
		}
		if err := s.RemoveRelease(t.Context(), "chat", rel.Number); err != nil {
			t.Fatal(err)
		}
	}
	closed(t, s)
	if rel := add(t, open(t, dir), "chat", "x"); rel.Number != 4 {
		t.Errorf("got number %d after a restart, want 4", rel.Number)
	}
}

func TestConcurrentAddsGetTheirOwnNumbers(t *testing.T) {
	const adders, each = 8, 5
	s := open(t, t.TempDir())
	var mu sync.Mutex
	seen := map[int]string{}
	var wg sync.WaitGroup
	for a := range adders {
		wg.Go(func() {
			for i := range each {
				text := fmt.Sprintf("%d/%d", a, i)
				rel, err := s.AddRelease(t.Context(), release("chat"), strings.NewReader(text))
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if other, taken := seen[rel.Number]; taken {
					t.Errorf("number %d was given to %s and %s", rel.Number, other, text)
				}
				seen[rel.Number] = text
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	releases, err := s.Releases(t.Context(), "chat")
	if err != nil || len(releases) != adders*each {
		t.Fatalf("got %d releases, %v", len(releases), err)
	}
	for _, rel := range releases {
		if got := string(content(t, s, rel)); got != seen[rel.Number] {
			t.Errorf("%s holds %q, want %q", rel, got, seen[rel.Number])
		}
	}
}

func TestCurrentReleaseIsNotRemoved(t *testing.T) {
	s := open(t, t.TempDir())
	rel := add(t, s, "chat", "x")
	if err := s.Promote(t.Context(), "chat", 1); err != nil {
		t.Fatal(err)
	}
	wantKind(t, s.RemoveRelease(t.Context(), "chat", 1), lull.KindConflict)
	if got := string(content(t, s, rel)); got != "x" {
		t.Errorf("its files are %q", got)
	}
}

// TestPromoteAndRemoveNeverBothWin races the two for the same release: whichever comes second must see the first.
func TestPromoteAndRemoveNeverBothWin(t *testing.T) {
	s := open(t, t.TempDir())
	for range 30 {
		rel := add(t, s, "chat", "x")
		var promoted, removed error
		var wg sync.WaitGroup
		wg.Go(func() { promoted = s.Promote(t.Context(), "chat", rel.Number) })
		wg.Go(func() { removed = s.RemoveRelease(t.Context(), "chat", rel.Number) })
		wg.Wait()
		if (promoted == nil) == (removed == nil) {
			t.Fatalf("promote: %v, remove: %v", promoted, removed)
		}
		app, err := s.App(t.Context(), "chat")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Release(t.Context(), "chat", app.Current); app.Current != 0 && err != nil {
			t.Fatalf("the current release %d is not there: %v", app.Current, err)
		}
	}
}

func TestRemovedAppLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	var gone []lull.Release
	for range 3 {
		gone = append(gone, add(t, s, "chat", strings.Repeat("x", 10*chunkSize)))
	}
	kept := add(t, s, "blog", "kept")
	if err := s.RemoveApp(t.Context(), "chat"); err != nil {
		t.Fatal(err)
	}
	_, err := s.App(t.Context(), "chat")
	wantKind(t, err, lull.KindNotFound)
	for _, rel := range gone {
		_, err := s.Files(t.Context(), rel)
		wantKind(t, err, lull.KindNotFound)
	}
	wantStored(t, s, kept)
	if rel := add(t, s, "chat", "again"); rel.Number != 1 {
		t.Errorf("the app that uses the name again starts at %d", rel.Number)
	}
	closed(t, s)
	if size := diskUse(t, dir); size > 10*chunkSize { // JetStream keeps what is left of its last file, of 8 MB
		t.Errorf("%s are left on disk", lull.Size(size))
	}
}

// wantStored checks that these releases, and nothing else, take room in the buckets.
func wantStored(t *testing.T, s *Store, releases ...lull.Release) {
	t.Helper()
	want := map[string]bool{}
	for _, rel := range releases {
		want[rel.Files] = true
	}
	archives, err := s.archives.ids(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.removeMarkers(t.Context()); err != nil {
		t.Fatal(err)
	}
	records, err := subjects(t.Context(), s.releasesStream, releasesPrefix)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, archives); diff != "" {
		t.Errorf("archives (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, records); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
}

func diskUse(t *testing.T, dir string) (size int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		size += info.Size()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return size
}

func TestFailedAddLeavesNothing(t *testing.T) {
	s := open(t, t.TempDir())
	kept := add(t, s, "blog", "kept")
	broken := errors.New("broken pipe")
	files := io.MultiReader(bytes.NewReader(make([]byte, 3*chunkSize/2)), iotest.ErrReader(broken))
	if _, err := s.AddRelease(t.Context(), release("chat"), files); !errors.Is(err, broken) {
		t.Errorf("got %v, want the reader's error", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	files = io.MultiReader(bytes.NewReader(make([]byte, 3*chunkSize/2)), readerFunc(func(p []byte) (int, error) { cancel(); return len(p), nil }))
	if _, err := s.AddRelease(ctx, release("chat"), files); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that it was cancelled", err)
	}
	large := release("chat")
	large.Manifest.Env = map[string]string{"X": strings.Repeat("x", maxRecord)}
	_, err := s.AddRelease(t.Context(), large, strings.NewReader("x"))
	wantKind(t, err, lull.KindTooLarge)
	_, err = s.App(t.Context(), "chat")
	wantKind(t, err, lull.KindNotFound)
	wantStored(t, s, kept)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestFullDiskRefusesAndGoesOn(t *testing.T) {
	s := open(t, t.TempDir())
	kept := add(t, s, "chat", "kept")
	full := &lull.Error{Kind: lull.KindTooLarge, Message: "the disk is full"}
	chunks := 0
	room := s.archives.room
	s.archives.room = func() error {
		if chunks++; chunks > 2 {
			return full
		}
		return nil
	}
	_, err := s.AddRelease(t.Context(), release("chat"), bytes.NewReader(make([]byte, 5*chunkSize)))
	wantKind(t, err, lull.KindTooLarge)
	s.archives.room = room
	wantStored(t, s, kept, add(t, s, "chat", "after"))
}

// TestOpenRemovesWhatWasLeftBehind makes the two things that a killed process can leave: part of an archive, and an
// archive with its record that no app lists.
func TestOpenRemovesWhatWasLeftBehind(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	kept := add(t, s, "chat", "kept")
	for i := range 2 {
		if err := s.archives.putChunk(t.Context(), fmt.Sprintf("PARTIAL%d", i), make([]byte, chunkSize)); err != nil {
			t.Fatal(err)
		}
	}
	whole := release("chat")
	whole.Files = "WHOLE"
	if err := s.putRelease(t.Context(), &whole, strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	add(t, s, "blog", "half removed")
	if _, err := s.unlistApp(t.Context(), "blog"); err != nil {
		t.Fatal(err)
	}
	if err := s.expectRelease(t.Context(), release("shop")); err != nil {
		t.Fatal(err)
	}
	closed(t, s)
	s = open(t, dir)
	wantStored(t, s, kept)
	if records, err := s.readApps(t.Context()); err != nil || len(records) != 1 {
		t.Errorf("records of apps: %v, %v", records, err)
	}
	if got := string(content(t, s, kept)); got != "kept" {
		t.Errorf("what was kept is %q", got)
	}
}

func TestArchivesOfAllSizes(t *testing.T) {
	s := open(t, t.TempDir())
	for _, size := range []int{0, 1, chunkSize - 1, chunkSize, chunkSize + 1, 5*chunkSize + 7} {
		want := make([]byte, size)
		for i := range want {
			want[i] = byte(i * 7 >> 3)
		}
		rel, err := s.AddRelease(t.Context(), release("chat"), iotest.HalfReader(bytes.NewReader(want)))
		if err != nil {
			t.Fatal(err)
		}
		if got := content(t, s, rel); !bytes.Equal(got, want) || int(rel.Size) != size {
			t.Errorf("%d bytes came back as %d, size %d", size, len(got), rel.Size)
		}
		// Any NATS client must be able to read them.
		if got, err := s.archives.bucket.GetBytes(t.Context(), rel.Files); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes came back as %d from the NATS client, %v", size, len(got), err)
		}
	}
}

func TestDamagedArchiveIsNotHandedOut(t *testing.T) {
	s := open(t, t.TempDir())
	rel := add(t, s, "chat", strings.Repeat("x", 2*chunkSize))
	info, err := s.archives.stream.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.archives.stream.DeleteMsg(t.Context(), info.State.FirstSeq); err != nil {
		t.Fatal(err)
	}
	r, err := s.Files(t.Context(), rel)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.Copy(io.Discard, r); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Errorf("got error %v", err)
	}
}

func TestRecordOfANewerLullIsRefused(t *testing.T) {
	s := open(t, t.TempDir())
	if _, err := s.apps.Put(t.Context(), "chat", []byte(`{"v":99,"name":"chat"}`)); err != nil {
		t.Fatal(err)
	}
	_, err := s.AddRelease(t.Context(), release("chat"), strings.NewReader("x"))
	wantKind(t, err, lull.KindUnsupported)
}

func TestCloseEndsEverything(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 3 {
		s := open(t, t.TempDir())
		rel := add(t, s, "chat", "x")
		content(t, s, rel)
		closed(t, s)
		closed(t, s) // a second time is harmless
		_, err := s.Apps(t.Context())
		wantKind(t, err, lull.KindDraining)
		_, err = s.AddRelease(t.Context(), release("chat"), strings.NewReader("x"))
		wantKind(t, err, lull.KindDraining)
	}
	deadline := time.After(10 * time.Second)
	for runtime.NumGoroutine() > before {
		select {
		case <-deadline:
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines before, %d after:\n%s", before, runtime.NumGoroutine(), stacks[:runtime.Stack(stacks, true)])
		default:
			runtime.Gosched()
		}
	}
}

func TestFilesAreForTheOwnerOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	s := open(t, dir)
	add(t, s, "chat", "x")
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestDirectoryInUseIsAConflict(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	_, err := Open(t.Context(), dir, slog.New(slog.DiscardHandler))
	wantKind(t, err, lull.KindConflict)
	if err != nil && !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) {
		t.Errorf("the message does not say who uses it: %v", err)
	}
}

// TestDamagedDirectoryIsRefused breaks the directory in the ways that JetStream would otherwise pass over.
func TestDamagedDirectoryIsRefused(t *testing.T) {
	streams := filepath.Join("jetstream", "$G", "streams")
	breaks := map[string]func(dir string) error{
		"bucket description": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, streams, "KV_apps", "meta.inf"), []byte("garbage"), 0o600)
		},
		"bucket gone":   func(dir string) error { return os.RemoveAll(filepath.Join(dir, streams, "KV_releases")) },
		"archives gone": func(dir string) error { return os.RemoveAll(filepath.Join(dir, streams, "OBJ_archives")) },
		"all gone":      func(dir string) error { return os.RemoveAll(filepath.Join(dir, "jetstream")) },
		"not a directory": func(dir string) error {
			return errors.Join(os.RemoveAll(filepath.Join(dir, "jetstream")), os.WriteFile(filepath.Join(dir, "jetstream"), nil, 0o600))
		},
		"records overwritten": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, streams, "KV_apps", "msgs", "1.blk"), bytes.Repeat([]byte("garbage "), 100), 0o600)
		},
	}
	for name, damage := range breaks {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir)
			add(t, s, "chat", "x")
			closed(t, s)
			if err := damage(dir); err != nil {
				t.Fatal(err)
			}
			s, err := Open(t.Context(), dir, slog.New(slog.DiscardHandler))
			if err == nil {
				apps, err := s.Apps(t.Context())
				closed(t, s)
				t.Fatalf("it opened, with apps %v, %v", apps, err)
			}
			if lull.HintOf(err) == "" || !strings.Contains(err.Error(), dir) {
				t.Errorf("the message does not help: %v", err)
			}
		})
	}
}
