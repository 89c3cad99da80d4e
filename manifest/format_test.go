package manifest

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lull-dev/lull"
)

func TestFormat(t *testing.T) {
	m := lull.DefaultManifest()
	m.Name, m.Build, m.Dir = "shop", "set -e\nnpm install\nnpm run build", "/tmp/package"
	m.Function = lull.DefaultFunction()
	m.Function.Handler, m.Function.Runtime = "index.handler", "nodejs20.x"
	m.Concurrency = 10
	m.Env = map[string]string{"B": "yes", "A": "1: #x\n 'y'", "C": "", "D": "  spaces ", "E": "0x1", "F": "~", "G": "a\n\n\nb\n"}
	m.Resources.Memory, m.Resources.CPU = 384*lull.MB+1, 0.5
	m.Schedules = []lull.Schedule{{Name: "tick", Cron: "*/5 * * * *", Path: "/tick", Method: "POST"}}
	text, err := Format(m)
	if err != nil {
		t.Fatal(err)
	}
	want := `name: shop
build: |-
  set -e
  npm install
  npm run build
dir: /tmp/package
function:
  handler: index.handler
  runtime: nodejs20.x
`
	if diff := cmp.Diff(want, string(text[:min(len(text), len(want))])); diff != "" {
		t.Errorf("%s\n%s", diff, text)
	}
	m.Function, m.Concurrency, m.Static = lull.Function{}, 100, lull.Static{Root: "dist", Fallback: "/index.html",
		Redirects: []lull.Redirect{{From: "/a/*", To: "/b/:splat", Status: 301}}}
	if text, err = Format(m); err != nil {
		t.Errorf("%v\n%s", err, text)
	}
}
