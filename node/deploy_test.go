package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/control"
)

func TestManifestThatIsSentGoesBeforeTheFiles(t *testing.T) {
	source := t.TempDir()
	if err := os.WriteFile(filepath.Join(source, "lull.yaml"), []byte("run: from the files\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	sent := lull.DefaultManifest()
	sent.Run = "sent along"
	for want, req := range map[string]control.DeployRequest{"from the files": {}, "sent along": {Manifest: &sent}} {
		if m, err := manifestOf(req, source); err != nil || m.Run != want {
			t.Errorf("%s: got %q, %v", want, m.Run, err)
		}
	}
	sent.Port, sent.Schedules = 0, []lull.Schedule{{Cron: "never"}}
	_, err := manifestOf(control.DeployRequest{Manifest: &sent}, source)
	if lull.KindOf(err) != lull.KindInvalid || !strings.Contains(err.Error(), "port: is 0") || !strings.Contains(err.Error(), "schedules[0].cron") {
		t.Errorf("%v", err)
	}
}
