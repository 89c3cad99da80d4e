package e2e

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/lull-dev/lull/e2e/rig"
)

// Ten thousand people in a chat room fall silent. Their server goes to disk, and nobody notices; one speaks, and all
// hear it.
func TestTenThousandSleepOnDisk(t *testing.T) {
	needRoot(t)
	clients := rig.StreamsThatFit(10_000)
	if clients < 10_000 {
		t.Logf("this machine allows a process too few open files for 10,000 streams: %d clients", clients)
	}
	dir := t.TempDir()
	s := ownNode(t, scene.binary, dir)
	s.deploy(copyApp(t, "ws-chat", map[string]string{"lull.yaml": "scale: {max: 1}\nstreams: 12000\n" +
		"idle: {pause: 2s, hibernate: 10s}\nstream: {quiet: 2s}\nresources: {memory: 2GB, cpu: 2}\n"}), "crowded")
	page := s.get("crowded", "/")
	c := s.gather(clients, 5*time.Second, "crowded", "/")
	t.Logf("%d clients connected in %.1f s", clients, c.order("report").Seconds)
	c.until(30*time.Second, "every client has been greeted", func(r rig.CrowdReport) bool { return r.Messages == int64(clients) })

	before := s.awaitStateFor("crowded", "running", 5*time.Second)
	paused := s.awaitStateFor("crowded", "paused", 30*time.Second)
	if paused.Streams != clients || paused.Held != clients {
		t.Errorf("paused with %d streams, %d of them held; want %d", paused.Streams, paused.Held, clients)
	}
	c.awaitPongs(20 * time.Second)
	var asleep rig.Environment
	c.checkOnTime(func() {
		asleep = s.awaitStateFor("crowded", "hibernated", 60*time.Second)
		c.awaitPongs(20 * time.Second)
	})
	disk := s.checkNothingRuns(asleep)
	t.Logf("on disk: %s of memory became %s; written in %s", megabytes(before.MemoryBytes), megabytes(disk), s.verbTook("crowded", "hibernate"))
	if rss, err := rig.RSS(s.PID()); err == nil {
		t.Logf("the node itself has %s", megabytes(rss))
	}

	if still := s.awaitStateFor("crowded", "hibernated", 5*time.Second); !still.Since.Equal(asleep.Since) {
		t.Errorf("answering pings has woken it: asleep since %s, before since %s", still.Since, asleep.Since)
	}

	took := c.checkAllHear("say anybody there?", 60*time.Second)
	t.Logf("from one message to all %d having heard it: %s", clients, took.Round(time.Millisecond))
	c.checkUndisturbed()
	if again := s.get("crowded", "/"); again.Body != page.Body || again.Environment != page.Environment {
		t.Errorf("it is not the same server that woke:\n%s %s\n%s %s", page.Environment, page.Body, again.Environment, again.Body)
	}

	c.Stop()
	if err := s.Stop(within(t, time.Minute)); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(s.Data, "snapshots", "*", "*.tmp")); len(left) > 0 {
		t.Errorf("half snapshots are left: %q", left)
	}
}
