package scale_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/scale"
)

var rules = scale.Rules{Pause: 2 * time.Second, Hibernate: time.Minute, Stop: time.Hour}

// timeline follows environments down the ladder, looking only when it is told to, and writes down what happens.
func timeline(r scale.Rules, envs ...scale.Environment) (story []string) {
	now := at(0)
	for {
		falls, next := scale.Down(now, r, envs)
		for _, f := range falls {
			story = append(story, fmt.Sprintf("%v: %d %v, idle %v", now.Sub(start), f.Index, f.To, f.Idle))
			envs[f.Index].State = f.To
			if f.To == lull.Stopped {
				envs[f.Index].Leaving = true
			}
		}
		if next.IsZero() {
			return story
		}
		if !next.After(now) {
			return append(story, "asks to be asked at once")
		}
		now = next
	}
}

func idleSince(seconds float64) scale.Environment {
	return scale.Environment{State: lull.Running, Idle: at(seconds)}
}

func TestDownTheLadder(t *testing.T) {
	snapshots := rules
	snapshots.Snapshot = true
	kept := rules
	kept.Min = 1
	atOnce := rules
	atOnce.Stop = 0
	for name, c := range map[string]struct {
		rules scale.Rules
		envs  []scale.Environment
		want  []string
	}{
		"nothing there": {rules, nil, nil},
		"busy":          {rules, []scale.Environment{running(1)}, nil},
		"starting":      {rules, []scale.Environment{starting}, nil},
		"without snapshots it stays paused": {rules, []scale.Environment{idleSince(0)},
			[]string{"2s: 0 paused, idle 2s", "1h0m0s: 0 stopped, idle 1h0m0s"}},
		"with snapshots": {snapshots, []scale.Environment{idleSince(0)},
			[]string{"2s: 0 paused, idle 2s", "1m0s: 0 hibernated, idle 1m0s", "1h0m0s: 0 stopped, idle 1h0m0s"}},
		"quiet only later": {rules, []scale.Environment{idleSince(30)},
			[]string{"32s: 0 paused, idle 2s", "1h0m30s: 0 stopped, idle 1h0m0s"}},
		"each in its time": {rules, []scale.Environment{idleSince(5), idleSince(1)},
			[]string{"3s: 1 paused, idle 2s", "7s: 0 paused, idle 2s", "1h0m1s: 1 stopped, idle 1h0m0s", "1h0m5s: 0 stopped, idle 1h0m0s"}},
		"min keeps the one that was busy last": {kept, []scale.Environment{idleSince(5), idleSince(1)},
			[]string{"3s: 1 paused, idle 2s", "1h0m1s: 1 stopped, idle 1h0m0s"}},
		"min keeps the one that is busy": {kept, []scale.Environment{running(1), idleSince(1)},
			[]string{"3s: 1 paused, idle 2s", "1h0m1s: 1 stopped, idle 1h0m0s"}},
		"min keeps the only one":    {kept, []scale.Environment{idleSince(0), paused(0)}, []string{"1h0m0s: 1 stopped, idle 1h0m0s"}},
		"stop: 0s skips the pause":  {atOnce, []scale.Environment{idleSince(0)}, []string{"2s: 0 stopped, idle 2s"}},
		"overdue steps are skipped": {rules, []scale.Environment{idleSince(-7200)}, []string{"0s: 0 stopped, idle 2h0m0s"}},
		"one on its way up stays":   {rules, []scale.Environment{resuming()}, nil},
	} {
		if diff := cmp.Diff(c.want, timeline(c.rules, c.envs...)); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", name, diff)
		}
	}
}

func TestIdle(t *testing.T) {
	const quiet = 30 * time.Second
	for name, c := range map[string]struct {
		activity scale.Activity
		held     bool
		want     time.Time
	}{
		"an exchange":                 {scale.Activity{Busy: 1, Ended: at(5)}, true, time.Time{}},
		"nothing since 5":             {scale.Activity{Ended: at(5)}, true, at(5)},
		"a stream that moved at 7":    {scale.Activity{Ended: at(5), Streams: 1, Moved: at(7)}, true, at(37)},
		"quiet before the last end":   {scale.Activity{Ended: at(50), Streams: 1, Moved: at(7)}, true, at(50)},
		"a stream, and none is held":  {scale.Activity{Ended: at(5), Streams: 1, Moved: at(7)}, false, time.Time{}},
		"no stream, and none is held": {scale.Activity{Ended: at(5)}, false, at(5)},
		"all told to close":           {scale.Activity{Ended: at(5), Streams: 2}, true, at(5)},
	} {
		if got := c.activity.Idle(quiet, c.held); !got.Equal(c.want) {
			t.Errorf("%s: idle from %v, want %v", name, got, c.want)
		}
	}
}
