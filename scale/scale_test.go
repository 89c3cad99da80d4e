package scale_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/scale"
)

var limits = scale.Limits{Concurrency: 100, Streams: 1000, Max: 10}

// start is when all timelines begin.
var start = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }

func running(exchanges int) scale.Environment {
	return scale.Environment{State: lull.Running, Exchanges: exchanges}
}

func paused(idle float64) scale.Environment {
	return scale.Environment{State: lull.Paused, Idle: at(idle)}
}

func resuming() scale.Environment {
	return scale.Environment{State: lull.Paused, Idle: at(0), Rising: true}
}

var starting = scale.Environment{State: lull.Starting}

func TestPickTheFullestWithRoom(t *testing.T) {
	leaving := running(50)
	leaving.Leaving = true
	crowded := running(60)
	crowded.Streams = 1000
	for name, c := range map[string]struct {
		envs   []scale.Environment
		stream bool
		want   int
	}{
		"nothing there":             {nil, false, -1},
		"nobody running":            {[]scale.Environment{paused(0), starting, resuming()}, false, -1},
		"the fullest":               {[]scale.Environment{running(3), running(70), running(0)}, false, 1},
		"the fullest is full":       {[]scale.Environment{running(100), running(0), running(1)}, false, 2},
		"all full":                  {[]scale.Environment{running(100), running(100)}, false, -1},
		"the first of equals":       {[]scale.Environment{running(0), running(0)}, false, 0},
		"not one that is leaving":   {[]scale.Environment{leaving, running(1)}, false, 1},
		"exchanges beside streams":  {[]scale.Environment{crowded, running(1)}, false, 0},
		"a stream needs more room":  {[]scale.Environment{crowded, running(1)}, true, 1},
		"no room for a stream left": {[]scale.Environment{crowded}, true, -1},
	} {
		if got := scale.Pick(limits, c.envs, c.stream); got != c.want {
			t.Errorf("%s: picked %d, want %d", name, got, c.want)
		}
	}
}

func TestPlanForAQueue(t *testing.T) {
	held := paused(0)
	held.Streams = 1000
	hibernated := scale.Environment{State: lull.Hibernated, Idle: at(9)}
	stopping := scale.Environment{State: lull.Paused, Leaving: true}
	one := limits
	one.Max = 1
	two := limits
	two.Min = 2
	for name, c := range map[string]struct {
		limits scale.Limits
		queue  scale.Waiting
		envs   []scale.Environment
		want   scale.Step
	}{
		"nothing to do":                     {limits, scale.Waiting{}, nil, scale.Step{}},
		"the first connection":              {limits, scale.Waiting{Exchanges: 1}, nil, scale.Step{Start: 1}},
		"250 at 100":                        {limits, scale.Waiting{Exchanges: 250}, nil, scale.Step{Start: 3}},
		"250, one starting":                 {limits, scale.Waiting{Exchanges: 250}, []scale.Environment{starting}, scale.Step{Start: 2}},
		"250, three starting":               {limits, scale.Waiting{Exchanges: 250}, []scale.Environment{starting, starting, starting}, scale.Step{}},
		"250, max 1":                        {one, scale.Waiting{Exchanges: 250}, nil, scale.Step{Start: 1}},
		"250, max 1, full":                  {one, scale.Waiting{Exchanges: 250}, []scale.Environment{running(100)}, scale.Step{}},
		"2000, max 10":                      {limits, scale.Waiting{Exchanges: 2000}, nil, scale.Step{Start: 10}},
		"resume before start":               {limits, scale.Waiting{Exchanges: 250}, []scale.Environment{starting, paused(1)}, scale.Step{Up: []int{1}, Start: 1}},
		"resume before wake":                {limits, scale.Waiting{Exchanges: 1}, []scale.Environment{hibernated, paused(1)}, scale.Step{Up: []int{1}}},
		"wake before start":                 {limits, scale.Waiting{Exchanges: 1}, []scale.Environment{hibernated}, scale.Step{Up: []int{0}}},
		"resume the one that was busy last": {limits, scale.Waiting{Exchanges: 1}, []scale.Environment{paused(1), paused(5), paused(3)}, scale.Step{Up: []int{1}}},
		"one being resumed is enough":       {limits, scale.Waiting{Exchanges: 100}, []scale.Environment{resuming(), paused(5)}, scale.Step{}},
		"one being resumed is not enough":   {limits, scale.Waiting{Exchanges: 101}, []scale.Environment{resuming(), paused(5)}, scale.Step{Up: []int{1}}},
		"stopping takes up room":            {one, scale.Waiting{Exchanges: 1}, []scale.Environment{stopping}, scale.Step{}},
		"a plain request, streams full":     {limits, scale.Waiting{Exchanges: 1}, []scale.Environment{held}, scale.Step{Up: []int{0}}},
		"a new stream, streams full":        {limits, scale.Waiting{Exchanges: 1, Streams: 1}, []scale.Environment{held}, scale.Step{Start: 1}},
		"held streams, nobody waits":        {limits, scale.Waiting{}, []scale.Environment{held, held}, scale.Step{}},
		"min, nothing there":                {two, scale.Waiting{}, nil, scale.Step{Start: 2}},
		"min, one asleep":                   {two, scale.Waiting{}, []scale.Environment{running(0), paused(0)}, scale.Step{Up: []int{1}}},
		"min and a queue":                   {two, scale.Waiting{Exchanges: 150}, []scale.Environment{starting}, scale.Step{Start: 1}},
		"min is there":                      {two, scale.Waiting{}, []scale.Environment{running(0), starting}, scale.Step{}},
	} {
		if diff := cmp.Diff(c.want, scale.Plan(c.limits, c.envs, c.queue)); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", name, diff)
		}
	}
}

// What Plan asks for is enough for the queue or all there may be, and never more than that.
func TestPlanProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := scale.Limits{Concurrency: rapid.IntRange(1, 5).Draw(t, "concurrency"), Streams: 100, Max: rapid.IntRange(1, 6).Draw(t, "max")}
		l.Min = rapid.IntRange(0, l.Max).Draw(t, "min")
		var envs []scale.Environment
		for i := range rapid.IntRange(0, l.Max).Draw(t, "environments") {
			e := []scale.Environment{running(rapid.IntRange(0, l.Concurrency).Draw(t, "exchanges")), starting, paused(float64(i)), resuming()}[rapid.IntRange(0, 3).Draw(t, "kind")]
			e.Leaving = rapid.Bool().Draw(t, "leaving")
			envs = append(envs, e)
		}
		waiting := rapid.IntRange(0, 40).Draw(t, "waiting")
		step := scale.Plan(l, envs, scale.Waiting{Exchanges: waiting})
		total := len(envs) + step.Start
		if total > l.Max {
			t.Fatalf("%d environments, %+v: more than %d", len(envs), step, l.Max)
		}
		room, up, asleep := step.Start*l.Concurrency, step.Start, 0
		chosen := map[int]bool{}
		for _, i := range step.Up {
			chosen[i] = true
		}
		for i, e := range envs {
			switch sleeps := e.State == lull.Paused && !e.Rising; {
			case e.Leaving:
				if chosen[i] {
					t.Fatal("woke one that is leaving")
				}
			case sleeps && !chosen[i]:
				asleep++
			default:
				room += l.Concurrency - e.Exchanges
				up++
			}
		}
		more := asleep > 0 || total < l.Max
		if more && (room < waiting || up < l.Min) {
			t.Fatalf("%+v: room for %d of %d, %d up, and there could be more", step, room, waiting, up)
		}
		if step.Start > 0 && asleep > 0 {
			t.Fatalf("%+v: started while one was asleep", step)
		}
		if step.Start > 0 && up > l.Min && room-l.Concurrency >= waiting {
			t.Fatalf("%+v: room for %d of %d: one too many", step, room, waiting)
		}
	})
}

func TestComing(t *testing.T) {
	envs := []scale.Environment{running(0), paused(0), starting, resuming(), {State: lull.Starting, Leaving: true}}
	if got := scale.Coming(limits, envs); got != 200 {
		t.Errorf("%d are coming, want 200", got)
	}
}

func TestBackoff(t *testing.T) {
	var b scale.Backoff
	now := at(0)
	var waits []string
	for range 8 { // it dies at every start, and is started as soon as that is allowed
		b.Failed(now, now)
		waits = append(waits, fmt.Sprint(b.Blocked(now)))
		now = b.Until()
		if b.Blocked(now) != 0 {
			t.Fatal("blocked longer than it said")
		}
	}
	if diff := cmp.Diff([]string{"1s", "2s", "4s", "8s", "16s", "32s", "1m0s", "1m0s"}, waits); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	b.Died(now, now.Add(-time.Hour), time.Hour)
	if wait := b.Blocked(now); wait != 0 {
		t.Errorf("blocked for %v although it has lived for an hour", wait)
	}
	const ms = time.Millisecond
	crashes := []time.Duration{0, 0, 250 * ms, 500 * ms, 1000 * ms, 2000 * ms, 4000 * ms, 5000 * ms, 5000 * ms}
	for i, want := range crashes { // it comes up, and dies young
		now = now.Add(6 * time.Second)
		b.Died(now, now.Add(-time.Second), time.Second)
		if got := b.Blocked(now); got != want {
			t.Errorf("death %d: blocked for %v, want %v", i+1, got, want)
		}
	}
	now = now.Add(6 * time.Second)
	if b.Failed(now, now); b.Blocked(now) != time.Second {
		t.Errorf("blocked for %v after a first start that failed, want that crashes do not count as such", b.Blocked(now))
	}
	if b.Died(now.Add(ms), now.Add(ms), 0); b.Until() != now.Add(ms+5*time.Second) {
		t.Errorf("blocked until %v after another crash", b.Until())
	}
	b.Settled(time.Minute)
	if b.Failed(now, now); b.Blocked(now) != time.Second {
		t.Errorf("blocked for %v after it had settled, want a new beginning", b.Blocked(now))
	}
}

// Ten environments that are started for one queue and die of the same thing are one failure.
func TestBackoffCountsARoundOnce(t *testing.T) {
	var b scale.Backoff
	for range 10 {
		b.Failed(at(0.2), at(0))
	}
	if wait := b.Blocked(at(0.2)); wait != time.Second {
		t.Errorf("blocked for %v, want 1s", wait)
	}
	b.Failed(at(1.4), at(1.2))
	if wait := b.Blocked(at(1.4)); wait != 2*time.Second {
		t.Errorf("after the next round: blocked for %v, want 2s", wait)
	}
}
