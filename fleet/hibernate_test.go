package fleet_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/capacity"
	"github.com/lull-dev/lull/fleet"
	"github.com/lull-dev/lull/internal/bubble"
	"github.com/lull-dev/lull/sandbox"
	"github.com/lull-dev/lull/snapshot"
)

// onDisk gives a fleet a place for snapshots and returns it.
func onDisk(t *testing.T, limit lull.Size) (*snapshot.Store, func(*fleet.Config)) {
	t.Helper()
	store, err := snapshot.Open(filepath.Join(t.TempDir(), "snapshots"), limit, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return store, func(c *fleet.Config) { c.Snapshots = store }
}

// deep is a manifest whose environments are hibernated after five seconds.
func deep(m *lull.Manifest) {
	m.Idle.Hibernate = lull.Duration(5 * time.Second)
	m.Stream.Quiet = lull.Duration(time.Second)
}

// failing makes a verb fail.
func failing(verb string, err error) func(context.Context, string, sandbox.Spec) error {
	return func(_ context.Context, v string, _ sandbox.Spec) error {
		if v == verb {
			return err
		}
		return nil
	}
}

func (w *world) dial(p fleet.Place) net.Conn {
	w.t.Helper()
	conn, err := p.Dial(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.Close() })
	return conn
}

func say(t *testing.T, conn net.Conn, line string) {
	t.Helper()
	answer := make([]byte, len(line)+1)
	_, err := io.WriteString(conn, line+"\n")
	if err == nil {
		_, err = io.ReadFull(conn, answer)
	}
	if err != nil || string(answer) != line+"\n" {
		t.Errorf("said %q, heard %q, %v", line, answer, err)
	}
}

func TestHibernateAndWake(t *testing.T) {
	store, disk := onDisk(t, 0)
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "echo", deep))
		p, err := w.Acquire(t.Context(), fleet.Want{Why: "GET /socket", Stream: true})
		if err != nil {
			t.Fatal(err)
		}
		conn, s := w.dial(p), p.Stream()
		defer s.Close()
		p.Free()
		say(t, conn, "one")
		sleep(4 * time.Second)
		w.is("paused")
		sleep(3 * time.Second)
		w.is("hibernated")
		row := w.Environments()[0]
		if row.Held != 1 || row.Disk == 0 || row.Memory != 0 || s.Sleep() != 1 {
			t.Errorf("hibernated: %+v, sleep %d", row, s.Sleep())
		}
		if len(w.fake.Sandboxes()) != 0 || len(store.List()) != 1 {
			t.Errorf("%d sandboxes and %d snapshots", len(w.fake.Sandboxes()), len(store.List()))
		}
		if _, ok := s.HoldIfUp(); ok {
			t.Error("a heartbeat got through to a disk")
		}
		done, err := s.Hold(t.Context(), "websocket data")
		if err != nil {
			t.Fatal(err)
		}
		say(t, conn, "two")
		done()
		w.is("running")
		if row := w.Environments()[0]; row.Reason != "websocket data" || w.fake.Restores() != 1 || len(store.List()) != 0 {
			t.Errorf("woken: %+v, %d restores, %d snapshots", row, w.fake.Restores(), len(store.List()))
		}
		sleep(time.Minute)
		w.is("hibernated")
		q := w.acquire("GET /rooms")
		if q.How() != fleet.Woken || q.Environment() != p.Environment() || w.fake.Starts() != 1 {
			t.Errorf("got %s by %s", q.Environment(), q.How())
		}
		q.Free()
		sleep(169 * time.Hour)
		w.is("")
		select {
		case <-s.Closing():
			if s.CloseCode() != 1001 {
				t.Errorf("close code %d", s.CloseCode())
			}
		default:
			t.Error("its stream was not told")
		}
		if kept := w.fake.Kept(); len(kept) > 0 {
			t.Errorf("addresses kept: %q", kept)
		}
	}, disk)
}

// An app does not fall asleep with a message that it has not read: its answer would come with the next one.
func TestUnreadInputIsNotSleptOver(t *testing.T) {
	_, disk := onDisk(t, 0)
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "late", func(m *lull.Manifest) {
			m.Idle.Pause, m.Idle.Hibernate, m.Stream.Quiet = 0, lull.Duration(time.Millisecond), lull.Duration(time.Millisecond)
		}))
		p, err := w.Acquire(t.Context(), fleet.Want{Why: "GET /socket", Stream: true})
		if err != nil {
			t.Fatal(err)
		}
		conn, s := w.dial(p), p.Stream()
		defer s.Close()
		p.Free()
		done, err := s.Hold(t.Context(), "websocket data")
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.WriteString(conn, "hello")
		done()
		heard := make([]byte, 5)
		conn.SetReadDeadline(time.Now().Add(time.Second))
		if _, readErr := io.ReadFull(conn, heard); err != nil || readErr != nil || string(heard) != "hello" {
			t.Errorf("heard %q: %v, %v", heard, err, readErr)
		}
		sleep(time.Second)
		w.is("hibernated")
	}, disk)
}

// A connection that arrives while a snapshot is being written gets the environment back as soon as that is possible, and
// the snapshot is thrown away.
func TestHibernationIsCalledOff(t *testing.T) {
	const slow = time.Second
	store, disk := onDisk(t, 0)
	for verb, how := range map[string]fleet.How{"snapshot": fleet.Resumed, "vacate": fleet.Woken} {
		inBubble(t, func(t *testing.T, w *world) {
			w.Use(release(1, "app", deep))
			id := w.warm()
			w.fake.Before(slowly(verb, slow))
			sleep(5*time.Second + slow/2)
			p := w.acquire("GET /rooms")
			if p.How() != how || p.Environment() != id || p.Waited() > slow/2+50*time.Millisecond || get(t, p) != "hello" {
				t.Errorf("%s: got %s by %s after %v", verb, p.Environment(), p.How(), p.Waited())
			}
			if len(store.List()) != 0 || w.fake.Starts() != 1 {
				t.Errorf("%s: %d snapshots, %d starts", verb, len(store.List()), w.fake.Starts())
			}
			p.Free()
			sleep(7 * time.Second)
			w.is("hibernated")
		}, disk)
	}
}

// What cannot be put on disk stays in memory, with its clients.
func TestEnvironmentThatCannotBeHibernatedStaysPaused(t *testing.T) {
	_, disk := onDisk(t, 0)
	_, tiny := onDisk(t, 1)
	for name, change := range map[string]func(*fleet.Config){"snapshot": disk, "": tiny} {
		inBubble(t, func(t *testing.T, w *world) {
			w.Use(release(1, "app", deep))
			s, id := w.stream()
			defer s.Close()
			w.fake.Before(failing(name, errors.New("disk is broken")))
			sleep(9 * time.Minute)
			w.is("paused")
			if !w.journal.noted("could not be put on disk") {
				t.Error("nobody was told")
			}
			w.fake.Before(nil)
			p := w.acquire("GET /")
			if p.How() != fleet.Resumed || p.Environment() != id {
				t.Errorf("got %s by %s", p.Environment(), p.How())
			}
			p.Free()
			if name != "" {
				sleep(10 * time.Minute)
				w.is("hibernated") // it is tried again
			}
		}, change)
	}
}

// What does not come back from disk is replaced by a cold start; those it held are told to connect again.
func TestEnvironmentThatDoesNotWakeIsReplaced(t *testing.T) {
	damage := func(t *testing.T, dir string) {
		files, err := filepath.Glob(filepath.Join(dir, "*", "*"))
		for _, file := range files {
			if filepath.Base(file) != "sealed.json" {
				err = errors.Join(err, os.Truncate(file, 1))
			}
		}
		if err != nil || len(files) == 0 {
			t.Fatal(files, err)
		}
	}
	for name, broken := range map[string]struct {
		before  func(context.Context, string, sandbox.Spec) error
		within  time.Duration
		damaged bool
	}{
		"refused": {before: failing("restore", sandbox.ErrSnapshot)},
		"hanging": {before: func(ctx context.Context, verb string, _ sandbox.Spec) error {
			if verb == "restore" {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}, within: 11 * time.Second},
		"damaged": {damaged: true},
	} {
		dir := filepath.Join(t.TempDir(), "snapshots")
		store, err := snapshot.Open(dir, 0, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		inBubble(t, func(t *testing.T, w *world) {
			w.Use(release(1, "app", deep))
			s, id := w.stream()
			defer s.Close()
			sleep(10 * time.Second)
			w.is("hibernated")
			w.fake.Before(broken.before)
			if broken.damaged {
				damage(t, dir)
			}
			p := w.acquire("GET /rooms")
			if p.How() != fleet.Started || p.Environment() == id || p.Waited() > broken.within+startTime+50*time.Millisecond {
				t.Errorf("%s: got %s by %s after %v", name, p.Environment(), p.How(), p.Waited())
			}
			synctest.Wait()
			select {
			case <-s.Closing():
				if s.CloseCode() != 1012 {
					t.Errorf("%s: close code %d", name, s.CloseCode())
				}
			default:
				t.Errorf("%s: the stream was not told", name)
			}
			if _, err := s.Hold(t.Context(), "websocket data"); err == nil {
				t.Errorf("%s: the stream may write", name)
			}
			if len(store.List()) > 0 || len(w.fake.Kept()) > 0 {
				t.Errorf("%s: %d snapshots, %d addresses", name, len(store.List()), len(w.fake.Kept()))
			}
			p.Free()
		}, func(c *fleet.Config) { c.Snapshots = store })
	}
}

// A release whose environments never come back is left in memory.
func TestReleaseThatDoesNotWake(t *testing.T) {
	_, disk := onDisk(t, 0)
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app", deep))
		w.fake.Before(failing("restore", sandbox.ErrSnapshot))
		for range 3 {
			w.warm()
			sleep(10 * time.Second)
			if got := w.states(); !strings.HasSuffix(got, "hibernated") {
				t.Errorf("environments are [%s]", got)
			}
		}
		w.warm()
		sleep(time.Minute)
		if got := w.states(); !strings.HasSuffix(got, "paused") {
			t.Errorf("environments are [%s]", got)
		}
	}, disk)
}

// The oldest snapshot goes when another needs the room.
func TestEviction(t *testing.T) {
	const fakeMemory = 16 * lull.MB
	store, disk := onDisk(t, fakeMemory)
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app", deep))
		s, _ := w.stream()
		sleep(10 * time.Second)
		w.is("hibernated")
		draft, err := store.Begin("other-1", fakeMemory)
		if err != nil {
			t.Fatal(err)
		}
		sleep(time.Second)
		if s.CloseCode() != 1012 {
			t.Errorf("close code %d", s.CloseCode())
		}
		s.Close()
		w.is("")
		if err := draft.Discard(); err != nil {
			t.Error(err)
		}
	}, disk)
}

// The node goes, the environments stay.
func TestSuspendAndAdopt(t *testing.T) {
	store, disk := onDisk(t, 0)
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "echo", deep, size(1, 4)))
		up, other := w.acquire("GET /"), w.acquire("GET /")
		other.Free()
		sleep(10 * time.Second)
		w.is("running hibernated")
		go func() {
			bubble.Pass(time.Second)
			up.Free()
		}()
		began := time.Now()
		w.Suspend(5 * time.Second)
		if took := time.Since(began); took < time.Second || took > 2*time.Second {
			t.Errorf("it took %v", took)
		}
		list := store.List()
		if len(list) != 2 || len(w.fake.Sandboxes()) != 0 {
			t.Fatalf("%d snapshots, %d sandboxes", len(list), len(w.fake.Sandboxes()))
		}
		if _, err := w.Acquire(t.Context(), fleet.Want{Why: "GET /"}); lull.KindOf(err) != lull.KindDraining {
			t.Errorf("suspended: %v", err)
		}

		// The next node has a driver that keeps no addresses; here that is the same, which has to be told.
		for _, s := range list {
			w.fake.Release(s.Environment)
		}
		w.Fleet = fleet.New(fleet.Config{App: "chat", Driver: w.fake, Journal: w.journal, Prepare: prepare, Snapshots: store})
		if w.Adopt(list[0]) {
			t.Error("adopted without a release")
		}
		w.Use(release(1, "echo", deep, size(1, 4)))
		for _, s := range list {
			if !w.Adopt(s) {
				t.Errorf("%s was not adopted", s.Environment)
			}
		}
		w.is("hibernated hibernated")
		p := w.acquire("GET /")
		if p.How() != fleet.Woken || p.Environment() != up.Environment() && p.Environment() != other.Environment() {
			t.Errorf("got %s by %s", p.Environment(), p.How())
		}
		p.Free()
	}, disk)
}

// Wakes take turns, in their order.
func TestWakesTakeTurns(t *testing.T) {
	const slow = time.Second
	_, disk := onDisk(t, 0)
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app", deep, size(1, 4)))
		var places []fleet.Place
		for range 4 {
			places = append(places, w.acquire("GET /"))
		}
		for _, p := range places {
			p.Free()
		}
		sleep(10 * time.Second)
		w.is("hibernated hibernated hibernated hibernated")
		w.fake.Before(slowly("restore", slow))
		for range 4 {
			go func() {
				if _, err := w.Acquire(t.Context(), fleet.Want{Why: "GET /"}); err != nil {
					t.Error(err)
				}
			}()
		}
		for _, want := range []int{0, 2, 4} {
			sleep(slow / 2)
			if got := strings.Count(w.states(), "running"); got != want {
				t.Errorf("%d run, want %d", got, want)
			}
			sleep(slow / 2)
		}
	}, disk, func(c *fleet.Config) { c.Wakes = capacity.NewTurns(2) })
}

// An environment that waits for its turn to be written is back at once when it is wanted, however long it has waited; and if
// nobody wants it, it waits as long as it takes.
func TestTurnsToWrite(t *testing.T) {
	_, disk := onDisk(t, 0)
	writes := capacity.NewTurns(1)
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app", deep))
		w.warm()
		done, err := writes.Take(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		sleep(time.Minute)
		w.is("paused")
		p := w.acquire("GET /")
		if p.How() != fleet.Resumed || p.Waited() > 50*time.Millisecond {
			t.Errorf("got by %s after %v", p.How(), p.Waited())
		}
		p.Free()
		sleep(10 * time.Minute)
		w.is("paused")
		done()
		w.is("hibernated")
	}, disk, func(c *fleet.Config) { c.Writes = writes })
}

// A snapshot that was made and could not be kept leaves the environment silenced: an answer to it waits until it runs.
func TestNothingIsWrittenToASilencedEnvironment(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "snapshots")
	store, err := snapshot.Open(dir, 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app", deep, func(m *lull.Manifest) { m.Stream.Tick = 0 }))
		s, id := w.stream()
		defer s.Close()
		mayWrite := func() bool {
			release, ok := s.HoldIfThere()
			if ok {
				release()
			}
			return ok
		}
		w.fake.Before(func(_ context.Context, verb string, _ sandbox.Spec) error {
			if verb == "snapshot" { // where the seal is to be
				return os.Mkdir(filepath.Join(dir, id+".draft", "sealed.json"), 0o700)
			}
			return nil
		})
		sleep(3 * time.Second)
		w.is("paused")
		if !mayWrite() {
			t.Error("nothing may be written to an environment that is paused")
		}
		sleep(time.Minute)
		w.is("paused")
		if !w.journal.noted("could not be put on disk") {
			t.Error("it was put on disk")
		}
		if mayWrite() {
			t.Error("an answer may be written to an environment that hears nothing")
		}
		done, err := s.Hold(t.Context(), "websocket data")
		if err != nil {
			t.Fatal(err)
		}
		defer done()
		if !mayWrite() {
			t.Error("nothing may be written to an environment that runs")
		}
	}, func(c *fleet.Config) { c.Snapshots = store })
}

// A client that takes the app's data late finds the rest of it: the app is brought up to send it.
func TestDataThatIsTakenLate(t *testing.T) {
	_, disk := onDisk(t, 0)
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app", deep, func(m *lull.Manifest) { m.Stream.Tick = 0 }))
		s, _ := w.stream()
		defer s.Close()
		for _, after := range []time.Duration{4 * time.Second, 20 * time.Second} {
			sleep(after)
			s.Moved()
			w.is("running")
			if row := w.Environments()[0]; row.Reason != "data from the app" {
				t.Errorf("it runs because of %q", row.Reason)
			}
		}
	}, disk)
}
