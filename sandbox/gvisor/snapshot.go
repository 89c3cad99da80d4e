package gvisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
	_ "unsafe" // for go:linkname

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/control/client"
	"gvisor.dev/gvisor/pkg/sentry/control"
	"gvisor.dev/gvisor/pkg/sentry/state/checkpointfiles"
	"gvisor.dev/gvisor/pkg/state/statefile"
	"gvisor.dev/gvisor/pkg/urpc"
	"gvisor.dev/gvisor/runsc/boot"
	"gvisor.dev/gvisor/runsc/config"

	"github.com/lull-dev/lull/sandbox"
)

// Besides gVisor's three files a snapshot has one of ours. It is written last, so that a snapshot without it is none.
const snapshotFile = "snapshot.json"

// snapshotFiles are gVisor's, in the order in which it takes them.
var snapshotFiles = []string{checkpointfiles.StateFileName, checkpointfiles.PagesMetadataFileName, checkpointfiles.PagesFileName}

// snapshot is what is to be known about one before it is restored.
type snapshot struct {
	Maker maker              `json:"maker"`
	Spec  string             `json:"spec"` // its digest
	Files map[string]content `json:"files"`
	Wider []widened          `json:"wider"`

	dir string
}

// content is what a file held when it was written. gVisor itself notices some kinds of damage, by a panic, and others
// not at all: a wrong byte in the app's memory.
type content struct {
	Size int64  `json:"size"`
	Sum  uint32 `json:"sum"` // CRC-32C, which processors compute faster than they read memory
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Snapshot writes the sandbox, which must be paused, to dir. Once gVisor is at it, it cannot be called off: see command.
func (b *box) Snapshot(ctx context.Context, dir string) error {
	b.verbs.Lock()
	defer b.verbs.Unlock()
	if b.ended() {
		return sandbox.ErrExited
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if !b.paused {
		return fmt.Errorf("snapshot sandbox %s: it is not paused", b.spec.ID)
	}
	// The network goes on while the app is paused: what came after the snapshot would be acknowledged, and lost.
	err := b.link.Silence()
	if err == nil {
		err = b.save(ctx, dir)
	}
	if err == nil && ctx.Err() == nil {
		b.saved = true
		b.driver.spares.want()
		return nil
	}
	b.saved = false
	if err := b.link.Unsilence(); err != nil {
		b.driver.log.Error("a sandbox's network stays silent", "sandbox", b.spec.ID, "error", err)
	}
	if err != nil {
		return b.failed("snapshot", err, dyingMoment)
	}
	return ctx.Err()
}

func (b *box) save(ctx context.Context, dir string) error {
	s := snapshot{Spec: digest(b.spec), dir: dir}
	var err error
	if s.Maker, err = thisMaker(); err != nil {
		return err
	}
	wider, err := b.line.ask(ctx, askWider)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(wider), &s.Wider); err != nil {
		return fmt.Errorf("read what the sentry says of its listeners: %w", err)
	}
	if err := b.checkpoint(ctx, dir); err != nil {
		return err
	}
	if s.Files, err = readContents(dir); err != nil {
		return err
	}
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, snapshotFile), data, 0o600)
}

// checkpoint has gVisor write its files. The kernel stays as it is, paused: what gVisor calls "resume" takes back its own
// pause only, which is one more.
func (b *box) checkpoint(ctx context.Context, dir string) error {
	options := control.SaveOpts{Metadata: statefile.CompressionLevelNone.ToMetadata(), HavePagesFile: true, Resume: true}
	defer func() {
		for _, file := range options.Files {
			_ = file.Close()
		}
	}()
	for _, name := range snapshotFiles {
		file, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
		if err != nil {
			return err
		}
		options.Files = append(options.Files, file)
	}
	conn, err := b.connect()
	if err != nil {
		return err
	}
	defer conn.Close()
	return b.command(ctx, func() error { return conn.Call(boot.ContMgrCheckpoint, &options, nil) })
}

// connect connects to gVisor's control socket. It goes by way of a descriptor, as the path may be longer than a socket's
// address can be.
func (b *box) connect() (*urpc.Client, error) {
	fd, err := unix.Open(b.sentry.ControlSocketPath, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return client.ConnectTo(fmt.Sprintf("/proc/self/fd/%d", fd))
}

// readContents reads all of gVisor's files in dir.
func readContents(dir string) (map[string]content, error) {
	contents := make([]content, len(snapshotFiles))
	var all errgroup.Group
	for i, name := range snapshotFiles {
		all.Go(func() (err error) {
			contents[i], err = readContent(filepath.Join(dir, name))
			return err
		})
	}
	if err := all.Wait(); err != nil {
		return nil, err
	}
	found := map[string]content{}
	for i, name := range snapshotFiles {
		found[name] = contents[i]
	}
	return found, nil
}

func readContent(path string) (content, error) {
	file, err := os.Open(path)
	if err != nil {
		return content{}, err
	}
	defer file.Close()
	sum := crc32.New(castagnoli)
	// The reader is hidden so that copying uses the buffer.
	size, err := io.CopyBuffer(struct{ io.Writer }{sum}, struct{ io.Reader }{file}, make([]byte, 1<<20))
	return content{size, sum.Sum32()}, err
}

// openSnapshot reads what there is to know about the snapshot in dir, and whether it is for this spec and this machine.
// Whether its files are whole is for check to say, which takes longer.
func openSnapshot(spec sandbox.Spec, dir string) (*snapshot, error) {
	data, err := os.ReadFile(filepath.Join(dir, snapshotFile))
	if err != nil {
		return nil, errors.Join(sandbox.ErrSnapshot, err)
	}
	s := &snapshot{dir: dir}
	if err := json.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf("%w: read %s: %w", sandbox.ErrSnapshot, snapshotFile, err)
	}
	here, err := thisMaker()
	if err != nil {
		return nil, err
	}
	if err := s.Maker.mustBe(here); err != nil {
		return nil, fmt.Errorf("%w: %w", sandbox.ErrSnapshot, err)
	}
	if s.Spec != digest(spec) {
		return nil, fmt.Errorf("%w: it is of another spec", sandbox.ErrSnapshot)
	}
	for _, name := range snapshotFiles {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", sandbox.ErrSnapshot, err)
		}
		if want := s.Files[name].Size; info.Size() != want {
			return nil, fmt.Errorf("%w: %s has %d bytes, not %d", sandbox.ErrSnapshot, name, info.Size(), want)
		}
	}
	return s, nil
}

// check reads all of the files.
func (s *snapshot) check() error {
	found, err := readContents(s.dir)
	if err != nil {
		return err
	}
	for name, content := range found {
		if content != s.Files[name] {
			return fmt.Errorf("%w: %s is damaged", sandbox.ErrSnapshot, name)
		}
	}
	return nil
}

func firstLine(err error) error {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return errors.New(strings.TrimRight(line, ": "))
}

// restoreLimit bounds a restore that nobody else has put a limit to. gVisor reads 1 GB in a second or two.
const restoreLimit = 2 * time.Minute

// revive makes the created sandbox go on from a snapshot. check is the result of the snapshot's check.
func (b *box) revive(ctx context.Context, s *snapshot, check <-chan error) error {
	if err := <-check; err != nil {
		return err
	}
	if err := b.load(s.dir); err != nil {
		return b.explain(firstLine(err)) // what follows is the sentry's stack
	}
	if err := b.cgroup.limitCPU(); err != nil {
		return err
	}
	if b.kept {
		return b.link.Unsilence()
	}
	_, err := b.line.ask(ctx, askCut)
	return err
}

// load has gVisor read its files. It is what gVisor's own Restore comes to, with the network namespace of the link rather
// than the one the sentry is in, which in a spare is an empty one.
func (b *box) load(dir string) error {
	conn, err := b.connect()
	if err != nil {
		return err
	}
	defer conn.Close()
	const disableIPv6, isRestore = false, true
	if err := connectNetwork(conn, b.link.Namespace(), b.conf, disableIPv6, isRestore); err != nil {
		return err
	}
	// Reading memory in the background brought nothing at 200 MB, and at 6 MB there is nothing to gain.
	options := boot.RestoreOpts{HavePagesFile: true}
	defer func() {
		for _, file := range options.Files {
			_ = file.Close()
		}
	}()
	for _, name := range snapshotFiles {
		file, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		options.Files = append(options.Files, file)
	}
	return conn.Call(boot.ContMgrRestore, &options, nil)
}

// connectNetwork hands the interface in a network namespace over to a sentry.
//
//go:linkname connectNetwork gvisor.dev/gvisor/runsc/sandbox.createInterfacesAndRoutesFromNS
func connectNetwork(conn *urpc.Client, namespace string, conf *config.Config, disableIPv6, isRestore bool) error
