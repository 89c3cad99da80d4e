package e2e

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"
)

// 250 slow requests at once, 100 of which one environment serves at a time, take three environments: not two, not four.
func TestThreeEnvironmentsFor250Requests(t *testing.T) {
	t.Parallel()
	s := sharedNode(t)
	s.deploy(copyApp(t, "slow", map[string]string{"lull.yaml": "concurrency: 100\nidle: {pause: 500ms, stop: 1s}\n"}), "slow")

	count := tally(s.storm("slow", "/?ms=6000", 250))
	if count.served != 250 || len(count.environments) != 3 {
		t.Errorf("250 requests: %s, want all served by 3 environments", count)
	}
	s.awaitZero("slow")
}

// The same with one environment at most: they are served in turn.
func TestOneEnvironmentInTurn(t *testing.T) {
	t.Parallel()
	s := sharedNode(t)
	s.deploy(copyApp(t, "slow", map[string]string{"lull.yaml": "concurrency: 100\nscale: {max: 1}\n"}), "slow-alone")

	start := time.Now()
	count := tally(s.storm("slow-alone", "/?ms=700", 250))
	if count.served != 250 || len(count.environments) != 1 {
		t.Errorf("250 requests: %s, want all served by 1 environment", count)
	}
	if took := time.Since(start); took < 3*700*time.Millisecond {
		t.Errorf("three rounds of 700ms took %s: more than 100 ran at once", took)
	}
}

// 2,000 requests at once to an app that is not running. Not all find room to wait, but every one is answered: by the app,
// or by Lull, which says when to come back.
func TestTwoThousandAtOnceToAStoppedApp(t *testing.T) {
	t.Parallel()
	s := sharedNode(t)
	const most = 3
	s.deploy(copyApp(t, "slow", map[string]string{"lull.yaml": fmt.Sprintf(
		"concurrency: 20\nscale: {max: %d}\nqueue: 1500\ntimeout: {queue: 20s}\nidle: {pause: 300ms, stop: 700ms}\n", most)}), "flood")
	s.awaitZero("flood")

	ctx, stop := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	watching.Go(func() {
		for ctx.Err() == nil {
			if up, err := s.Environments(ctx, "flood"); err == nil && len(up) > most {
				t.Errorf("%d environments are up, more than scale.max: %+v", len(up), up)
				return
			}
		}
	})
	count := tally(s.storm("flood", "/?ms=50", 2000))
	stop()
	watching.Wait()
	t.Log(count)
	if count.served+count.refused != 2000 || count.served < 1500 || len(count.environments) > most {
		t.Errorf("2000 requests: %s, want all answered, at least 1500 by the app", count)
	}
	s.awaitZero("flood")
	if again := s.get("flood", "/?ms=0"); again.Took != "start" {
		t.Errorf("the first request after that came by %q, want \"start\"", again.Took)
	}
}

// reply is how one request of a storm ended.
type reply struct {
	answer
	err error
}

// storm sends requests at once, each on a connection of its own, and waits for all of them.
func (s *stage) storm(app, path string, requests int) []reply {
	client := s.Client()
	defer client.CloseIdleConnections()
	ctx, url := within(s.t, time.Minute), s.URL(app, path)
	replies := make([]reply, requests)
	var waiting sync.WaitGroup
	for i := range replies {
		waiting.Go(func() {
			replies[i].answer, replies[i].err = ask(ctx, client, http.MethodGet, url, "")
		})
	}
	waiting.Wait()
	return replies
}

// outcome counts replies. Every one must be served or refused in good form; the others are lost.
type outcome struct {
	served       int
	refused      int // with 503 and Retry-After
	environments map[string]int
	lost         []string // the first few
}

func tally(replies []reply) outcome {
	o := outcome{environments: map[string]int{}}
	for _, r := range replies {
		switch {
		case r.err == nil && r.Status == http.StatusOK && r.Body == "done\n" && r.Environment != "":
			o.served++
			o.environments[r.Environment]++
		case r.err == nil && r.Status == http.StatusServiceUnavailable && r.Header.Get("Retry-After") != "" && r.Header.Get("Lull-Error") != "":
			o.refused++
		case len(o.lost) < 5:
			o.lost = append(o.lost, fmt.Sprintf("%d %.200q %v", r.Status, r.Body, r.err))
		}
	}
	return o
}

func (o outcome) String() string {
	return fmt.Sprintf("%d served, %d refused, by %v, lost: %q", o.served, o.refused, o.environments, o.lost)
}
