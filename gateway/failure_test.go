package gateway

import (
	"testing"
	"time"

	"github.com/lull-dev/lull"
)

func TestRetryAfter(t *testing.T) {
	for _, c := range []struct {
		kind  lull.Kind
		later time.Duration
		want  int
	}{
		{lull.KindStarting, 0, 5},
		{lull.KindStarting, 1200 * time.Millisecond, 2}, // the back-off of an app that does not start
		{lull.KindQueueFull, 0, 1},
		{lull.KindCrashed, time.Minute, 0},
	} {
		if got := (failure{status: c.kind.Status(), kind: c.kind, later: c.later}).retryAfter(); got != c.want {
			t.Errorf("%s, %s: %d s, want %d", c.kind, c.later, got, c.want)
		}
	}
}
