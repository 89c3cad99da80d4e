package sandboxtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/sandbox"
)

// damages are what may happen to a file.
var damages = map[string]func(data []byte) []byte{
	"is empty":        func([]byte) []byte { return nil },
	"is cut in half":  func(data []byte) []byte { return data[:len(data)/2] },
	"has a wrong bit": func(data []byte) []byte { data[len(data)/2] ^= 4; return data },
	"is not there":    nil,
}

// Whatever happens to the files, the restore fails, at once, and leaves nothing but what was kept: the snapshot can be
// restored when they are whole again.
func (s *suite) restoreDamaged(t *testing.T) {
	b := s.serve(t)
	line := b.dial(b.port)
	line.ask("keep", "word", "remembered")
	dir := b.sleep()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) == 0 {
		t.Fatalf("the snapshot has no files: %v", err)
	}
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		if info, err := entry.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v (%v), want that others cannot read it", entry.Name(), info.Mode(), err)
		}
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for what, damage := range damages {
			err := os.Remove(path)
			if damage != nil {
				err = os.WriteFile(path, damage(append([]byte(nil), whole...)), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			if sb, err := s.restore(t, b.spec, dir); !errors.Is(err, sandbox.ErrSnapshot) {
				t.Errorf("%s %s: error is %v, want %v", entry.Name(), what, err, sandbox.ErrSnapshot)
				if err == nil {
					sb.Close()
				}
			}
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.wake(t, b, dir)
	if got := line.ask("kept", "word").text(t); got != "remembered" {
		t.Errorf("remembers %q", got)
	}
}

func (s *suite) restoreOtherSpec(t *testing.T) {
	b := s.serve(t)
	dir := b.sleep()
	for what, change := range map[string]func(*sandbox.Spec){
		"args":   func(spec *sandbox.Spec) { spec.Args = append(spec.Args, "more") },
		"env":    func(spec *sandbox.Spec) { spec.Env = append(spec.Env, "MORE=1") },
		"user":   func(spec *sandbox.Spec) { spec.User = "0:0" },
		"limits": func(spec *sandbox.Spec) { spec.Limits.Memory *= 2 },
		"mounts": func(spec *sandbox.Spec) { spec.Mounts = []sandbox.Mount{{Source: "/usr", Target: "/more"}} },
	} {
		spec := b.spec
		spec.Args, spec.Env = append([]string(nil), spec.Args...), append([]string(nil), spec.Env...)
		change(&spec)
		if sb, err := s.restore(t, spec, dir); !errors.Is(err, sandbox.ErrSnapshot) {
			t.Errorf("other %s: error is %v, want %v", what, err, sandbox.ErrSnapshot)
			if err == nil {
				sb.Close()
			}
		}
	}
}

// A snapshot that does not fit on the disk leaves the sandbox as it was.
func (s *suite) snapshotOntoFullDisk(t *testing.T) {
	b := s.serve(t)
	line := b.dial(b.port)
	line.ask("keep", "word", "remembered")
	for _, size := range []string{"64k", "512k", "2m"} {
		small := t.TempDir()
		if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size="+size, "small", small).CombinedOutput(); err != nil {
			t.Fatalf("mount a small disk: %v\n%s", err, out)
		}
		b.mustPause()
		err := b.Snapshot(t.Context(), small)
		if out, err := exec.Command("umount", "-l", small).CombinedOutput(); err != nil {
			t.Errorf("unmount: %v\n%s", err, out)
		}
		if err == nil {
			t.Errorf("a snapshot fits into %s", size)
		}
		if errors.Is(err, sandbox.ErrExited) {
			t.Fatalf("the sandbox has ended: %v", err)
		}
		line.send("echo", "paused")
		line.answersNothing(100 * time.Millisecond)
		b.mustResume()
		if got := line.receive().text(t); got != "paused" {
			t.Errorf("with %s it answers %q", size, got)
		}
	}
	s.wake(t, b, b.sleep())
	if got := line.ask("kept", "word").text(t); got != "remembered" {
		t.Errorf("remembers %q", got)
	}
}

func (s *suite) restoredFiles(t *testing.T) {
	layered := t.TempDir()
	if err := os.WriteFile(filepath.Join(layered, "mine"), []byte("host"), 0o644); err != nil {
		t.Fatal(err)
	}
	b := s.serve(t, func(spec *sandbox.Spec) {
		spec.Mounts = []sandbox.Mount{{Source: layered, Target: "/app", Mode: sandbox.Layered}}
		spec.Dir = "/app"
	})
	paths := []string{"/tmp/file", "/app/file", "/app/mine", "/dev/shm/file"}
	for _, path := range paths {
		b.ask("write", path, "written:"+path)
	}
	b.ask("fill", "/tmp/large", fmt.Sprint(int64(8*lull.MB)))
	for range 2 {
		b = s.wake(t, b, b.sleep())
		for _, path := range paths {
			if got := b.ask("read", path).text(t); got != "written:"+path {
				t.Errorf("%s holds %q", path, got)
			}
		}
		if got := b.ask("read", "/tmp/large").text(t); len(got) != int(8*lull.MB) || strings.Trim(got, "x") != "" {
			t.Errorf("the large file has %d bytes", len(got))
		}
		if got := b.ask("write", "/app/new", "text"); got.Error != "" {
			t.Errorf("writing answers %+v", got)
		}
		if got := b.ask("read", "/usr/lib/os-release"); got.Error != "" {
			t.Errorf("reading a file of the runtime answers %s", got.Error)
		}
	}
}

// restoredLimits checks the limits that are refusals.
func (s *suite) restoredLimits(t *testing.T) {
	limited := make(chan sandbox.Limit, 64)
	b := s.serve(t, func(spec *sandbox.Spec) { spec.Limits.Processes, spec.Limits.Disk = 32, 32*lull.MB })
	dir := b.sleep()
	b.spec.Limited = func(limit sandbox.Limit) { limited <- limit }
	b = s.wake(t, b, dir)
	line := b.dial(b.port)
	var got struct {
		Started int
		Written lull.Size
		Error   string
	}
	line.ask("fill", "/tmp/file", fmt.Sprint(int64(lull.GB))).into(t, &got)
	if got.Error != "ENOSPC" || got.Written > 33*lull.MB {
		t.Errorf("filling the disk got %+v, want ENOSPC", got)
	}
	expectLimit(t, limited, sandbox.LimitDisk)
	line.ask("fork", "100").into(t, &got)
	if got.Started < 16 || got.Started > 32 || got.Error != "EAGAIN" {
		t.Errorf("of 100 processes it got %+v, want about 30 and EAGAIN", got)
	}
	expectLimit(t, limited, sandbox.LimitProcesses)
	line.send("exit", "1")
	if exit := b.ended(); exit.Limit == "" {
		t.Errorf("exit is %+v, want a limit as its reason", exit)
	}
}

func (s *suite) restoredMemoryHog(t *testing.T) {
	b := s.serve(t, func(spec *sandbox.Spec) { spec.Limits.Memory = 128 * lull.MB })
	b = s.wake(t, b, b.sleep())
	line := b.dial(b.port)
	s.beside(t, func() {
		line.send("hog")
		select {
		case <-b.Done():
		case <-time.After(patience):
		}
	})
	if exit := b.ended(); exit.Limit != sandbox.LimitMemory {
		t.Errorf("exit is %+v, want the memory limit as its reason", exit)
	}
}

func (s *suite) restoredCPUHog(t *testing.T) {
	b := s.serve(t, func(spec *sandbox.Spec) { spec.Limits.CPU = 0.5 })
	b = s.wake(t, b, b.sleep())
	b.ask("spin", "4")
	before, began := b.mustUsage().CPU, time.Now()
	select {
	case <-b.Done():
		t.Fatalf("ended: %+v", b.Exit())
	case <-time.After(2 * time.Second):
	}
	share := float64(b.mustUsage().CPU-before) / float64(time.Since(began))
	if share < 0.2 || share > 0.7 {
		t.Errorf("used %.2f processors, want about half of one", share)
	}
}
