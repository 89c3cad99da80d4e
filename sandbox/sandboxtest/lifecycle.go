package sandboxtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/sandbox"
)

func (s *suite) exitCode(t *testing.T) {
	for _, code := range []int{0, 3, 255} {
		got := s.start(t, s.spec("exit", fmt.Sprint(code))).ended()
		if diff := cmp.Diff(sandbox.Exit{Code: code}, got); diff != "" {
			t.Errorf("exit %d: (-want +got)\n%s", code, diff)
		}
	}
}

func (s *suite) endedBySignal(t *testing.T) {
	for number, name := range map[int]string{9: "SIGKILL", 15: "SIGTERM", 6: "SIGABRT"} {
		got := s.start(t, s.spec("die", fmt.Sprint(number))).ended()
		if diff := cmp.Diff(sandbox.Exit{Code: -1, Signal: name}, got); diff != "" {
			t.Errorf("signal %d: (-want +got)\n%s", number, diff)
		}
	}
}

func (s *suite) outputIsWhole(t *testing.T) {
	const size = 1 << 20
	b := s.start(t, s.spec("print", fmt.Sprint(size), "0"))
	b.ended()
	for last, out := range map[string]*sink{"\nlast out\n": b.out, "\nlast err\n": b.err} {
		if want := int64(size + len(last)); out.total() != want || !strings.HasSuffix(out.tail(), last) {
			t.Errorf("got %d bytes, want %d, that end with %q", out.total(), want, last)
		}
	}
}

func (s *suite) outputFlood(t *testing.T) {
	b := s.start(t, s.spec("flood"))
	eventually(t, "16 MB of output", func() (any, bool) { return b.out.total(), b.out.total() > 16<<20 })
	b.close()
	b.ended()
}

func (s *suite) orphan(t *testing.T) {
	if exit := s.start(t, s.spec("orphan")).ended(); exit.Code != 4 {
		t.Errorf("exit is %+v, want code 4", exit)
	}
}

func (s *suite) given(t *testing.T) {
	spec := s.spec("info", "one two", "$HOME", "")
	spec.Env = append(spec.Env, "ODD=a=b c\"d", "EMPTY=")
	spec.Dir = "/usr/lib"
	b := s.start(t, spec)
	b.ended()
	var got given
	if err := json.Unmarshal([]byte(b.out.tail()), &got); err != nil {
		t.Fatalf("decode %q: %v\n%s", b.out.tail(), err, b.err.tail())
	}
	if diff := cmp.Diff([]string{"one two", "$HOME", ""}, got.Args); diff != "" {
		t.Errorf("arguments: (-want +got)\n%s", diff)
	}
	if got.Dir != spec.Dir {
		t.Errorf("runs in %s, want %s", got.Dir, spec.Dir)
	}
	delete(got.Env, "LC_CTYPE") // Python sets it when no locale is given
	want := map[string]string{}
	for _, pair := range spec.Env {
		key, value, _ := strings.Cut(pair, "=")
		want[key] = value
	}
	if diff := cmp.Diff(want, got.Env); diff != "" {
		t.Errorf("environment: (-want +got)\n%s", diff)
	}
}

func (s *suite) missingProgram(t *testing.T) {
	for _, name := range []string{"no-such-program", "/no/such/program"} {
		spec := s.spec("")
		spec.Args = []string{name, "argument"}
		s.refused(t, spec, name)
	}
}

// refused checks that Start fails with an error that names what is wrong, and leaves nothing behind that stands in the
// way of another start.
func (s *suite) refused(t *testing.T, spec sandbox.Spec, names string) {
	t.Helper()
	sb, err := s.driver.Start(t.Context(), spec)
	if err == nil {
		sb.Close()
		t.Fatalf("start did not fail")
	}
	if !strings.Contains(err.Error(), names) {
		t.Errorf("error %q does not mention %s", err, names)
	}
	again := s.spec("exit", "0")
	again.ID = spec.ID
	s.start(t, again).ended()
}

func (s *suite) badSpec(t *testing.T) {
	for name, spoil := range map[string]func(*sandbox.Spec){
		"no id":        func(spec *sandbox.Spec) { spec.ID = "" },
		"id with path": func(spec *sandbox.Spec) { spec.ID = "../x" },
		"long id":      func(spec *sandbox.Spec) { spec.ID = strings.Repeat("x", 64) },
		"no command":   func(spec *sandbox.Spec) { spec.Args = nil },
		"relative dir": func(spec *sandbox.Spec) { spec.Dir = "tmp" },
	} {
		spec := s.spec("exit", "0")
		spoil(&spec)
		if sb, err := s.driver.Start(t.Context(), spec); err == nil {
			sb.Close()
			t.Errorf("%s: start did not fail", name)
		}
	}
}

func (s *suite) sameID(t *testing.T) {
	b := s.serve(t)
	spec := s.spec("exit", "0")
	spec.ID = b.ID()
	if sb, err := s.driver.Start(t.Context(), spec); err == nil {
		sb.Close()
		t.Fatal("a second sandbox with the same id was started")
	}
	if got := b.ask("echo", "alive").text(t); got != "alive" {
		t.Errorf("the first one answers %q", got)
	}
}

// A start that is called off fails, and the id is free again. How far it gets is a matter of luck, so there are several
// attempts, each given a little more time; one that is faster than its deadline counts as well.
func (s *suite) startCalledOff(t *testing.T) {
	spec := s.spec("exit", "0")
	for _, given := range []time.Duration{0, time.Millisecond, 5 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond} {
		ctx, cancel := context.WithTimeout(t.Context(), given)
		sb, err := s.driver.Start(ctx, spec)
		cancel()
		switch {
		case err == nil:
			sb.Close()
		case !errors.Is(err, context.DeadlineExceeded):
			t.Errorf("after %v: error is %v, want a deadline exceeded", given, err)
		}
	}
	s.start(t, spec).ended()
}

func (s *suite) stopAsks(t *testing.T) {
	b := s.serveMode(t, "term", []string{"7"})
	b.Stop(patience)
	if diff := cmp.Diff(sandbox.Exit{Code: 7}, b.ended()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	b.Stop(patience) // again: does nothing
}

func (s *suite) stopInsists(t *testing.T) {
	b := s.serveMode(t, "deaf", nil)
	const grace = 300 * time.Millisecond
	began := time.Now()
	b.Stop(grace)
	select {
	case <-b.Done():
	default:
		t.Error("stop returned before the process had ended")
	}
	if took := time.Since(began); took < grace || took > grace+10*time.Second {
		t.Errorf("stop took %v, want a little more than %v", took, grace)
	}
	if diff := cmp.Diff(sandbox.Exit{Code: -1, Signal: "SIGKILL"}, b.ended()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func (s *suite) stopAtOnce(t *testing.T) {
	b := s.serveMode(t, "term", []string{"7"})
	b.Stop(0)
	if diff := cmp.Diff(sandbox.Exit{Code: -1, Signal: "SIGKILL"}, b.ended()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func (s *suite) stopPaused(t *testing.T) {
	asked := s.serveMode(t, "term", []string{"7"})
	asked.mustPause()
	asked.Stop(patience)
	if exit := asked.ended(); exit.Code != 7 {
		t.Errorf("with grace: exit is %+v, want code 7", exit)
	}
	killed := s.serve(t)
	killed.mustPause()
	killed.Stop(0)
	if exit := killed.ended(); exit.Signal != "SIGKILL" {
		t.Errorf("without grace: exit is %+v, want SIGKILL", exit)
	}
}

func (s *suite) closeTwice(t *testing.T) {
	b := s.serve(t)
	b.close()
	b.ended()
	b.close()
	var all sync.WaitGroup
	other := s.serve(t)
	for range 4 {
		all.Go(other.close)
	}
	all.Wait()
}

func (s *suite) closePaused(t *testing.T) {
	b := s.serve(t)
	b.mustPause()
	b.close()
	b.ended()
}

func (s *suite) afterDeath(t *testing.T) {
	b := s.serve(t)
	line := b.dial(b.port)
	line.send("exit", "5")
	if exit := b.ended(); exit.Code != 5 {
		t.Errorf("exit is %+v, want code 5", exit)
	}
	ctx := t.Context()
	_, listenErr := b.Listeners(ctx)
	_, dialErr := b.Dial(ctx, b.port)
	_, usageErr := b.Usage()
	for verb, err := range map[string]error{
		"pause": b.Pause(ctx), "resume": b.Resume(ctx), "listeners": listenErr, "dial": dialErr, "usage": usageErr,
	} {
		if !errors.Is(err, sandbox.ErrExited) {
			t.Errorf("%s after the end: error is %v, want %v", verb, err, sandbox.ErrExited)
		}
	}
	b.Stop(patience)
}

func (s *suite) eightAtOnce(t *testing.T) {
	boxes := make([]sandbox.Sandbox, 8)
	ports := make([]int, len(boxes))
	var all sync.WaitGroup
	for i := range boxes {
		ports[i] = s.port(t, 8080)
		spec := s.spec("serve", fmt.Sprintf("0.0.0.0:%d", ports[i]))
		spec.Limits.Memory = 128 * lull.MB
		all.Go(func() {
			sb, err := s.driver.Start(t.Context(), spec)
			if err != nil {
				t.Errorf("start %d: %v", i, err)
				return
			}
			boxes[i] = &box{Sandbox: sb, t: t, out: spec.Stdout.(*sink), err: spec.Stderr.(*sink), port: ports[i]}
		})
	}
	all.Wait()
	for i, sb := range boxes {
		if sb == nil {
			continue
		}
		b := sb.(*box)
		t.Cleanup(b.close)
		b.ready()
		if word := fmt.Sprint("hello-", i); b.ask("echo", word).text(t) != word {
			t.Errorf("%s does not answer", b.ID())
		}
	}
}

func (s *suite) driverClose(t *testing.T) {
	other := &suite{driver: s.newDriver(t), can: s.can}
	running, paused := other.serve(t), other.serve(t)
	paused.mustPause()
	if err := other.driver.Close(); err != nil {
		t.Errorf("close driver: %v", err)
	}
	for _, b := range []*box{running, paused} {
		select {
		case <-b.Done():
		default:
			t.Errorf("%s is still there after the driver was closed", b.ID())
		}
	}
	if sb, err := other.driver.Start(t.Context(), s.spec("exit", "0")); err == nil {
		sb.Close()
		t.Error("a closed driver started a sandbox")
	}
}
