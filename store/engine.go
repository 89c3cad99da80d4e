package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/lull-dev/lull"
)

const (
	// formatFile marks a directory whose buckets have been made. Its content is the number of the layout.
	formatFile = "format"
	format     = "2\n" // 1 had no streams of events and marks
	lockFile   = "lock"

	// maxPayload holds a chunk of an archive and its header with room to spare; JetStream's default is exactly one chunk.
	maxPayload = 4 << 20
	// minFree is what stays free on the disk. A JetStream that runs into a full disk switches itself off until the next
	// start, and with it everything else on the node; a deploy that is refused is better.
	minFree = 64 << 20
)

// engine is a NATS server with JetStream inside this process, without a port, and the one connection to it.
type engine struct {
	dir    string
	lock   *os.File
	server *server.Server
	conn   *nats.Conn
	stop   func() error // shutdown, once
}

// startEngine takes the directory for this process and starts the server in it.
func startEngine(dir string, log *slog.Logger) (*engine, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	e := &engine{dir: dir, lock: lock}
	e.stop = sync.OnceValue(e.shutdown)
	if err := e.start(log); err != nil {
		return nil, errors.Join(err, e.stop())
	}
	return e, nil
}

func (e *engine) start(log *slog.Logger) (err error) {
	e.server, err = server.NewServer(&server.Options{
		ServerName: "lull", DontListen: true, NoSigs: true, NoLog: true,
		JetStream: true, StoreDir: e.dir, SyncAlways: true, DisableJetStreamBanner: true,
		JetStreamMaxMemory: 1 << 20, // there are no streams in memory
		MaxPayload:         maxPayload,
	})
	if err != nil {
		return fmt.Errorf("set up server: %w", err)
	}
	sink := &serverLog{log: log}
	e.server.SetLoggerV2(sink, false, false, false)
	e.server.Start() // returns when it has started, or could not
	if message := sink.fatal.Load(); message != nil {
		return e.damaged("everything", errors.New(*message))
	}
	if e.conn, err = nats.Connect("", nats.InProcessServer(e.server), nats.Name("lull"), nats.NoReconnect()); err != nil {
		return fmt.Errorf("connect to server: %w", err)
	}
	return nil
}

// lockDir takes the directory for this process. The kernel gives the lock back when the process ends, however it ends.
func lockDir(dir string) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		// Only for the message below: nothing depends on it.
		_ = file.Truncate(0)
		_, _ = fmt.Fprintf(file, "%d\n", os.Getpid())
		return file, nil
	}
	defer file.Close()
	if !errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	var owner int
	holder := "another process"
	if n, _ := fmt.Fscan(file, &owner); n == 1 {
		holder = fmt.Sprintf("process %d", owner)
	}
	return nil, &lull.Error{
		Kind: lull.KindConflict, Err: err,
		Message: fmt.Sprintf("%s is in use by %s", dir, holder),
		Hint:    "one node at a time can use a data directory: stop the other one, or choose another with --data",
	}
}

// fresh reports whether the directory has never been completely set up.
func (e *engine) fresh() bool {
	_, err := os.Stat(filepath.Join(e.dir, formatFile))
	return errors.Is(err, fs.ErrNotExist)
}

// old reports whether the directory was set up by a version that did not have all of today's buckets.
func (e *engine) old() bool {
	content, err := os.ReadFile(filepath.Join(e.dir, formatFile))
	return err == nil && string(content) == "1\n"
}

// mark notes, durably, that the buckets have been made.
func (e *engine) mark() error {
	file, err := os.OpenFile(filepath.Join(e.dir, formatFile), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("mark directory: %w", err)
	}
	_, err = file.WriteString(format)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("mark directory: %w", err)
	}
	dir, err := os.Open(e.dir)
	if err != nil {
		return fmt.Errorf("mark directory: %w", err)
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// damaged says that the directory holds something that cannot be read back.
func (e *engine) damaged(what string, err error) error {
	return &lull.Error{
		Kind: lull.KindInternal, Err: err,
		Message: fmt.Sprintf("the state in %s is damaged (%s): %v", e.dir, what, err),
		Hint:    "keep a copy of it as it is; then put a backup in its place, or move it away to start empty",
	}
}

// room reports an error if the disk is so full that a write may not fit.
func (e *engine) room() error {
	var disk syscall.Statfs_t
	if err := syscall.Statfs(e.dir, &disk); err != nil {
		return fmt.Errorf("look at free space: %w", err)
	}
	if free := disk.Bavail * uint64(disk.Bsize); free < minFree {
		return &lull.Error{
			Kind:    lull.KindTooLarge,
			Message: fmt.Sprintf("the disk of %s has %s left: it takes %s to go on", e.dir, lull.Size(free), lull.Size(minFree)),
			Hint:    "free some space there",
		}
	}
	return nil
}

// shutdown ends the connection, the server and the lock, in this order, and waits for them.
func (e *engine) shutdown() error {
	if e.conn != nil {
		e.conn.Close()
	}
	if e.server != nil {
		e.server.Shutdown()
		e.server.WaitForShutdown()
	}
	return e.lock.Close()
}

// serverLog is where the server's own log goes: what it says about itself is for us (Debug), what worries it for the
// operator.
type serverLog struct {
	log   *slog.Logger
	fatal atomic.Pointer[string] // why it did not start: the server does not return it
}

func (l *serverLog) write(level slog.Level, text string, args []any) {
	l.log.Log(context.Background(), level, "store server", "says", strings.TrimSpace(fmt.Sprintf(text, args...)))
}

func (l *serverLog) Noticef(text string, args ...any) { l.write(slog.LevelDebug, text, args) }
func (l *serverLog) Debugf(text string, args ...any)  { l.write(slog.LevelDebug, text, args) }
func (l *serverLog) Tracef(text string, args ...any)  { l.write(slog.LevelDebug, text, args) }
func (l *serverLog) Warnf(text string, args ...any)   { l.write(slog.LevelWarn, text, args) }
func (l *serverLog) Errorf(text string, args ...any)  { l.write(slog.LevelWarn, text, args) }

// Fatalf must not end the process: the server returns from Start after it.
func (l *serverLog) Fatalf(text string, args ...any) {
	message := fmt.Sprintf(text, args...)
	l.fatal.Store(&message)
	l.write(slog.LevelError, text, args)
}
