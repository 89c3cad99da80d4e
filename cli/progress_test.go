package cli

import (
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lull-dev/lull/internal/bubble"
)

func TestProgressOnATerminal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		p := startProgress(&out, true, time.Now)
		p.Begin("uploading")
		if _, err := io.Copy(io.Discard, p.Count(strings.NewReader(strings.Repeat("x", 2048)))); err != nil {
			t.Fatal(err)
		}
		bubble.Pass(3050 * time.Millisecond) // the bubble's clock: 30 frames
		p.Begin("building\x1b[2J")
		p.Line("npm said \x1b[1mthis")
		p.Close()
		got := out.String()
		for _, want := range []string{"uploading · 2KB · 3s", `building\x1b[2J`, "\r\x1b[K" + `npm said \x1b[1mthis` + "\n"} {
			if !strings.Contains(got, want) {
				t.Errorf("%q is missing in %q", want, got)
			}
		}
		if !strings.HasSuffix(got, "\r\x1b[K") {
			t.Errorf("the moving line was left on the screen: %q", got[len(got)-40:])
		}
		if strings.Contains(got, "building · ") {
			t.Errorf("bytes or seconds of one phase were shown in the next: %q", got)
		}
	})
}

func TestProgressElsewhere(t *testing.T) {
	var out strings.Builder
	p := startProgress(&out, false, time.Now)
	p.Begin("uploading")
	p.Begin("building")
	p.Line("  npm said this")
	p.Close()
	if want := "uploading\nbuilding\n  npm said this\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}
