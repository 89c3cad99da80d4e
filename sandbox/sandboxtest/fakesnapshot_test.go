package sandboxtest_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lull-dev/lull/internal/bubble"
	"github.com/lull-dev/lull/sandbox"
	"github.com/lull-dev/lull/sandbox/sandboxtest"
)

// echo answers every byte with the same.
func echo(p *sandboxtest.Process) int {
	l, _ := p.Listen("127.0.0.1:7")
	for {
		conn, err := l.Accept()
		if err != nil {
			return 0
		}
		go func() { // ends with the connection
			io.Copy(conn, conn)
			conn.Close()
		}()
	}
}

var echoSpec = sandbox.Spec{ID: "one", Args: []string{"echo"}, Dir: "/"}

// sleeper is a vacated sandbox, and what is left of it.
type sleeper struct {
	fake *sandboxtest.Fake
	old  sandbox.Sandbox
	conn net.Conn // made before
	dir  string
}

func putToSleep(t *testing.T) sleeper {
	t.Helper()
	fake := sandboxtest.NewFake(map[string]sandboxtest.Program{"echo": echo})
	t.Cleanup(func() { fake.Close() })
	s, err := fake.Start(t.Context(), echoSpec)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	conn, err := s.Dial(t.Context(), 7)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	dir := t.TempDir()
	if err := errors.Join(s.Pause(t.Context()), s.Snapshot(t.Context(), dir), s.Vacate()); err != nil {
		t.Fatal(err)
	}
	return sleeper{fake, s, conn, dir}
}

func answers(conn net.Conn) error {
	if _, err := conn.Write([]byte("x")); err != nil {
		return err
	}
	_, err := conn.Read(make([]byte, 1))
	return err
}

func TestFakeSleepsAndWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := putToSleep(t)
		select {
		case <-s.old.Done():
		default:
			t.Error("a vacated sandbox is not done")
		}
		if err := s.old.Close(); err != nil || len(s.fake.Sandboxes()) > 0 || len(s.fake.Kept()) != 1 {
			t.Errorf("close: %v; there are %v, kept %v", err, s.fake.Sandboxes(), s.fake.Kept())
		}
		bubble.Pass(time.Hour)
		restored, err := s.fake.Restore(t.Context(), echoSpec, s.dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := answers(s.conn); err != nil {
			t.Errorf("the connection after the restore: %v", err)
		}
		_ = s.old.Close() // does not concern the new one
		if list, err := restored.Listeners(t.Context()); err != nil || len(list) != 1 {
			t.Errorf("listeners are %v, %v", list, err)
		}
		if s.fake.Trespasses() != 0 || s.fake.Restores() != 1 || len(s.fake.Kept()) != 0 {
			t.Errorf("%d trespasses, %d restores, kept %v", s.fake.Trespasses(), s.fake.Restores(), s.fake.Kept())
		}
		if _, err := s.fake.Restore(t.Context(), echoSpec, s.dir); !errors.Is(err, sandbox.ErrSnapshot) || s.fake.Trespasses() != 1 {
			t.Errorf("restored twice: %v, %d trespasses", err, s.fake.Trespasses())
		}
	})
}

func TestFakeForgetsReleasedConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := putToSleep(t)
		s.fake.Release("one")
		restored, err := s.fake.Restore(t.Context(), echoSpec, s.dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := answers(s.conn); err == nil {
			t.Error("a connection has outlived its address")
		}
		conn, err := restored.Dial(t.Context(), 7)
		if err != nil {
			t.Fatal(err)
		}
		if err := answers(conn); err != nil {
			t.Errorf("a new connection: %v", err)
		}
	})
}

func TestFakeSeesWhoWritesToADisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := putToSleep(t)
		s.conn.Write([]byte("x"))
		if s.fake.Trespasses() != 1 {
			t.Errorf("%d trespasses, want one", s.fake.Trespasses())
		}
		if _, err := s.old.Dial(t.Context(), 7); !errors.Is(err, sandbox.ErrExited) {
			t.Errorf("dialled: %v", err)
		}
	})
}

func TestFakeSnapshotsThatDoNotCount(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, s sleeper){
		"removed": func(t *testing.T, s sleeper) { os.Remove(filepath.Join(s.dir, "fake")) },
		"changed": func(t *testing.T, s sleeper) { os.WriteFile(filepath.Join(s.dir, "fake"), []byte("one x"), 0o600) },
		"resumed": func(t *testing.T, s sleeper) {
			awake, err := s.fake.Restore(t.Context(), echoSpec, s.dir)
			if err != nil {
				t.Fatal(err)
			}
			old := t.TempDir()
			if err := errors.Join(awake.Pause(t.Context()), awake.Snapshot(t.Context(), old), awake.Resume(t.Context())); err != nil {
				t.Fatal(err)
			}
			if err := awake.Vacate(); err == nil {
				t.Error("a sandbox without a snapshot was vacated")
			}
			if err := errors.Join(awake.Pause(t.Context()), awake.Snapshot(t.Context(), t.TempDir()), awake.Vacate()); err != nil {
				t.Fatal(err)
			}
			data, _ := os.ReadFile(filepath.Join(old, "fake"))
			os.WriteFile(filepath.Join(s.dir, "fake"), data, 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := putToSleep(t)
				spoil(t, s)
				if _, err := s.fake.Restore(t.Context(), echoSpec, s.dir); !errors.Is(err, sandbox.ErrSnapshot) {
					t.Errorf("error is %v", err)
				}
			})
		})
	}
}

// A hook delays a restore and makes it fail; what was kept stays.
func TestFakeRestoreIsCalledOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := putToSleep(t)
		s.fake.Before(func(ctx context.Context, verb string, _ sandbox.Spec) error {
			<-ctx.Done()
			return ctx.Err()
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.fake.Restore(ctx, echoSpec, s.dir); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error is %v", err)
		}
		s.fake.Before(nil)
		if _, err := s.fake.Restore(t.Context(), echoSpec, s.dir); err != nil {
			t.Errorf("afterwards: %v", err)
		}
		if err := answers(s.conn); err != nil {
			t.Errorf("the connection: %v", err)
		}
	})
}
