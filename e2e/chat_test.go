package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lull-dev/lull/e2e/rig"
)

// Two people chat, fall silent, and speak again: in between their server uses no processor time, and neither of them
// notices.
func TestChatSleepsAndWakes(t *testing.T) {
	t.Parallel()
	s := sharedNode(t)
	s.deploy(copyApp(t, "ws-chat", map[string]string{"lull.yaml": "idle: {pause: 500ms}\nstream: {quiet: 1s}\n"}), "chat")

	page := s.get("chat", "/").Body
	first, second := s.dial("chat", "/"), s.dial("chat", "/")
	for _, conn := range []struct{ hear func() string }{
		{func() string { return s.hear(first) }}, {func() string { return s.hear(second) }},
	} {
		if welcome := conn.hear(); !strings.Contains(welcome, `"welcome"`) {
			t.Fatalf("the first message is %s", welcome)
		}
	}
	chat := func(text string) {
		t.Helper()
		s.say(first, text)
		want := `{"type":"message","text":"` + text + `"}`
		if a, b := s.hear(first), s.hear(second); a != want || b != want {
			t.Fatalf("of %q the clients heard %s and %s", text, a, b)
		}
	}
	chat("hello")

	asleep := s.awaitState("chat", "paused")
	if asleep.Streams != 2 {
		t.Errorf("paused with %d streams open, want 2: %+v", asleep.Streams, asleep)
	}
	checkStandsStill(t, s, asleep)

	chat("still here?")
	s.awaitState("chat", "paused")
	if again := s.get("chat", "/"); again.Took != "resume" || again.Environment != asleep.ID || again.Body != page {
		t.Errorf("after a pause the page came by %q from %s, want by \"resume\" from %s\nbefore: %s\nafter:  %s",
			again.Took, again.Environment, asleep.ID, page, again.Body)
	}
	if warm := s.get("chat", "/"); warm.Took != "warm" {
		t.Errorf("right after it the page came by %q, want \"warm\"", warm.Took)
	}
}

// checkStandsStill checks that a paused environment uses no processor time: by the kernel's own counter and by Lull's.
// The app has a timer that fires ten times a second; asleep, three seconds must pass without the counter moving at all.
// The sandbox may first finish what it is about itself.
func checkStandsStill(t *testing.T, s *stage, asleep rig.Environment) {
	t.Helper()
	var since time.Time
	var last string
	var counted float64 // by Lull, when the counter last moved
	eventually(t, 10*time.Second, "the processor time of a paused environment stands still for 3s", func() (bool, any) {
		counter, err := rig.CgroupCPU(s.Slot, asleep.ID)
		if err != nil {
			t.Fatal(err)
		}
		if counter != last {
			since, last, counted = time.Now(), counter, s.awaitState("chat", "paused").CPUSeconds
		}
		return time.Since(since) > 3*time.Second, counter
	})
	if now := s.awaitState("chat", "paused").CPUSeconds; now != counted || asleep.CPUSeconds == 0 || counted < asleep.CPUSeconds {
		t.Errorf("lull ps counts %gs at the beginning of the pause, then %gs and %gs", asleep.CPUSeconds, counted, now)
	}
}

// The first thing a new user does: lull init, lull deploy, open the page.
func TestInitAndDeploy(t *testing.T) {
	t.Parallel()
	s := sharedNode(t)
	dir := filepath.Join(t.TempDir(), "first-app")
	if result := s.command("init", dir); result.Code != 0 {
		t.Fatalf("lull init: %s", result)
	}
	if again := s.command("init", dir); again.Code != 1 {
		t.Errorf("a second lull init into the same directory: %s", again)
	}
	result := s.command("deploy", dir)
	if result.Code != 0 || strings.TrimSpace(result.Stdout) != s.URL("first-app", "/") {
		t.Fatalf("lull deploy: %s", result)
	}
	if page := s.get("first-app", "/"); !strings.Contains(page.Body, "WebSocket") {
		t.Errorf("the page does not open a WebSocket:\n%s", page.Body)
	}
	if _, err := os.Stat(filepath.Join(dir, "node_modules")); err == nil {
		t.Error("the build has written into the user's directory")
	}
}
