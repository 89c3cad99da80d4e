package sandboxtest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lull-dev/lull/sandbox"
)

// sleep puts the sandbox on disk and returns where.
func (b *box) sleep() (dir string) {
	b.t.Helper()
	b.mustPause()
	dir = b.mustSnapshot()
	if err := b.Vacate(); err != nil {
		b.t.Fatalf("vacate: %v", err)
	}
	return dir
}

func (b *box) mustSnapshot() (dir string) {
	b.t.Helper()
	dir = b.t.TempDir()
	if err := b.Snapshot(b.t.Context(), dir); err != nil {
		b.t.Fatalf("snapshot: %v", err)
	}
	return dir
}

// restore makes a sandbox of a snapshot, whose output is apart from that of the one before.
func (s *suite) restore(t *testing.T, spec sandbox.Spec, dir string) (sandbox.Sandbox, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return s.driver.Restore(ctx, spec, dir)
}

// wake restores b from dir.
func (s *suite) wake(t *testing.T, b *box, dir string) *box {
	t.Helper()
	out, err := &sink{}, &sink{}
	spec := b.spec
	spec.Stdout, spec.Stderr = out, err
	sb, failed := s.restore(t, spec, dir)
	if failed != nil {
		t.Fatalf("restore: %v", failed)
	}
	again := &box{Sandbox: sb, t: t, out: out, err: err, port: b.port, spec: spec}
	t.Cleanup(again.close)
	return again
}

// isDone checks that there is nothing left of a sandbox that was vacated or closed.
func (b *box) isDone() {
	b.t.Helper()
	select {
	case <-b.Done():
	default:
		b.t.Errorf("%s is still there", b.ID())
	}
}

func (s *suite) snapshotRefused(t *testing.T) {
	b := s.serve(t)
	b.mustPause()
	_, restored := s.driver.Restore(t.Context(), b.spec, t.TempDir())
	for verb, err := range map[string]error{
		"snapshot": b.Snapshot(t.Context(), t.TempDir()), "vacate": b.Vacate(), "restore": restored,
	} {
		if !errors.Is(err, sandbox.ErrUnsupported) {
			t.Errorf("%s: error is %v, want %v", verb, err, sandbox.ErrUnsupported)
		}
	}
}

// clocks are what the program sees as the time of day and the time since some start, in seconds.
func (l *line) clocks() (now [2]float64) {
	l.t.Helper()
	l.ask("clocks").into(l.t, &now)
	return now
}

// The process goes on where it was: memory, timers, connections, clocks.
func (s *suite) hibernate(t *testing.T) {
	b := s.serve(t)
	line := b.dial(b.port)
	line.ask("keep", "word", "remembered")
	ticks, before := line.ask("ticks").number(t), line.clocks()
	began := time.Now()
	dir := b.sleep()
	b.isDone()
	line.answersNothing(500 * time.Millisecond)
	b = s.wake(t, b, dir)
	if got := line.ask("kept", "word").text(t); got != "remembered" {
		t.Errorf("remembers %q", got)
	}
	after, passed := line.clocks(), time.Since(began).Seconds()
	for i, name := range []string{"time of day", "monotonic clock"} {
		if went := after[i] - before[i]; went < passed-0.5 || went > passed+2 {
			t.Errorf("the %s went on by %.2fs in %.2fs", name, went, passed)
		}
	}
	again := line.ask("ticks").number(t)
	if again < ticks {
		t.Errorf("counted to %d, and then to %d", ticks, again)
	}
	eventually(t, "the timer goes on", func() (any, bool) {
		now := line.ask("ticks").number(t)
		return now, now >= again+10
	})
	if got := b.ask("echo", "new").text(t); got != "new" {
		t.Errorf("a new connection answers %q", got)
	}
	b.mustPause()
	line.send("echo", "paused")
	line.answersNothing(100 * time.Millisecond)
	b.mustResume()
	if got := line.receive().text(t); got != "paused" {
		t.Errorf("after pause and resume it answers %q", got)
	}
}

func (s *suite) hibernateConnections(t *testing.T) {
	b := s.serve(t)
	lines := make([]*line, 200)
	for i := range lines {
		lines[i] = b.dial(b.port)
		lines[i].ask("echo", "before")
	}
	dir := b.sleep()
	b = s.wake(t, b, dir)
	for i, line := range lines {
		line.send("echo", fmt.Sprint(i))
	}
	for i, line := range lines {
		if got := line.receive().text(t); got != fmt.Sprint(i) {
			t.Fatalf("connection %d answers %q", i, got)
		}
	}
	if n := b.ask("talking").number(t); n != len(lines)+1 {
		t.Errorf("the program talks on %d connections, want %d", n, len(lines)+1)
	}
}

// A restored sandbox is like any other: it can be put on disk again.
func (s *suite) hibernateAgain(t *testing.T) {
	b := s.serve(t)
	line := b.dial(b.port)
	for round := range 5 {
		line.ask("keep", fmt.Sprint(round), fmt.Sprint("word-", round))
		dir := b.sleep()
		b = s.wake(t, b, dir)
		for earlier := range round + 1 {
			if got := line.ask("kept", fmt.Sprint(earlier)).text(t); got != fmt.Sprint("word-", earlier) {
				t.Errorf("round %d: remembers %q of round %d", round, got, earlier)
			}
		}
		if got := b.ask("echo", "new").text(t); got != "new" {
			t.Errorf("round %d: a new connection answers %q", round, got)
		}
	}
}

// A program whose timer runs a hundred times a second does not keep the snapshot from being taken, nor is it stopped by it.
func (s *suite) hibernateUsesNothing(t *testing.T) {
	b := s.serve(t)
	dir := b.sleep()
	if _, err := b.Usage(); !errors.Is(err, sandbox.ErrExited) {
		t.Errorf("usage of a vacated sandbox: %v", err)
	}
	b = s.wake(t, b, dir)
	if usage := b.mustUsage(); usage.Memory <= 0 || usage.CPU <= 0 {
		t.Errorf("usage is %+v, want some memory and CPU", usage)
	}
}

func (s *suite) restoredListeners(t *testing.T) {
	var want []string
	for i, host := range []string{"[::1]", "[::]", "127.0.0.1", "0.0.0.0"} {
		want = append(want, fmt.Sprintf("%s:%d", host, s.port(t, 9000+i)))
	}
	b := s.start(t, s.spec("serve", want...))
	b.ready()
	for range 2 {
		b = s.wake(t, b, b.sleep())
		listeners, err := b.Listeners(t.Context())
		if err != nil {
			t.Fatalf("listeners: %v", err)
		}
		var got []string
		for _, l := range listeners {
			got = append(got, l.Addr.String())
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
		for _, addr := range want {
			if got := b.dial(portOf(addr)).ask("echo", "hello").text(t); got != "hello" {
				t.Errorf("%s answers %q", addr, got)
			}
		}
	}
}

// A snapshot that is called off by a resume does no harm.
func (s *suite) resumeAfterSnapshot(t *testing.T) {
	b := s.serve(t)
	line := b.dial(b.port)
	for i := range 3 {
		b.mustPause()
		b.mustSnapshot()
		line.send("echo", fmt.Sprint(i))
		line.answersNothing(200 * time.Millisecond) // it is still paused
		b.mustResume()
		if got := line.receive().text(t); got != fmt.Sprint(i) {
			t.Errorf("answers %q after the resume", got)
		}
		if got := b.ask("echo", "new").text(t); got != "new" {
			t.Errorf("a new connection answers %q", got)
		}
	}
	b.mustPause()
	if err := b.Vacate(); err == nil {
		t.Error("vacated without a snapshot of this moment")
	}
	dir := b.mustSnapshot()
	if err := b.Vacate(); err != nil {
		t.Fatalf("vacate: %v", err)
	}
	s.wake(t, b, dir)
	if got := line.ask("echo", "restored").text(t); got != "restored" {
		t.Errorf("answers %q after the restore", got)
	}
}

func (s *suite) snapshotOutOfTurn(t *testing.T) {
	b := s.serve(t)
	if err := b.Snapshot(t.Context(), t.TempDir()); err == nil {
		t.Error("a running sandbox was snapshotted")
	}
	if err := b.Vacate(); err == nil {
		t.Error("a sandbox without a snapshot was vacated")
	}
	if got := b.ask("echo", "alive").text(t); got != "alive" {
		t.Errorf("answers %q", got)
	}
	b.dial(b.port).send("exit", "5")
	b.ended()
	for verb, err := range map[string]error{"snapshot": b.Snapshot(t.Context(), t.TempDir()), "vacate": b.Vacate()} {
		if !errors.Is(err, sandbox.ErrExited) {
			t.Errorf("%s after the end: error is %v, want %v", verb, err, sandbox.ErrExited)
		}
	}
}

func (s *suite) snapshotCalledOff(t *testing.T) {
	b := s.serve(t)
	line := b.dial(b.port)
	for _, given := range []time.Duration{0, time.Millisecond, 10 * time.Millisecond, 30 * time.Millisecond} {
		b.mustPause()
		ctx, cancel := context.WithTimeout(t.Context(), given)
		err := b.Snapshot(ctx, t.TempDir())
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after %v: error is %v, want a deadline exceeded", given, err)
		}
		if vacated := b.Vacate(); err != nil && vacated == nil {
			t.Fatalf("after %v: vacated without a snapshot", given)
		} else if vacated == nil {
			return // it was faster
		}
		b.mustResume()
		if got := line.ask("echo", "whole").text(t); got != "whole" {
			t.Errorf("after %v: answers %q", given, got)
		}
	}
}

func (s *suite) vacated(t *testing.T) {
	b := s.serve(t)
	dir := b.sleep()
	ctx := t.Context()
	began := time.Now()
	_, dialErr := b.Dial(ctx, b.port)
	if took := time.Since(began); took > time.Second {
		t.Errorf("refused after %v, want at once", took)
	}
	_, listenErr := b.Listeners(ctx)
	for verb, err := range map[string]error{
		"pause": b.Pause(ctx), "resume": b.Resume(ctx), "listeners": listenErr, "dial": dialErr,
		"snapshot": b.Snapshot(ctx, t.TempDir()), "vacate": b.Vacate(),
	} {
		if !errors.Is(err, sandbox.ErrExited) {
			t.Errorf("%s of a vacated sandbox: error is %v, want %v", verb, err, sandbox.ErrExited)
		}
	}
	b.Stop(patience)
	b.close()
	spec := s.spec("exit", "0")
	spec.ID = b.ID()
	if sb, err := s.driver.Start(ctx, spec); err == nil {
		sb.Close()
		t.Error("the id of a vacated sandbox was taken")
	}
	again := s.wake(t, b, dir)
	b.close() // does not concern the restored one
	if got := again.ask("echo", "alive").text(t); got != "alive" {
		t.Errorf("answers %q", got)
	}
	again.close()
	s.driver.Release(b.ID()) // nothing is kept any more
	s.start(t, spec).ended()
}

// Without the address connections are lost, which both sides see; listeners are not.
func (s *suite) restoreElsewhere(t *testing.T) {
	b := s.serve(t)
	var lines []*line
	for range 20 {
		lines = append(lines, b.dial(b.port))
		lines[len(lines)-1].ask("keep", "word", "remembered")
	}
	if s.can.Isolation {
		if got := b.ask("reach-self", fmt.Sprint(b.port)).text(t); got != "to-itself" {
			t.Errorf("reaches itself as %q", got)
		}
	}
	dir := b.sleep()
	s.driver.Release(b.ID())
	b = s.wake(t, b, dir)
	if diff := cmp.Diff([]int{b.port}, b.ports()); diff != "" {
		t.Errorf("ports: (-want +got)\n%s", diff)
	}
	if got := b.ask("kept", "word").text(t); got != "remembered" {
		t.Errorf("remembers %q", got)
	}
	want := 1
	if s.can.Isolation {
		want = 2 // the connection with itself goes on
		if got := b.ask("ask-self").text(t); got != "to-itself" {
			t.Errorf("reaches itself as %q", got)
		}
	}
	fresh := b.dial(b.port)
	eventually(t, "the program sees its connections cut", func() (any, bool) {
		n := fresh.ask("talking").number(t)
		return n, n == want
	})
}

func (s *suite) restoreCalledOff(t *testing.T) {
	b := s.serve(t)
	line := b.dial(b.port)
	line.ask("keep", "word", "remembered")
	b.mustPause()
	dir := b.mustSnapshot()
	if err := b.Vacate(); err != nil {
		t.Fatal(err)
	}
	for _, given := range []time.Duration{0, time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond, 80 * time.Millisecond} {
		ctx, cancel := context.WithTimeout(t.Context(), given)
		sb, err := s.driver.Restore(ctx, b.spec, dir)
		cancel()
		if err == nil {
			sb.Close()
			return // it was faster, and the snapshot is used
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after %v: error is %v, want a deadline exceeded", given, err)
		}
	}
	b = s.wake(t, b, dir)
	if got := b.ask("kept", "word").text(t); got != "remembered" {
		t.Errorf("remembers %q", got)
	}
}

func (s *suite) restoredOutput(t *testing.T) {
	b := s.serve(t)
	dir := b.sleep()
	again := s.wake(t, b, dir)
	again.ask("print", "after-the-restore")
	for name, out := range map[string][2]*sink{"stdout": {b.out, again.out}, "stderr": {b.err, again.err}} {
		eventually(t, name+" goes to the new writer", func() (any, bool) { return out[1].tail(), out[1].tail() == "after-the-restore\n" })
		if out[0].tail() != map[string]string{"stdout": "ready\n"}[name] {
			t.Errorf("the old %s got %q", name, out[0].tail())
		}
	}
}

func (s *suite) restoredExit(t *testing.T) {
	coded := s.serve(t)
	coded = s.wake(t, coded, coded.sleep())
	coded.dial(coded.port).send("exit", "5")
	if diff := cmp.Diff(sandbox.Exit{Code: 5}, coded.ended()); diff != "" {
		t.Errorf("exit: (-want +got)\n%s", diff)
	}
	asked := s.serveMode(t, "term", []string{"7"})
	asked = s.wake(t, asked, asked.sleep())
	asked.Stop(patience)
	if diff := cmp.Diff(sandbox.Exit{Code: 7}, asked.ended()); diff != "" {
		t.Errorf("stop: (-want +got)\n%s", diff)
	}
}
