package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lull-dev/lull/e2e/rig"
)

// What the tests of sleeping environments share.

// full reports whether tests that can be made arbitrarily long are to run at their full length: "make soak" sets it.
func full() bool { return os.Getenv("LULL_E2E_FULL") != "" }

// times returns how often something is done: usually a few times, many times at full length.
func times(few, many int) int {
	if full() {
		return many
	}
	return few
}

// awaitStateFor waits at most d until an app has exactly one environment, in that state, and returns it.
func (s *stage) awaitStateFor(app, state string, d time.Duration) rig.Environment {
	s.t.Helper()
	var found []rig.Environment
	eventually(s.t, d, app+" is "+state, func() (bool, any) {
		found = s.environments(app)
		return len(found) == 1 && found[0].State == state, found
	})
	return found[0]
}

// staysAsleep checks that an environment stays in a state for d; of a paused one ticks are allowed.
func (s *stage) staysAsleep(app string, asleep rig.Environment, d time.Duration) {
	s.t.Helper()
	began := time.Now()
	eventually(s.t, d+20*time.Second, "some time has passed", func() (bool, any) {
		now := s.environments(app)
		if len(now) != 1 || now[0].ID != asleep.ID || asleep.State == "hibernated" && now[0].State != asleep.State {
			s.t.Fatalf("%s after it fell asleep (%s), %s is %+v", time.Since(began), asleep.State, app, now)
		}
		if now[0].State != asleep.State && !ticking(now[0]) {
			s.t.Fatalf("%s after it fell asleep (%s), %s is up, and not for a tick: %+v", time.Since(began), asleep.State, app, now[0])
		}
		return time.Since(began) > d, now
	})
}

// ticking reports whether an environment is up for a tick.
func ticking(e rig.Environment) bool {
	return e.State == "running" && strings.Contains(e.Reason, "tick")
}

// checkNothingRuns checks that a hibernated environment has no process and no memory, and its snapshot is private. It
// returns what the snapshot takes on disk.
func (s *stage) checkNothingRuns(asleep rig.Environment) (disk int64) {
	s.t.Helper()
	eventually(s.t, 5*time.Second, asleep.ID+", which is hibernated, has no process", func() (bool, any) {
		members, sentries := rig.Members(s.Slot, asleep.ID), rig.Sentries(scene.binary, asleep.ID)
		return len(members)+len(sentries) == 0, fmt.Sprintf("members of its cgroups: %v, sandboxes: %v", members, sentries)
	})
	if asleep.MemoryBytes != 0 {
		s.t.Errorf("%s, which is hibernated, has %d bytes of memory", asleep.ID, asleep.MemoryBytes)
	}
	for _, file := range s.snapshotFiles(asleep.ID) {
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			s.t.Errorf("snapshot file %s: mode %v, want 0600 (%v)", file, info.Mode(), err)
		}
	}
	disk, err := rig.DiskUsage(s.SnapshotDir(asleep.ID))
	if err != nil || disk == 0 {
		s.t.Errorf("the snapshot of %s takes %d bytes: %v", asleep.ID, disk, err)
	}
	return disk
}

// snapshotFiles lists the files of an environment's snapshot.
func (s *stage) snapshotFiles(environment string) []string {
	s.t.Helper()
	files, err := filepath.Glob(filepath.Join(s.SnapshotDir(environment), "*"))
	if err != nil {
		s.t.Fatal(err)
	}
	return files
}

// crowd is a crowd program as one test uses it.
type crowd struct {
	t *testing.T
	*rig.Crowd
	size  int
	pings bool // each client sends some, again and again
}

// gather connects a crowd to an app until the test ends.
func (s *stage) gather(clients int, ping time.Duration, app, path string) *crowd {
	s.t.Helper()
	binary, err := scene.crowd()
	if err != nil {
		s.t.Fatal(err)
	}
	c, err := s.Gather(within(s.t, 90*time.Second), binary, clients, ping, app, path)
	if err != nil {
		s.t.Fatalf("%v\nnode:\n%s", err, tail(s.Log()))
	}
	s.t.Cleanup(c.Stop)
	return &crowd{s.t, c, clients, ping > 0}
}

func (c *crowd) order(order string) rig.CrowdReport {
	c.t.Helper()
	r, err := c.Order(within(c.t, time.Minute), order)
	if err != nil {
		c.t.Fatal(err)
	}
	return r
}

// until waits until the crowd's report is as wanted.
func (c *crowd) until(d time.Duration, what string, wanted func(rig.CrowdReport) bool) (r rig.CrowdReport) {
	c.t.Helper()
	eventually(c.t, d, what, func() (bool, any) {
		r = c.order("report")
		text, _ := json.Marshal(r)
		return wanted(r), string(text)
	})
	return r
}

// checkUndisturbed checks that every client is still on its first connection, and that no ping was left unanswered: a
// client without an answer sends no further ping.
func (c *crowd) checkUndisturbed() {
	c.t.Helper()
	if c.pings {
		c.awaitPongs(20 * time.Second)
	}
	r := c.order("report")
	if r.Open != c.size || len(r.Closes) != 0 || r.Reconnects != 0 {
		c.t.Errorf("of %d clients %d are connected, %d connected again, connections ended by %v",
			c.size, r.Open, r.Reconnects, r.Closes)
	}
}

// checkOnTime checks that no ping waits for its answer until the next is due while the app is asleep. One that is up
// answers itself, as fast as it can.
func (c *crowd) checkOnTime(asleep func()) {
	c.t.Helper()
	before := c.order("report")
	asleep()
	if r := c.order("report"); r.Late != before.Late || r.Pongs == before.Pongs {
		c.t.Errorf("while the app was asleep %d pings were answered and %d were late", r.Pongs-before.Pongs, r.Late-before.Late)
	}
}

// awaitPongs waits until every client has had an answer to a ping that it sent from now on.
func (c *crowd) awaitPongs(d time.Duration) {
	c.t.Helper()
	c.order("mark")
	c.until(d, "every client has had a pong", func(r rig.CrowdReport) bool { return r.SinceMark.Ponged == c.size })
}

// checkAllHear lets clients speak and checks that every client hears exactly one message. It returns how long that took.
func (c *crowd) checkAllHear(order string, d time.Duration) time.Duration {
	c.t.Helper()
	c.order("mark")
	began := time.Now()
	c.order(order)
	c.until(d, "every client has heard a message", func(r rig.CrowdReport) bool { return r.SinceMark.Heard == c.size })
	took := time.Since(began)
	if r := c.order("report"); r.SinceMark.HeardOne != c.size || r.SinceMark.Messages != int64(c.size) {
		c.t.Errorf("after one message to each of %d clients: %+v", c.size, r.SinceMark)
	}
	return took
}

// megabytes prints bytes for people.
func megabytes(bytes int64) string {
	return strconv.FormatFloat(float64(bytes)/(1<<20), 'f', 1, 64) + " MB"
}

// metrics asks for the node's metrics.
func (s *stage) counters() map[string]float64 {
	s.t.Helper()
	values, err := s.Metrics(within(s.t, 20*time.Second))
	if err != nil {
		s.t.Fatal(err)
	}
	return values
}

// verbTook returns the mean time that something has taken with the environments of an app: start, resume, wake, hibernate.
func (s *stage) verbTook(app, verb string) time.Duration {
	s.t.Helper()
	values, labels := s.counters(), fmt.Sprintf(`{app=%q,verb=%q}`, app, verb)
	mean := values["lull_verb_seconds_sum"+labels] / max(values["lull_verb_seconds_count"+labels], 1)
	return time.Duration(mean * float64(time.Second)).Round(time.Millisecond)
}
