package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/fleet"
	"github.com/lull-dev/lull/internal/bubble"
	"github.com/lull-dev/lull/sandbox"
	"github.com/lull-dev/lull/sandbox/sandboxtest"
)

// slowly makes a verb of the fake take some time.
func slowly(verb string, d time.Duration) func(context.Context, string, sandbox.Spec) error {
	return func(_ context.Context, got string, _ sandbox.Spec) error {
		if got == verb {
			bubble.Pass(d)
		}
		return nil
	}
}

// refusal gets a place that must be refused.
func (w *world) refusal() (took time.Duration, err error) {
	w.t.Helper()
	began := time.Now()
	p, err := w.Acquire(w.t.Context(), fleet.Want{Why: "GET /"})
	if err == nil {
		w.t.Fatalf("got a place on %s", p.Environment())
	}
	return time.Since(began), err
}

// An app that dies on start: those who wait are told at once, with its last words, and it is not started in a loop.
func TestAppDiesOnStart(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "broken"))
		took, err := w.refusal()
		if took != 50*time.Millisecond {
			t.Errorf("told after %v, want as soon as it died", took)
		}
		checkBackoff(t, err, time.Second)
		took, err = w.refusal()
		if took != 0 || w.fake.Starts() != 1 {
			t.Errorf("during the back-off: told after %v, started %d times", took, w.fake.Starts())
		}
		checkBackoff(t, err, time.Second)
		sleep(400 * time.Millisecond)
		_, err = w.refusal()
		checkBackoff(t, err, 600*time.Millisecond)
		sleep(time.Second)
		took, err = w.refusal()
		if took != 50*time.Millisecond || w.fake.Starts() != 2 {
			t.Errorf("after the back-off: told after %v, started %d times", took, w.fake.Starts())
		}
		checkBackoff(t, err, 2*time.Second)
		sleep(time.Hour)
		if w.fake.Starts() != 2 {
			t.Error("started although nobody asked")
		}
		w.is("")
	})
}

// Ten started at once for a queue die at once: everybody is told, and that was one failure.
func TestStormOnABrokenApp(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "broken"))
		var all sync.WaitGroup
		for range 2000 {
			all.Go(func() {
				if _, err := w.Acquire(t.Context(), fleet.Want{}); fleet.RetryAfter(err) != time.Second {
					t.Errorf("told %v, retry after %v", err, fleet.RetryAfter(err))
				}
			})
		}
		all.Wait()
		if w.fake.Starts() != 10 {
			t.Errorf("started %d", w.fake.Starts())
		}
	})
}

func checkBackoff(t *testing.T, err error, after time.Duration) {
	t.Helper()
	if lull.KindOf(err) != lull.KindStarting || fleet.RetryAfter(err) != after {
		t.Errorf("%s %v, retry after %v; want it in %v", lull.KindOf(err), err, fleet.RetryAfter(err), after)
	}
	if !strings.Contains(err.Error(), "exited with code 1 after 50ms") || !strings.Contains(lull.HintOf(err), "cannot find module express") {
		t.Errorf("says %q, hint %q", err, lull.HintOf(err))
	}
}

// An app that dies once it is up is started again for whoever comes next, unless it goes on and on.
func TestYoungDeathsAreForgivenTwice(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app"))
		for range 3 {
			p := w.acquire("GET /boom")
			w.fake.Sandbox(p.Environment()).Die(sandbox.Exit{Code: 1})
			<-p.Done()
			p.Free()
		}
		took, err := w.refusal()
		if took != 0 || fleet.RetryAfter(err) != 250*time.Millisecond {
			t.Errorf("after three: %v after %v", err, took)
		}
		if want := "chat keeps crashing: it exited with code 1; the next try is in 250ms"; err.Error() != want {
			t.Errorf("says %q, want %q", err, want)
		}
		sleep(250 * time.Millisecond)
		w.warm()
	})
}

// What an app printed is for its owner once it has served; before that it helps whoever tries it out, in moderation.
func TestStrangersDoNotSeeOutput(t *testing.T) {
	const secret = "a session is 1234"
	var broken atomic.Bool
	app := func(p *sandboxtest.Process) int {
		fmt.Fprint(p.Stdout, strings.Repeat(secret+"\n", 20))
		if broken.Load() {
			return 1
		}
		return programs["app"](p)
	}
	shown := func(err error) int { return strings.Count(fmt.Sprintf("%v %s", err, lull.HintOf(err)), secret) }
	for _, served := range []bool{true, false} {
		inBubble(t, func(t *testing.T, w *world) {
			w.fake = sandboxtest.NewFake(map[string]sandboxtest.Program{"app": app})
			w.Fleet = fleet.New(fleet.Config{App: "chat", Driver: w.fake, Prepare: prepare, Journal: w.journal})
			broken.Store(!served)
			w.Use(release(1, "app"))
			if !served {
				if _, err := w.refusal(); shown(err) != 5 || !strings.Contains(err.Error(), "does not start") {
					t.Errorf("before it was ready: %v, %q", err, lull.HintOf(err))
				}
				if err := w.Switch(t.Context(), release(2, "app")); shown(err) != 10 {
					t.Errorf("who deploys it is told %v, %q", err, lull.HintOf(err))
				}
				return
			}
			p := w.acquire("GET /boom")
			w.fake.Sandbox(p.Environment()).Die(sandbox.Exit{Code: 1})
			<-p.Done()
			p.Free()
			hint := "`lull logs chat` shows what it printed."
			if err := p.Err(); shown(err) != 0 || lull.HintOf(err) != hint {
				t.Errorf("who had a place is told %v, %q", err, lull.HintOf(err))
			}
			broken.Store(true)
			_, err := w.refusal()
			if shown(err) != 0 || lull.HintOf(err) != hint || !strings.Contains(err.Error(), "does not start: it exited with code 1") {
				t.Errorf("who waited for the next start is told %v, %q", err, lull.HintOf(err))
			}
		})
	}
}

// While one serves, the failure of another one is not the answer.
func TestScaleOutThatFails(t *testing.T) {
	var broken atomic.Bool
	app := func(p *sandboxtest.Process) int {
		if broken.Load() {
			return 1
		}
		return programs["app"](p)
	}
	inBubble(t, func(t *testing.T, w *world) {
		w.fake = sandboxtest.NewFake(map[string]sandboxtest.Program{"app": app})
		w.Fleet = fleet.New(fleet.Config{App: "chat", Driver: w.fake, Prepare: prepare, Journal: w.journal})
		w.Use(release(1, "app", size(1, 3)))
		p := w.acquire("GET /1")
		broken.Store(true)
		time.AfterFunc(5*time.Second, p.Free)
		q := w.acquire("GET /2")
		if q.Environment() != p.Environment() || q.How() != fleet.Queued {
			t.Errorf("served by %s, %s", q.Environment(), q.How())
		}
		if got := w.fake.Starts(); got != 4 { // one good, then at 0 s, 1 s and 3 s
			t.Errorf("started %d times", got)
		}
		q.Free()
	})
}

func TestAppThatNeverListens(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "silent", func(m *lull.Manifest) { m.Timeout.Start = lull.Duration(10 * time.Second) }))
		took, err := w.refusal()
		if took < 10*time.Second || took > 10100*time.Millisecond {
			t.Errorf("told after %v", took)
		}
		for _, want := range []string{"listens on no port", "10s"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("says %q, which lacks %q", err, want)
			}
		}
		for _, want := range []string{"8080", "timeout.start", "waiting for a database"} {
			if !strings.Contains(lull.HintOf(err), want) {
				t.Errorf("hint %q lacks %q", lull.HintOf(err), want)
			}
		}
	})
}

// An app that listens where it was not told to is found, the second time at once.
func TestPortIsFound(t *testing.T) {
	for program, place := range map[string]string{"literal": "127.0.0.1:3000", "v6": "[::]:5000"} {
		inBubble(t, func(t *testing.T, w *world) {
			w.Use(release(1, program, size(1, 2)))
			p := w.acquire("GET /")
			if get(t, p) != "hello" || p.Waited() > startTime+200*time.Millisecond {
				t.Errorf("%s: place after %v", program, p.Waited())
			}
			if !w.journal.noted("listens on " + place) {
				t.Errorf("%s: notes are %q", program, w.journal.notes)
			}
			if q := w.acquire("GET /"); get(t, q) != "hello" || q.Waited() > startTime+30*time.Millisecond {
				t.Errorf("%s: the second after %v", program, q.Waited())
			}
		})
	}
}

// many listens on some ports that do not speak HTTP, and then, after a while, on one that does.
func many(mute []string, d time.Duration, address string) sandboxtest.Program {
	return func(p *sandboxtest.Process) int {
		for _, a := range mute {
			if _, err := p.Listen(a); err != nil {
				return 1
			}
		}
		return after(d, sandboxtest.HTTPOn(address, hello))(p)
	}
}

func slowHello(w http.ResponseWriter, r *http.Request) {
	select {
	case <-time.After(3 * time.Second):
		hello(w, r)
	case <-r.Context().Done():
	}
}

// noPage answers the test's own request, and leaves every other for / alone, as a bare Socket.IO server does.
func noPage(w http.ResponseWriter, r *http.Request) {
	if r.UserAgent() != "lull" {
		hello(w, r)
		return
	}
	<-r.Context().Done()
}

func TestPortIsChosen(t *testing.T) {
	for name, c := range map[string]struct {
		program sandboxtest.Program
		most    time.Duration
	}{
		"answers no page": {sandboxtest.HTTPOn("127.0.0.1:3000", http.HandlerFunc(noPage)), time.Second},
		"slow to answer":  {sandboxtest.HTTPOn("127.0.0.1:3000", http.HandlerFunc(slowHello)), 3300 * time.Millisecond},
		"PORT comes a little later than another one": {many([]string{"127.0.0.1:3000"}, 50*time.Millisecond, "0.0.0.0:8080"), 80 * time.Millisecond},
		"another one is mute, PORT comes late":       {many([]string{"127.0.0.1:3000"}, 3*time.Second, "0.0.0.0:8080"), 3100 * time.Millisecond},
		"the lowest ones are mute":                   {many([]string{"127.0.0.1:22", "127.0.0.1:6379"}, time.Millisecond, "127.0.0.1:9000"), 2 * time.Second},
		"an ephemeral port besides":                  {many([]string{"127.0.0.1:40000"}, time.Millisecond, "127.0.0.1:3000"), 200 * time.Millisecond},
		"only an ephemeral port":                     {many(nil, time.Millisecond, "127.0.0.1:40000"), 200 * time.Millisecond},
	} {
		inBubble(t, func(t *testing.T, w *world) {
			w.fake = sandboxtest.NewFake(map[string]sandboxtest.Program{"app": c.program})
			w.Fleet = fleet.New(fleet.Config{App: "chat", Driver: w.fake, Prepare: prepare, Journal: w.journal})
			w.Use(release(1, "app"))
			p := w.acquire("GET /")
			if body := get(t, p); body != "hello" || p.Waited() > c.most {
				t.Errorf("%s: place after %v, answers %q", name, p.Waited(), body)
			}
		})
	}
}

func TestListensButNotToHTTP(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.fake = sandboxtest.NewFake(map[string]sandboxtest.Program{"app": many([]string{"127.0.0.1:5432"}, time.Hour, "0.0.0.0:1")})
		w.Fleet = fleet.New(fleet.Config{App: "chat", Driver: w.fake, Prepare: prepare})
		w.Use(release(1, "app", func(m *lull.Manifest) { m.Timeout.Start = lull.Duration(10 * time.Second) }))
		_, err := w.refusal()
		if !strings.Contains(err.Error(), "listens on 127.0.0.1:5432") || !strings.Contains(err.Error(), "8080") {
			t.Errorf("says %q", err)
		}
	})
}

func TestReadyPath(t *testing.T) {
	began := time.Time{}
	health := http.NewServeMux()
	health.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) {
		if time.Since(began) < 3*time.Second {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	ready := func(path string) func(*lull.Manifest) {
		return func(m *lull.Manifest) { m.Ready, m.Timeout.Start = path, lull.Duration(10*time.Second) }
	}
	inBubble(t, func(t *testing.T, w *world) {
		w.fake = sandboxtest.NewFake(map[string]sandboxtest.Program{"app": sandboxtest.HTTP(health)})
		w.Fleet = fleet.New(fleet.Config{App: "chat", Driver: w.fake, Prepare: prepare})
		began = time.Now()
		w.Use(release(1, "app", ready("/health")))
		if p := w.acquire("GET /"); p.Waited() < 3*time.Second || p.Waited() > 3200*time.Millisecond {
			t.Errorf("place after %v", p.Waited())
		}
		err := w.Switch(t.Context(), release(2, "app", ready("/missing")))
		if lull.KindOf(err) != lull.KindNotReady || !strings.Contains(err.Error(), "GET /missing answered 404") {
			t.Errorf("error is %v", err)
		}
	})
}

func TestStartThatFails(t *testing.T) {
	full := errors.New("no space left on device")
	for name, change := range map[string]func(*world, *fleet.Config){
		"driver": func(w *world, _ *fleet.Config) {
			w.fake.Before(func(context.Context, string, sandbox.Spec) error { return full })
		},
		"prepare": func(_ *world, c *fleet.Config) {
			c.Prepare = func(context.Context, lull.Release) (sandbox.Spec, error) { return sandbox.Spec{}, full }
		},
	} {
		inBubble(t, func(t *testing.T, w *world) {
			config := fleet.Config{App: "chat", Driver: w.fake, Prepare: prepare}
			change(w, &config)
			w.Fleet = fleet.New(config)
			w.Use(release(1, "app"))
			if _, err := w.refusal(); lull.KindOf(err) != lull.KindStarting || !strings.Contains(err.Error(), full.Error()) || !errors.Is(err, full) {
				t.Errorf("%s: error is %v", name, err)
			}
		})
	}
}

// shared is a driver whose sandboxes share the host's ports.
type shared struct {
	*sandboxtest.Fake
	mu    sync.Mutex
	ports map[string]bool
}

func (*shared) Capabilities() sandbox.Capabilities { return sandbox.Capabilities{} }

func (s *shared) Start(ctx context.Context, spec sandbox.Spec) (sandbox.Sandbox, error) {
	s.mu.Lock()
	s.ports[spec.Env[len(spec.Env)-1]] = true
	s.mu.Unlock()
	return s.Fake.Start(ctx, spec)
}

func TestSharedPorts(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		driver := &shared{Fake: w.fake, ports: map[string]bool{}}
		w.Fleet = fleet.New(fleet.Config{App: "chat", Driver: driver, Prepare: prepare})
		w.Use(release(1, "app", size(1, 2)))
		for range 2 {
			if p := w.acquire("GET /"); get(t, p) != "hello" || p.Waited() > startTime+30*time.Millisecond {
				t.Errorf("place after %v", p.Waited())
			}
		}
		if len(driver.ports) != 2 || driver.ports["PORT=8080"] {
			t.Errorf("told to listen on %v", driver.ports)
		}
	})
}
