package fleet_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/lull-dev/lull/fleet"
	"github.com/lull-dev/lull/sandbox"
)

// scrape returns all counters and gauges, and the counts of histograms, that are not zero.
func scrape(t *testing.T, registry *prometheus.Registry) (lines []string) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			value := m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			if value != 0 && family.GetName() != "lull_state_seconds_total" {
				lines = append(lines, fmt.Sprintf("%s %s %g", strings.TrimPrefix(family.GetName(), "lull_"), strings.Join(labels, " "), value))
			}
		}
	}
	slices.Sort(lines)
	return lines
}

func TestMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	metrics := fleet.NewMetrics(registry)
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app"))
		s, id := w.stream()
		sleep(time.Minute)
		// It was paused 32 s after its stream began, and ticked 15 s later.
		want := []string{"environments chat paused 1", "moves_total chat paused 2", "moves_total chat running 2", "places_total chat start 1",
			"streams chat true 1", "verb_seconds chat resume 1", "verb_seconds chat start 1", "verbs_total chat ok pause 2",
			"verbs_total chat ok resume 1", "verbs_total chat ok start 1", "wait_seconds chat 1", "wakes_total chat paused tick 1"}
		if diff := cmp.Diff(want, scrape(t, registry)); diff != "" {
			t.Errorf("asleep: (-want +got)\n%s", diff)
		}
		release, err := s.Hold(t.Context(), "websocket data")
		if err != nil {
			t.Fatal(err)
		}
		p := w.acquire("GET /")
		w.fake.Sandbox(id).Die(sandbox.Exit{Code: -1, Signal: "SIGKILL", Limit: sandbox.LimitMemory})
		<-p.Done()
		p.Free()
		release()
		s.Close()
		sleep(time.Second)
		want = []string{"failures_total chat memory 1", "moves_total chat failed 1", "moves_total chat paused 2", "moves_total chat running 3",
			"places_total chat start 1", "places_total chat warm 1", "verb_seconds chat resume 2", "verb_seconds chat start 1",
			"verbs_total chat ok pause 2", "verbs_total chat ok resume 2", "verbs_total chat ok start 1", "wait_seconds chat 2",
			"wakes_total chat paused stream 1", "wakes_total chat paused tick 1"}
		if diff := cmp.Diff(want, scrape(t, registry)); diff != "" {
			t.Errorf("after a crash: (-want +got)\n%s", diff)
		}
		w.Close(0)
		if got := scrape(t, registry); len(got) > 0 {
			t.Errorf("closed: %q", got)
		}
	}, func(c *fleet.Config) { c.Metrics = metrics })
}
