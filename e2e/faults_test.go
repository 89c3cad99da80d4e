package e2e

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lull-dev/lull/e2e/rig"
)

// answerTime bounds how long a client waits for an answer, whatever has gone wrong.
const answerTime = 40 * time.Second

// numbers deploys an app that counts requests, that falls asleep at once.
func (s *stage) numbers(app, more string) {
	s.t.Helper()
	s.deploy(copyApp(s.t, "ws-numbers", map[string]string{"lull.yaml": "scale: {max: 1}\n" +
		"idle: {pause: 300ms, hibernate: 600ms}\nstream: {quiet: 300ms}\n" + more}), app)
}

// ownProgram starts a node of the test's own from a program of its own, so that what is left over can be counted.
func ownProgram(t *testing.T, args ...string) (s *stage, binary, dir string) {
	t.Helper()
	needRoot(t)
	dir = t.TempDir()
	binary, err := ownCopy(scene.binary, dir)
	if err != nil {
		t.Fatal(err)
	}
	return ownNode(t, binary, dir, args...), binary, dir
}

// end stops a node in good order, and counts what is left of it.
func (s *stage) end(binary string) {
	s.t.Helper()
	if err := s.Stop(within(s.t, time.Minute)); err != nil {
		s.t.Fatal(err)
	}
	if left := rig.Remains(s.Slot, binary); len(left) > 0 {
		s.t.Errorf("the node has left:\n%s", strings.Join(left, "\n"))
	}
}

// checkAnswered asks an app, which must answer in time by a new environment: what one does that has lost its state.
func (s *stage) checkAnswered(app string) answer {
	s.t.Helper()
	client := s.Client()
	defer client.CloseIdleConnections()
	began := time.Now()
	a, err := ask(within(s.t, answerTime), client, http.MethodGet, s.URL(app, "/"), "")
	if err != nil || a.Status != http.StatusOK {
		s.t.Errorf("after %s: %d %.300s %v", time.Since(began), a.Status, a.Body, err)
	}
	return a
}

// checkStartedCold checks that a damaged environment was replaced, and that its streams were closed with 1012.
func (s *stage) checkStartedCold(app, was string, c *crowd) {
	s.t.Helper()
	a := s.checkAnswered(app)
	if a.Environment == was {
		s.t.Errorf("request %s was answered by %s (%q), want another environment", a.Body, a.Environment, a.Took)
	}
	r := c.until(answerTime, "its streams end", func(r rig.CrowdReport) bool { return r.Open == 0 })
	if r.Closes["1012"] != c.size {
		s.t.Errorf("its %d streams ended by %v, want 1012", c.size, r.Closes)
	}
}

// Whatever has become of a snapshot, the app answers: it starts cold, and streams that were held are closed with 1012.
func TestDamagedSnapshots(t *testing.T) {
	t.Parallel()
	s, binary, _ := ownProgram(t)
	s.numbers("numbers", "")
	s.get("numbers", "/")
	number := 0
	var names []string
	for _, file := range s.snapshotFiles(s.awaitState("numbers", "hibernated").ID) {
		names = append(names, filepath.Base(file))
	}
	if !slices.Contains(names, "sealed.json") {
		t.Fatalf("a snapshot has the files %q, not sealed.json", names)
	}
	for _, damage := range []struct {
		name string
		do   func(path string) error
	}{
		{"truncated", func(path string) error {
			info, err := os.Stat(path)
			if err != nil {
				return err
			}
			return os.Truncate(path, info.Size()/2)
		}},
		{"a flipped bit", flipBit},
		{"removed", os.Remove},
		{"a pipe nobody writes to", func(path string) error {
			if err := os.Remove(path); err != nil {
				return err
			}
			return syscall.Mkfifo(path, 0o600)
		}},
	} {
		for _, name := range names {
			t.Run(damage.name+" "+name, func(t *testing.T) {
				s := s.with(t)
				// An app of its own: after a few snapshots that were no good Lull makes no more of a release.
				number++
				app := fmt.Sprintf("numbers-%d", number)
				s.numbers(app, "")
				c := s.gather(3, 0, app, "/")
				asleep := s.awaitState(app, "hibernated")
				path := filepath.Join(s.SnapshotDir(asleep.ID), name)
				if info, err := os.Stat(path); err == nil && info.Size() == 0 && damage.name != "removed" {
					return // it cannot be damaged
				}
				if err := damage.do(path); err != nil {
					t.Fatal(err)
				}
				if name == "sealed.json" && s.checkAnswered(app).Environment == asleep.ID {
					c.checkUndisturbed() // the node that sealed it knows the checksums itself
					return
				}
				s.checkStartedCold(app, asleep.ID, c)
			})
		}
	}
	s.end(binary)
}

// flipBit changes a bit in the middle of a file.
func flipBit(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	data[len(data)/2] ^= 0x10
	return os.WriteFile(path, data, 0o600)
}

// A snapshot for which there is no room is not made: the environment stays as it is, or starts cold, and answers.
func TestNoRoomForSnapshots(t *testing.T) {
	t.Parallel()
	t.Run("disk", func(t *testing.T) {
		needRoot(t)
		dir := t.TempDir()
		snapshots := filepath.Join(dir, "data", "snapshots")
		if err := os.MkdirAll(snapshots, 0o700); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "none", snapshots).CombinedOutput(); err != nil {
			t.Fatalf("mount: %v\n%s", err, out)
		}
		t.Cleanup(func() { _ = syscall.Unmount(snapshots, syscall.MNT_DETACH) })
		checkNoRoom(t, ownNode(t, scene.binary, dir))
	})
	t.Run("budget", func(t *testing.T) {
		s, _, _ := ownProgram(t, "--snapshots", "1MB")
		checkNoRoom(t, s)
	})
}

func checkNoRoom(t *testing.T, s *stage) {
	t.Helper()
	s.numbers("numbers", "")
	s.get("numbers", "/")
	c := s.gather(3, 500*time.Millisecond, "numbers", "/")
	eventually(t, 20*time.Second, "a hibernation has failed, and is counted", func() (bool, any) {
		failed := []string{}
		for name, value := range s.counters() {
			if strings.HasPrefix(name, "lull_verbs_total{") && strings.Contains(name, `"hibernate"`) && !strings.Contains(name, `"ok"`) && value > 0 {
				failed = append(failed, name)
			}
		}
		return len(failed) > 0, s.environments("numbers")
	})
	if a := s.checkAnswered("numbers"); a.Body != "2" {
		t.Errorf("the request came by %q, and was number %s; want 2, of the same environment", a.Took, a.Body)
	}
	c.checkUndisturbed()
	if used, err := rig.DiskUsage(filepath.Join(s.Data, "snapshots")); err != nil || used > 1<<20 {
		t.Errorf("half a snapshot is left: %d bytes (%v)", used, err)
	}
	if err := s.Stop(within(t, time.Minute)); err != nil {
		t.Error(err)
	}
}

// The sandbox's process is killed in each state: the next request is answered by another environment.
func TestKilledSandboxes(t *testing.T) {
	t.Parallel()
	s, binary, _ := ownProgram(t)
	s.deploy(copyApp(t, "slow", map[string]string{"lull.yaml": "scale: {max: 1}\nidle: {pause: 500ms, hibernate: 1h}\n"}), "slow")
	kill := func(environment string) {
		t.Helper()
		sentries := rig.Sentries(binary, environment)
		if len(sentries) == 0 {
			t.Fatalf("%s has no sandbox process", environment)
		}
		for _, pid := range sentries {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	t.Run("running", func(t *testing.T) {
		s := s.with(t)
		replies := make(chan []reply, 1)
		go func() { replies <- s.storm("slow", "/?ms=20000", 1) }()
		kill(s.awaitBusy("slow"))
		if r := (<-replies)[0]; r.err != nil || r.Status != http.StatusBadGateway {
			t.Errorf("the request that ran was answered with %d %v, want 502", r.Status, r.err)
		}
		s.get("slow", "/?ms=0")
	})
	t.Run("paused", func(t *testing.T) {
		s := s.with(t)
		s.get("slow", "/?ms=0")
		kill(s.awaitState("slow", "paused").ID)
		s.get("slow", "/?ms=0")
	})
	for _, state := range []string{"hibernating", "waking"} {
		t.Run(state, func(t *testing.T) {
			s, app := s.with(t), "numbers-"+state
			s.numbers(app, "")
			s.get(app, "/")
			environment := s.environments(app)[0].ID
			if state == "waking" {
				s.awaitState(app, "hibernated")
			}
			replies := make(chan []reply, 1)
			if state == "waking" {
				go func() { replies <- s.storm(app, "/", 1) }()
			}
			killed := s.catch(binary, environment, state, syscall.SIGKILL)
			t.Logf("killed: %t", killed)
			if state == "waking" {
				r := (<-replies)[0]
				// A wake may be over before the sandbox can be caught at it: then the request was the app's already.
				late := r.Status == http.StatusBadGateway && s.hasWoken(environment)
				if r.err != nil || r.Status != http.StatusOK && !late {
					t.Errorf("the request that woke it was answered with %d %v", r.Status, r.err)
				}
				if killed { // a request that it gets before the node knows would be lost with it
					s.awaitNotRunning(app, environment)
				}
			}
			s.checkAnswered(app)
		})
	}
	s.end(binary)
}

// awaitNotRunning waits until the node knows that an environment does not run.
func (s *stage) awaitNotRunning(app, environment string) {
	s.t.Helper()
	eventually(s.t, 10*time.Second, environment+" does not run", func() (bool, any) {
		all := s.environments(app)
		return !slices.ContainsFunc(all, func(e rig.Environment) bool { return e.ID == environment && e.State == "running" }), all
	})
}

// hasWoken reports whether the node says that the environment has come back from disk.
func (s *stage) hasWoken(environment string) bool {
	for line := range strings.Lines(s.Log()) {
		if strings.Contains(line, "environment woken") && strings.Contains(line, "environment="+environment+" ") {
			return true
		}
	}
	return false
}

// awaitBusy waits until the only environment of an app has an exchange in flight.
func (s *stage) awaitBusy(app string) (environment string) {
	s.t.Helper()
	eventually(s.t, 20*time.Second, app+" has a request in flight", func() (bool, any) {
		up := s.environments(app)
		if len(up) == 1 && up[0].State == "running" && up[0].Exchanges > 0 {
			environment = up[0].ID
		}
		return environment != "", up
	})
	return environment
}

// catch sends a signal to the sandbox process of an environment at a moment that does not last: while a snapshot is being
// written (there is a directory for it, unsealed), or as soon as there is a process that is to become it again. It returns
// false if the moment was over too soon.
func (s *stage) catch(binary, environment, moment string, signal syscall.Signal) bool {
	s.t.Helper()
	look, deadline := time.NewTicker(500*time.Microsecond), time.NewTimer(20*time.Second)
	defer look.Stop()
	defer deadline.Stop()
	for {
		snapshot, _ := filepath.Glob(s.SnapshotDir(environment) + "*/*")
		sealed := slices.ContainsFunc(snapshot, func(path string) bool { return filepath.Base(path) == "sealed.json" })
		if moment == "waking" || len(snapshot) > 0 {
			sent := false
			for _, pid := range rig.Sentries(binary, environment) {
				sent = syscall.Kill(pid, signal) == nil || sent
			}
			if sent || sealed && moment == "hibernating" {
				return sent
			}
		}
		select {
		case <-look.C:
		case <-deadline.C:
			return false
		}
	}
}

// A sandbox that hangs while it is being restored does not keep its clients waiting for ever.
func TestRestoreThatHangs(t *testing.T) {
	t.Parallel()
	s, binary, _ := ownProgram(t)
	s.numbers("numbers", "")
	s.get("numbers", "/")
	c := s.gather(3, 0, "numbers", "/")
	var asleep rig.Environment
	var began time.Time
	var a answer
	for try, caught := 1, false; !caught; try++ { // a restore may be over too soon to be stopped
		if try > 20 {
			t.Fatal("no restore could be stopped")
		}
		asleep = s.awaitState("numbers", "hibernated")
		stopped := make(chan bool, 1)
		go func() {
			stopped <- s.catch(binary, asleep.ID, "waking", syscall.SIGSTOP) && !s.freed(binary, asleep.ID)
		}()
		began = time.Now()
		a = s.checkAnswered("numbers")
		caught = <-stopped
	}
	t.Logf("answered after %s by %q", time.Since(began).Round(time.Millisecond), a.Took)
	if a.Environment != asleep.ID {
		r := c.until(answerTime, "its streams end", func(r rig.CrowdReport) bool { return r.Open == 0 })
		if r.Closes["1012"] != c.size {
			t.Errorf("its streams ended by %v, want 1012", r.Closes)
		}
	}
	s.end(binary)
}

// freed lets a stopped sandbox go on if it was back already when it was stopped, which the node says in a moment, and reports
// whether it was.
func (s *stage) freed(binary, environment string) bool {
	s.t.Helper()
	look, deadline := time.NewTicker(20*time.Millisecond), time.NewTimer(2*time.Second)
	defer look.Stop()
	defer deadline.Stop()
	for {
		up, err := s.Environments(s.t.Context(), "")
		if err != nil {
			s.t.Error(err)
		}
		if slices.ContainsFunc(up, func(e rig.Environment) bool { return e.ID == environment && e.State == "running" }) {
			for _, pid := range rig.Sentries(binary, environment) {
				_ = syscall.Kill(pid, syscall.SIGCONT)
			}
			return true
		}
		select {
		case <-look.C:
		case <-deadline.C:
			return false
		}
	}
}

// The node is killed in each state of an environment, and started again over the same data: it answers, and what was on
// disk wakes.
func TestKilledNodes(t *testing.T) {
	t.Parallel()
	s, binary, dir := ownProgram(t)
	s.numbers("numbers", "")
	again := func() {
		t.Helper()
		s.Kill()
		s = ownNode(t, binary, dir)
		if running := rig.Processes(binary); len(running) != 1 {
			t.Errorf("besides the node there are processes of the one before:\n%s", strings.Join(running, "\n"))
		}
	}
	for _, moment := range []string{"running", "paused", "hibernating", "hibernated", "waking"} {
		t.Logf("SIGKILL while %s", moment)
		environment := s.checkAnswered("numbers").Environment
		switch moment {
		case "hibernating":
			eventually(t, 20*time.Second, "a snapshot is being written", func() (bool, any) {
				return len(s.snapshotFiles(environment)) > 0 || len(s.snapshotFiles(environment+"*")) > 0, nil
			})
		case "waking":
			s.awaitState("numbers", "hibernated")
			go func() {
				client := s.Client()
				_, _ = ask(t.Context(), client, http.MethodGet, s.URL("numbers", "/"), "") // dies with the node
			}()
			eventually(t, 20*time.Second, "there is a process", func() (bool, any) {
				return len(rig.Sentries(binary, environment)) > 0, nil
			})
		default:
			s.awaitState("numbers", moment)
		}
		again()
		a := s.checkAnswered("numbers")
		t.Logf("answered by %q", a.Took)
		if moment == "hibernated" && (a.Took != "wake" || a.Environment != environment) {
			t.Errorf("it was on disk, but the first request came by %q from %s, want by \"wake\" from %s", a.Took, a.Environment, environment)
		}
	}
	s.end(binary)
}

// A sandbox that has stopped answering does not keep the node from ending.
func TestNodeEndsWithSandboxThatHangs(t *testing.T) {
	t.Parallel()
	s, binary, _ := ownProgram(t)
	s.deploy(copyApp(t, "ws-numbers", map[string]string{"lull.yaml": "scale: {max: 1}\nidle: {pause: 1h}\n"}), "numbers")
	s.get("numbers", "/")
	s.gather(3, 0, "numbers", "/")
	sentries := rig.Sentries(binary, s.environments("numbers")[0].ID)
	if len(sentries) == 0 {
		t.Fatal("there is no sandbox that could hang")
	}
	for _, pid := range sentries {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	s.end(binary)
}
