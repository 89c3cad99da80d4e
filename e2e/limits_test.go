package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// Apps that take all they can get harm themselves alone: beside each another app answers as ever, Lull says which limit
// it was, and the next request is served again.
func TestHogsHarmOnlyThemselves(t *testing.T) {
	s := sharedNode(t)
	s.deploy("apps/slow", "witness")
	for _, hog := range []struct {
		name, resources string
		path            string
		says            string // what Lull says of it
	}{
		{"memory", "memory: 96MB", "/memory", "resources.memory"},
		{"forks", "processes: 40", "/forks", "resources.processes"},
		{"disk-tmp", "disk: 24MB", "/disk?dir=/tmp", "resources.disk"},
		{"disk-app", "disk: 24MB", "/disk?dir=/app", "resources.disk"},
	} {
		t.Run(hog.name, func(t *testing.T) {
			s, app := s.with(t), "hog-"+hog.name
			s.deploy(copyApp(t, "intruder", map[string]string{"lull.yaml": "resources: {" + hog.resources + "}\n"}), app)
			s.get(app, "/")
			s.beside("witness", func() {
				first := s.try(http.MethodGet, app, hog.path, "")
				eventually(t, 20*time.Second, "Lull says which limit it was", func() (bool, any) {
					said := s.logs(app)
					return strings.Contains(said, hog.says), fmt.Sprintf("%d %s\nlogs:\n%s", first.Status, first.Body, tail(said))
				})
				eventually(t, 30*time.Second, "the app serves again", func() (bool, any) {
					again := s.try(http.MethodGet, app, "/", "")
					return again.Status == http.StatusOK, again
				})
			})
		})
	}
}

// A CPU hog gets its share and no more.
func TestProcessorHogGetsItsShare(t *testing.T) {
	s := sharedNode(t)
	s.deploy("apps/slow", "witness")
	s.deploy(copyApp(t, "intruder", map[string]string{"lull.yaml": "resources: {cpu: 0.5}\nidle: {pause: 1m}\n"}), "hog-cpu")
	s.get("hog-cpu", "/cpu")
	s.beside("witness", func() {
		before, start := s.awaitState("hog-cpu", "running"), time.Now()
		eventually(t, 20*time.Second, "the hog has run for a while", func() (bool, any) {
			return time.Since(start) > 4*time.Second, time.Since(start)
		})
		after := s.awaitState("hog-cpu", "running")
		share := (after.CPUSeconds - before.CPUSeconds) / time.Since(start).Seconds()
		t.Logf("the hog got %.2f of a processor", share)
		if share > 0.65 || share < 0.2 {
			t.Errorf("the hog got %.2f of a processor, its limit is 0.5", share)
		}
	})
	if result := s.command("rm", "hog-cpu", "--yes"); result.Code != 0 {
		t.Errorf("lull rm: %s", result)
	}
}

// beside asks an app all the time while work goes on: each answer must come, and come soon.
func (s *stage) beside(app string, work func()) {
	s.t.Helper()
	const soon = 3 * time.Second
	ctx, stop := context.WithCancel(s.t.Context())
	var slowest time.Duration
	var failed error
	var asking sync.WaitGroup
	asking.Go(func() {
		client := s.Client()
		defer client.CloseIdleConnections()
		for ctx.Err() == nil && failed == nil {
			start := time.Now()
			a, err := ask(within(s.t, 20*time.Second), client, http.MethodGet, s.URL(app, "/?ms=10"), "")
			if err != nil || a.Status != http.StatusOK {
				failed = fmt.Errorf("%d %s %v", a.Status, a.Body, err)
			}
			slowest = max(slowest, time.Since(start))
		}
	})
	func() {
		defer asking.Wait()
		defer stop()
		work()
	}()
	s.t.Logf("meanwhile the slowest answer of another app took %s", slowest.Round(time.Millisecond))
	if failed != nil || slowest > soon {
		s.t.Errorf("meanwhile another app's slowest answer took %s (allowed: %s), failure: %v", slowest, soon, failed)
	}
}

// tail returns the last lines of a text.
func tail(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}
