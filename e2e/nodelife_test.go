package e2e

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/lull-dev/lull/e2e/rig"
)

// SIGTERM puts everything on disk; the node that comes after wakes it with its memory as it was. Clients are told to come
// back (1012).
func TestTermPutsAllOnDisk(t *testing.T) {
	t.Parallel()
	s, binary, dir := ownProgram(t)
	states := map[string]string{"was-up": "idle: {pause: 1h, hibernate: 2h}", "was-paused": "idle: {pause: 300ms, hibernate: 2h}",
		"was-on-disk": "idle: {pause: 300ms, hibernate: 600ms}"}
	crowds, before := map[string]*crowd{}, map[string]rig.Environment{}
	for app, idle := range states {
		s.deploy(copyApp(t, "ws-numbers", map[string]string{"lull.yaml": "scale: {max: 1}\nstream: {quiet: 300ms}\n" + idle + "\n"}), app)
		for range 3 {
			s.get(app, "/")
		}
		crowds[app] = s.gather(5, 0, app, "/")
	}
	for app, state := range map[string]string{"was-up": "running", "was-paused": "paused", "was-on-disk": "hibernated"} {
		before[app] = s.awaitState(app, state)
	}
	s.end(binary)
	for app, c := range crowds {
		r := c.until(10*time.Second, "its clients are told", func(r rig.CrowdReport) bool { return r.Open == 0 })
		if r.Closes["1012"] != c.size {
			t.Errorf("%s: streams ended by %v, want 1012", app, r.Closes)
		}
	}

	s = ownNode(t, binary, dir)
	for app := range states {
		if asleep := s.awaitState(app, "hibernated"); asleep.ID != before[app].ID || asleep.Streams != 0 {
			t.Errorf("after the start there is %+v, want %s without streams", asleep, before[app].ID)
		}
		if a := s.get(app, "/"); a.Took != "wake" || a.Body != "4" || a.Environment != before[app].ID {
			t.Errorf("%s: the first request came by %q, and was number %s of %s; want by \"wake\", 4, of %s", app, a.Took, a.Body, a.Environment, before[app].ID)
		}
		c := s.gather(5, 0, app, "/")
		c.checkAllHear("say-all hello", 10*time.Second)
	}
	s.end(binary)
}

// What was put on disk before the machine was booted anew wakes after it, with its memory and its timers, and goes on to sleep
// and wake: the clocks that begin with the machine's start, which the node and the sandboxes live by, say less than before.
func TestWakesAfterReboot(t *testing.T) {
	t.Parallel()
	s, binary, dir := ownProgram(t)
	app := t.TempDir()
	writeFile(t, filepath.Join(app, "server.js"), []byte(`
let count = 0;
require('http').createServer((request, response) => setTimeout(() => response.end(String(++count)), 20)).listen(process.env.PORT);
`))
	writeFile(t, filepath.Join(app, "lull.yaml"), []byte("run: node server.js\nscale: {max: 1}\nidle: {pause: 100ms, hibernate: 300ms}\n"))
	s.deploy(app, "counter")
	s.get("counter", "/")
	before := s.awaitState("counter", "hibernated")
	s.end(binary) // which checks that nothing is left of what a reboot would take away

	node, err := rig.Start(within(t, 30*time.Second), rig.Options{Binary: binary, Dir: dir, Sandbox: "gvisor", Booted: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(node.Kill)
	s = &stage{t: t, Node: node}
	s.logOnFailure()
	for round := 2; round < 5; round++ {
		if a := s.get("counter", "/"); a.Took != "wake" || a.Body != fmt.Sprint(round) || a.Environment != before.ID {
			t.Errorf("request %d came by %q, and was number %s of %s; want by \"wake\", of %s", round, a.Took, a.Body, a.Environment, before.ID)
		}
		s.awaitState("counter", "hibernated")
	}
	s.end(binary)
}

// With memory for a few, ten apps are used in turn: the longest idle go down early, and nobody is killed.
func TestMemoryIsShared(t *testing.T) {
	t.Parallel()
	s, binary, _ := ownProgram(t, "--memory", "280MB") // for one that runs, 96 MB and 64 for its sandbox, and those paused ones of which 120 MB have room
	const apps = 10
	app := func(i int) string { return fmt.Sprintf("tenant-%d", i) }
	for i := range apps {
		s.deploy(copyApp(t, "ws-numbers", map[string]string{"lull.yaml": "scale: {max: 1}\nidle: {pause: 500ms, hibernate: 1h}\n" +
			"resources: {memory: 96MB}\n"}), app(i))
	}
	for round := 1; round <= 3; round++ {
		for i := range apps {
			if a := s.get(app(i), "/"); a.Body != fmt.Sprint(round) {
				t.Errorf("round %d: %s has counted %s: it has lost its memory (came by %q)", round, app(i), a.Body, a.Took)
			}
			var used int64
			for _, e := range s.all() {
				used += e.MemoryBytes
			}
			if used > 280<<20 {
				t.Errorf("environments use %s, more than they may", megabytes(used))
			}
		}
	}
	// A paused one has 25 MB: four or five stay beside the last that ran.
	eventually(t, 20*time.Second, "three or more are on disk", func() (bool, any) {
		down, all := 0, s.all()
		for _, e := range all {
			switch e.State {
			case "hibernated":
				down++
			case "failed":
				t.Errorf("an environment failed: %+v", e)
			}
		}
		return down >= 3, all
	})
	s.end(binary)
}

// all lists the environments of all apps.
func (s *stage) all() []rig.Environment {
	s.t.Helper()
	result := s.command("ps", "--json")
	if result.Code != 0 {
		s.t.Fatalf("lull ps: %s", result)
	}
	return decode[[]rig.Environment](s.t, result.Stdout)
}

// What does not fit beside others that are busy waits, or is refused in good form; those that are busy are not harmed.
func TestMemoryThatIsBusyIsNotTaken(t *testing.T) {
	t.Parallel()
	s, binary, _ := ownProgram(t, "--memory", "400MB") // for two, with what a sandbox needs itself
	const manifest = "scale: {max: 1}\nresources: {memory: 120MB}\ntimeout: {queue: 3s}\nidle: {pause: 200ms, hibernate: 1h}\n"
	for _, app := range []string{"first", "second", "third"} {
		s.deploy(copyApp(t, "slow", map[string]string{"lull.yaml": manifest}), app)
	}
	var busy sync.WaitGroup
	for _, app := range []string{"first", "second"} {
		busy.Go(func() {
			if replies := s.storm(app, "/?ms=8000", 1); replies[0].err != nil || replies[0].Status != http.StatusOK {
				t.Errorf("a busy one was harmed: %d %s %v", replies[0].Status, replies[0].Body, replies[0].err)
			}
		})
		s.awaitBusy(app)
	}
	a := s.try(http.MethodGet, "third", "/?ms=0", "")
	if a.Status != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" || a.Header.Get("Lull-Error") == "" {
		t.Errorf("what does not fit was answered with %d %v", a.Status, a.Header)
	}
	busy.Wait()
	s.get("third", "/?ms=0")
	s.end(binary)
}

// One environment goes down and up again and again: nothing of it adds up in the node or on the machine. 300 pauses and 30
// hibernations; at full length 10,000 and 1,000.
func TestRoundsAddNothing(t *testing.T) {
	for _, ladder := range []struct {
		name, idle, took, asleep string
		rounds                   int
	}{
		{"pauses", "idle: {pause: 10ms, hibernate: 1h}\n", "resume", "paused", times(300, 10_000)},
		{"hibernations", "idle: {pause: 10ms, hibernate: 20ms}\n", "wake", "hibernated", times(30, 1000)},
	} {
		t.Run(ladder.name, func(t *testing.T) {
			s, binary, _ := ownProgram(t)
			s.deploy(copyApp(t, "ws-numbers", map[string]string{"lull.yaml": "scale: {max: 1}\nstream: {quiet: 10ms}\n" + ladder.idle}), "rounds")
			client := s.Client()
			defer client.CloseIdleConnections()
			c := s.gather(20, 0, "rounds", "/")
			c.checkAllHear("say-all hello", 20*time.Second) // who has spoken costs more than who has not
			done := 0
			s.goRound(client, ladder.took, 20, &done) // what is made at first is not growth
			before := s.belongings(ladder.asleep)
			began := time.Now()
			s.goRound(client, ladder.took, ladder.rounds, &done)
			t.Logf("%d rounds in %s", ladder.rounds, time.Since(began).Round(time.Second))
			c.checkUndisturbed()
			c.checkAllHear("say-all hello", 20*time.Second)
			var after belongings
			eventually(t, 20*time.Second, "what was needed for the last message is given back", func() (bool, any) {
				after = s.belongings(ladder.asleep)
				return before.covers(after), fmt.Sprintf("before: %+v, after: %+v", before, after)
			})
			t.Logf("before: %+v, after: %+v", before, after)
			s.end(binary)
		})
	}
}

// goRound asks until so many answers have come by way of took. The app's counter must count every request.
func (s *stage) goRound(client *http.Client, took string, rounds int, asked *int) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Duration(rounds)*2*time.Second+30*time.Second)
	defer cancel()
	again := time.NewTicker(30 * time.Millisecond)
	defer again.Stop()
	for rounds > 0 {
		*asked++
		a, err := ask(ctx, client, http.MethodGet, s.URL("rounds", "/"), "")
		if err != nil || a.Status != http.StatusOK || a.Body != fmt.Sprint(*asked) {
			s.t.Fatalf("request %d was answered with %d %.200q (%v) by %q", *asked, a.Status, a.Body, err, a.Took)
		}
		if a.Took == took {
			rounds--
		}
		if took == "wake" {
			s.awaitGone(ctx)
		}
		<-again.C
	}
}

// awaitGone waits until nothing runs from the snapshotted environment, or ctx ends.
func (s *stage) awaitGone(ctx context.Context) {
	s.t.Helper()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for ctx.Err() == nil {
		values, err := s.Metrics(ctx)
		if err == nil && values[`lull_environments{app="rounds",state="hibernated"}`] == 1 {
			return
		}
		<-look.C
	}
}

// belongings is what a node has of things that could add up.
type belongings struct {
	rss        int64
	files      float64
	goroutines float64
	holdings   int // namespaces, mounts, cgroups and the rest
}

// belongings counts them while the environment is asleep.
func (s *stage) belongings(asleep string) (b belongings) {
	s.t.Helper()
	s.awaitState("rounds", asleep)
	values := s.counters()
	rss, err := rig.RSS(s.PID())
	if err != nil {
		s.t.Fatal(err)
	}
	b = belongings{rss: rss, files: values["process_open_fds"], goroutines: values["go_goroutines"]}
	b.holdings = len(rig.Holdings(s.Slot))
	return b
}

// covers allows what comes and goes: a connection, a sandbox created ahead, memory that is collected later.
func (b belongings) covers(after belongings) bool {
	return b.goroutines > 0 && b.files > 0 && // /metrics has them
		after.rss <= b.rss+32<<20 && after.files <= b.files+20 && after.goroutines <= b.goroutines+30 && after.holdings <= b.holdings+10
}
