package build

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/sandbox"
)

// hostDriver runs a build's steps as plain processes, in the directories themselves. It is enough to see what a build
// does; that it does so in isolation is for the drivers' own suite to show.
type hostDriver struct {
	started atomic.Int32
	running atomic.Int32
}

func (d *hostDriver) Name() string                       { return "host" }
func (d *hostDriver) Capabilities() sandbox.Capabilities { return sandbox.Capabilities{Images: true} }
func (d *hostDriver) Close() error                       { return nil }
func (d *hostDriver) Release(string)                     {}

func (d *hostDriver) Restore(context.Context, sandbox.Spec, string) (sandbox.Sandbox, error) {
	return nil, sandbox.ErrUnsupported
}

func (d *hostDriver) Start(_ context.Context, spec sandbox.Spec) (sandbox.Sandbox, error) {
	if err := sandbox.CheckSpec(spec); err != nil {
		return nil, err
	}
	for _, mount := range spec.Mounts {
		if mount.Source != mount.Target || mount.Mode != sandbox.ReadWrite {
			return nil, errors.New("a driver without isolation cannot mount " + mount.Source)
		}
	}
	program, err := lookPath(spec)
	if err != nil {
		return nil, err
	}
	b := &hostBox{spec: spec, done: make(chan struct{}), driver: d, cmd: &exec.Cmd{Path: program, Args: spec.Args, Env: spec.Env, Dir: spec.Dir,
		Stdout: spec.Stdout, Stderr: spec.Stderr, SysProcAttr: &syscall.SysProcAttr{Setpgid: true}, WaitDelay: time.Second}}
	if err := b.cmd.Start(); err != nil {
		return nil, err
	}
	d.started.Add(1)
	d.running.Add(1)
	// Started here, ends with the process, waited for through done.
	go func() {
		defer close(b.done)
		_ = b.cmd.Wait()
	}()
	return b, nil
}

func lookPath(spec sandbox.Spec) (string, error) {
	if strings.Contains(spec.Args[0], "/") {
		return filepath.Join(spec.Dir, spec.Args[0]), nil
	}
	for _, entry := range spec.Env {
		path, ok := strings.CutPrefix(entry, "PATH=")
		for dir := range strings.SplitSeq(path, ":") {
			full := filepath.Join(dir, spec.Args[0])
			if info, err := os.Stat(full); ok && err == nil && info.Mode()&0o111 != 0 {
				return full, nil
			}
		}
	}
	return "", errors.New(spec.Args[0] + " not found in PATH")
}

type hostBox struct {
	spec   sandbox.Spec
	cmd    *exec.Cmd
	done   chan struct{}
	driver *hostDriver
}

func (b *hostBox) ID() string { return b.spec.ID }
func (b *hostBox) Listeners(context.Context) ([]sandbox.Listener, error) {
	return nil, sandbox.ErrUnsupported
}
func (b *hostBox) Dial(context.Context, int) (net.Conn, error) { return nil, sandbox.ErrUnsupported }
func (b *hostBox) Pause(context.Context) error                 { return sandbox.ErrUnsupported }
func (b *hostBox) Resume(context.Context) error                { return sandbox.ErrUnsupported }
func (b *hostBox) Snapshot(context.Context, string) error      { return sandbox.ErrUnsupported }
func (b *hostBox) Vacate() error                               { return sandbox.ErrUnsupported }
func (b *hostBox) Unread(context.Context) (int, error)         { return 0, sandbox.ErrUnsupported }
func (b *hostBox) Usage() (sandbox.Usage, error)               { return sandbox.Usage{}, sandbox.ErrUnsupported }
func (b *hostBox) Done() <-chan struct{}                       { return b.done }

func (b *hostBox) Exit() sandbox.Exit {
	status := b.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return sandbox.Exit{Code: -1, Signal: status.Signal().String()}
	}
	return sandbox.Exit{Code: status.ExitStatus()}
}

func (b *hostBox) Stop(time.Duration) {
	_ = syscall.Kill(-b.cmd.Process.Pid, syscall.SIGKILL)
	<-b.done
}

func (b *hostBox) Close() error {
	b.Stop(0)
	b.driver.running.Add(-1)
	return nil
}

// bench is a builder with its directory and driver.
type bench struct {
	*Builder
	driver *hostDriver
	dir    string
}

// newBench makes a builder. Without a sandbox its steps share /tmp with the machine, so they get a home of their own.
func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{driver: &hostDriver{}, dir: t.TempDir()}
	b.Builder = New(Config{Driver: b.driver, Dir: b.dir, Env: []string{"HOME=" + t.TempDir()}})
	t.Cleanup(func() {
		if n := b.driver.running.Load(); n != 0 {
			t.Errorf("%d sandboxes are left", n)
		}
		// Module caches of other builds are read-only.
		_ = exec.Command("chmod", "-R", "u+w", b.dir).Run()
	})
	return b
}

// app writes an app's files; those that begin with "#!" are made executable.
func app(t *testing.T, files map[string]string) Source {
	t.Helper()
	dir := t.TempDir()
	for name, body := range files {
		full := filepath.Join(dir, name)
		check(t, os.MkdirAll(filepath.Dir(full), 0o755))
		mode := os.FileMode(0o644)
		if strings.HasPrefix(body, "#!") || strings.HasPrefix(body, "\x7fELF") {
			mode = 0o755
		}
		check(t, os.WriteFile(full, []byte(body), mode))
	}
	return Source{App: "app", Dir: dir, Manifest: lull.DefaultManifest()}
}

// start runs what was built, as an environment would, and returns what it prints.
func start(t *testing.T, result Result) string {
	t.Helper()
	var env []string
	for _, entry := range append(result.Process.Env, "PORT=8080") {
		env = append(env, strings.ReplaceAll(entry, lull.AppDir, result.Root))
	}
	spec := sandbox.Spec{Args: result.Process.Args, Env: env, Dir: result.Root}
	program, err := lookPath(spec)
	check(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, spec.Args[1:]...)
	cmd.Env, cmd.Dir = env, result.Root
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("start %q: %v", result.Process.Args, err)
	}
	return string(out)
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
