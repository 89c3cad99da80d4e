package sandboxtest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/sandbox"
)

// beside runs harm while another sandbox is asked again and again whether it still answers.
func (s *suite) beside(t *testing.T, harm func()) {
	t.Helper()
	b := s.serve(t)
	line := b.dial(b.port)
	done := make(chan struct{})
	go func() { // ends with harm; the loop below waits for it
		defer close(done)
		harm()
	}()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for {
		asked := time.Now()
		if got := line.ask("echo", "alive").text(t); got != "alive" {
			t.Errorf("the neighbour answers %q", got)
		}
		if took := time.Since(asked); took > 3*time.Second {
			t.Errorf("the neighbour took %v to answer", took)
		}
		select {
		case <-done:
			return
		case <-again.C:
		}
	}
}

func (s *suite) memoryHog(t *testing.T) {
	b := s.serve(t, func(spec *sandbox.Spec) { spec.Limits.Memory = 128 * lull.MB })
	line := b.dial(b.port)
	s.beside(t, func() {
		line.send("hog")
		select {
		case <-b.Done():
		case <-time.After(patience):
		}
	})
	exit := b.ended()
	if exit.Limit != sandbox.LimitMemory {
		t.Errorf("exit is %+v, want the memory limit as its reason", exit)
	}
	if text := exit.Describe(lull.Resources{Memory: 128 * lull.MB}); !strings.Contains(text, "128MB") {
		t.Errorf("described as %q", text)
	}
}

func (s *suite) forkBomb(t *testing.T) {
	b := s.serve(t, func(spec *sandbox.Spec) { spec.Limits.Processes = 64 })
	line := b.dial(b.port)
	s.beside(t, func() {
		line.send("bomb")
		select {
		case <-b.Done(): // allowed, if it says why
			if exit := b.Exit(); exit.Limit == "" {
				t.Errorf("exit is %+v, want a limit as its reason", exit)
			}
		case <-time.After(3 * time.Second):
		}
		b.close()
	})
	b.ended()
}

func (s *suite) processLimit(t *testing.T) {
	limited := make(chan sandbox.Limit, 8)
	b := s.serve(t, func(spec *sandbox.Spec) {
		spec.Limits.Processes, spec.Limited = 32, func(limit sandbox.Limit) { limited <- limit }
	})
	var got struct {
		Started int
		Error   string
	}
	line := b.dial(b.port) // another one would want a thread
	line.ask("fork", "100").into(t, &got)
	if got.Started < 16 || got.Started > 32 || got.Error != "EAGAIN" {
		t.Errorf("of 100 processes it got %+v, want about 30 and EAGAIN", got)
	}
	expectLimit(t, limited, sandbox.LimitProcesses)
	line.send("exit", "1")
	if exit := b.ended(); exit.Limit != sandbox.LimitProcesses {
		t.Errorf("exit is %+v, want the limit of processes as its reason", exit)
	}
}

// expectLimit waits until the node has been told of the limit.
func expectLimit(t *testing.T, limited <-chan sandbox.Limit, want sandbox.Limit) {
	t.Helper()
	select {
	case limit := <-limited:
		if limit != want {
			t.Errorf("was told of the limit of %s, want %s", limit, want)
		}
	case <-time.After(patience):
		t.Errorf("was not told of the limit of %s", want)
	}
}

func (s *suite) diskFiller(t *testing.T) {
	layered := t.TempDir()
	limited := make(chan sandbox.Limit, 64)
	b := s.serve(t, func(spec *sandbox.Spec) {
		spec.Limits.Disk, spec.Limits.Memory = 96*lull.MB, 64*lull.MB
		spec.Limited = func(limit sandbox.Limit) { limited <- limit }
		spec.Mounts = []sandbox.Mount{{Source: layered, Target: "/app", Mode: sandbox.Layered}}
	})
	var total lull.Size
	for _, path := range []string{"/app/file", "/tmp/file"} {
		var got struct {
			Written lull.Size
			Error   string
		}
		b.ask("fill", path, fmt.Sprint(int64(lull.GB))).into(t, &got)
		total += got.Written
		if got.Error != "ENOSPC" {
			t.Errorf("filling %s got %+v, want ENOSPC", path, got)
		}
	}
	expectLimit(t, limited, sandbox.LimitDisk)
	if total < 64*lull.MB || total > 100*lull.MB {
		t.Errorf("wrote %s in all, want nearly 96MB", total)
	}
	if got := b.ask("echo", "alive").text(t); got != "alive" {
		t.Errorf("with a full disk it answers %q", got)
	}
	b.dial(b.port).send("exit", "1")
	if exit := b.ended(); exit.Limit != sandbox.LimitDisk {
		t.Errorf("exit is %+v, want the limit of the disk as its reason", exit)
	}
}

func (s *suite) cpuHog(t *testing.T) {
	b := s.serve(t, func(spec *sandbox.Spec) { spec.Limits.CPU = 0.5 })
	b.ask("spin", "4")
	s.beside(t, func() {
		before, began := b.mustUsage().CPU, time.Now()
		select {
		case <-b.Done():
			t.Errorf("ended: %+v", b.Exit())
			return
		case <-time.After(2 * time.Second):
		}
		share := float64(b.mustUsage().CPU-before) / float64(time.Since(began))
		if share < 0.2 || share > 0.7 {
			t.Errorf("used %.2f processors, want about half of one", share)
		}
	})
}
