package e2e

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A function falls asleep with its poll outstanding, goes to disk, and answers the event that wakes it, with its memory as
// it was.
func TestFunctionSleepsWithItsPoll(t *testing.T) {
	t.Parallel()
	s := sharedNode(t)
	s.deploy("apps/function-node", "counter")
	type said struct {
		Count                 int
		RawPath               string
		QueryStringParameters map[string]string
		Cookies               []string
		IP                    string
	}
	first := s.get("counter", "/a%20b?x=1&x=2")
	want := said{1, "/a%20b", map[string]string{"x": "1,2"}, nil, "127.0.0.1"}
	if diff := cmp.Diff(want, decode[said](t, first.Body)); diff != "" || first.Header.Get("Content-Type") != "application/json" {
		t.Errorf("%v %s", first.Header, diff)
	}
	for n, state := range []string{"paused", "hibernated"} {
		s.awaitState("counter", state)
		woken := s.get("counter", "/")
		if got := decode[said](t, woken.Body); got.Count != n+2 || woken.Environment != first.Environment {
			t.Errorf("after it was %s: %+v from %s", state, got, woken.Environment)
		}
	}
}

// Shell scripts and Go programs are functions, too.
func TestCustomRuntimes(t *testing.T) {
	t.Parallel()
	s := sharedNode(t)
	s.deploy("apps/function-shell", "shell")
	if got := s.get("shell", "/").Body; got != "shell 1" {
		t.Errorf("the shell says %q", got)
	}
	s.awaitState("shell", "hibernated")
	if got := s.get("shell", "/").Body; got != "shell 2" {
		t.Errorf("after its sleep the shell says %q", got)
	}
}

// What a streaming handler writes arrives when it is written.
func TestFunctionStreams(t *testing.T) {
	t.Parallel()
	s := sharedNode(t)
	s.deploy(copyApp(t, "function-node", map[string]string{
		"lull.yaml": "function: {handler: index.stream, runtime: nodejs20.x}\nconcurrency: 2\nscale: {max: 1}\n"}), "streamer")
	client := s.Client()
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(within(t, 30*time.Second), http.MethodGet, s.URL("streamer", "/"), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated || resp.Header.Get("X-Kind") != "stream" || resp.Header.Get("Set-Cookie") != "a=b" {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
	piece := make([]byte, len("first "))
	if _, err := io.ReadFull(resp.Body, piece); err != nil || string(piece) != "first " {
		t.Fatalf("%q %v", piece, err)
	}
	if a := s.try(http.MethodGet, "streamer", "/go", ""); a.Status != http.StatusNoContent {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	if rest, err := io.ReadAll(resp.Body); err != nil || string(rest) != "second" {
		t.Errorf("%q %v", rest, err)
	}
}

// Express behind serverless-http and @vendia/serverless-express, one event at a time and ten.
func TestExpressAsAFunction(t *testing.T) {
	t.Parallel()
	s := sharedNode(t)
	for _, c := range []struct {
		file        string
		concurrency int
	}{{"http", 1}, {"http", 10}, {"vendia", 10}} {
		app := fmt.Sprintf("express-%s-%d", c.file, c.concurrency)
		s.deploy(copyApp(t, "function-express", map[string]string{"lull.yaml": fmt.Sprintf(
			"function: {handler: %s.handler, runtime: nodejs20.x}\nconcurrency: %d\nscale: {max: 1}\ntimeout: {request: 10s}\n", c.file, c.concurrency)}), app)
		if a := s.get(app, "/hello/you?q=a%20b"); a.Body != "hello you" || a.Header.Get("X-Query") != "a b" || !strings.HasPrefix(a.Header.Get("Set-Cookie"), "seen=yes") {
			t.Errorf("%s: %q %v", app, a.Body, a.Header)
		}
		if a := s.must(http.MethodPost, app, "/sum", `{"numbers": [1, 2, 3]}`); a.Body != `{"sum":6}` {
			t.Errorf("%s: %s", app, a.Body)
		}
		if a := s.get(app, "/picture"); a.Body != "\x89P\x00\xff" || a.Header.Get("Content-Type") != "image/png" {
			t.Errorf("%s: %q %v", app, a.Body, a.Header)
		}
		if c.concurrency == 1 {
			continue
		}
		// One that never answers and one that throws do not disturb the others.
		ended := make(chan answer, 2)
		for _, path := range []string{"/never", "/throws"} {
			go func() { ended <- s.storm(app, path, 1)[0].answer }() // ends with the request
		}
		for n := range 20 {
			if a := s.get(app, fmt.Sprintf("/hello/%d", n)); a.Body != fmt.Sprintf("hello %d", n) {
				t.Errorf("%s, beside them: %q", app, a.Body)
			}
		}
		statuses := []int{(<-ended).Status, (<-ended).Status}
		slices.Sort(statuses)
		if diff := cmp.Diff([]int{http.StatusBadGateway, http.StatusGatewayTimeout}, statuses); diff != "" {
			t.Errorf("%s: the two were answered with %s", app, diff)
		}
		if up := s.environments(app); len(up) != 1 || len(up[0].Moves) > 4 {
			t.Errorf("%s: %+v", app, up)
		}
	}
}

// Invocations at random moments while the function falls asleep as fast as it goes: none is lost and none is run twice.
func TestNoInvocationIsLostOrRunTwice(t *testing.T) {
	t.Parallel()
	s := sharedNode(t)
	s.deploy(copyApp(t, "function-node", map[string]string{"lull.yaml": "function: {handler: index.handler, runtime: nodejs20.x}\n" +
		"scale: {max: 1}\nidle: {pause: 5ms, hibernate: 40ms}\n"}), "sleepy")
	total := times(500, 10_000)
	const clients = 4
	seen := make([][]int, clients)
	var all sync.WaitGroup
	for c := range clients {
		all.Go(func() {
			chance := rand.New(rand.NewPCG(uint64(c), 4))
			client := s.Client()
			defer client.CloseIdleConnections()
			pause := time.NewTimer(0)
			defer pause.Stop()
			for range total / clients {
				<-pause.C
				a, err := ask(within(t, time.Minute), client, http.MethodPost, s.URL("sleepy", "/"), "")
				if err != nil || a.Status != http.StatusOK {
					t.Errorf("%d %.200s %v", a.Status, a.Body, err)
					return
				}
				seen[c] = append(seen[c], decode[struct{ Count int }](t, a.Body).Count)
				pause.Reset(time.Duration(chance.ExpFloat64() * float64(60*time.Millisecond)))
			}
		})
	}
	all.Wait()
	counts := slices.Concat(seen...)
	slices.Sort(counts)
	for i, count := range counts {
		if count != i+1 {
			t.Fatalf("after %d invocations the function has counted %d", i+1, count)
		}
	}
	if up := s.environments("sleepy"); len(up) != 1 {
		t.Errorf("%+v", up)
	}
}

// An error in a function is an error of that invocation alone, and its reason is in the log.
func TestFunctionFails(t *testing.T) {
	t.Parallel()
	s := sharedNode(t)
	dir := copyApp(t, "function-node", nil)
	writeFile(t, filepath.Join(dir, "index.mjs"), []byte(`
let count = 0;
export const handler = async (event) => {
  count++;
  switch (event.rawPath) {
    case '/throws': throw new RangeError('out of bounds');
    case '/broken': return { statusCode: 200, headers: { 'x': 'a\r\nSet-Cookie: b' } };
    case '/slow': await new Promise((resolve) => setTimeout(resolve, 60_000)); break;
    case '/blocked': for (;;);
    case '/exits': process.exit(7);
  }
  return { count };
};
`))
	writeFile(t, filepath.Join(dir, "lull.yaml"), []byte("function: {handler: index.handler, runtime: nodejs20.x}\nscale: {max: 1}\ntimeout: {request: 1500ms}\n"))
	s.deploy(dir, "faulty")
	for _, c := range []struct {
		path   string
		status int
		says   string
	}{
		{"/throws", http.StatusBadGateway, "RangeError"},
		{"/broken", http.StatusBadGateway, "characters that no header may have"},
		{"/slow", http.StatusGatewayTimeout, "timed out after 1.50 seconds"},
		{"/blocked", http.StatusGatewayTimeout, "did not answer in time"},
		{"/exits", http.StatusBadGateway, "exit status 7"},
	} {
		if a := s.try(http.MethodGet, "faulty", c.path, ""); a.Status != c.status {
			t.Errorf("%s: %d %s", c.path, a.Status, a.Body)
		}
		if logs := s.logs("faulty"); !strings.Contains(logs, c.says) {
			t.Errorf("%s: the log does not say %q:\n%s", c.path, c.says, logs)
		}
		s.get("faulty", "/")
	}
	if up := s.environments("faulty"); len(up) != 1 {
		t.Errorf("%+v", up)
	}
}

// An event that was acknowledged is not lost when the node is killed: what had not been done is done by the node after it. The
// first takes so long that the others wait behind it until the kill: of what was done right before, the output may be lost.
func TestEventsOutliveAKill(t *testing.T) {
	t.Parallel()
	s, binary, dir := ownProgram(t)
	app := copyApp(t, "function-node", nil)
	writeFile(t, filepath.Join(app, "index.mjs"), []byte(`
export const handler = async ({ number }) => {
  await new Promise((resolve) => setTimeout(resolve, number === 0 ? 10_000 : 50));
  console.log('done ' + number + '.');
};
`))
	writeFile(t, filepath.Join(app, "lull.yaml"), []byte("function: {handler: index.handler, runtime: nodejs20.x}\nscale: {max: 1}\n"))
	s.deploy(app, "worker")
	const events = 30
	for number := range events {
		s.send("worker", fmt.Sprintf(`{"number": %d}`, number))
	}
	s.Kill()

	s = ownNode(t, binary, dir)
	eventually(t, time.Minute, "all events are done", func() (bool, any) {
		logs := s.logs("worker")
		for number := range events {
			if line := fmt.Sprintf("done %d.", number); !strings.Contains(logs, line) {
				return false, line
			}
		}
		return true, nil
	})
	s.end(binary)
}

// send invokes a function asynchronously, which must be acknowledged.
func (s *stage) send(app, payload string) {
	s.t.Helper()
	token, err := s.Token()
	if err != nil {
		s.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(within(s.t, time.Minute), http.MethodPost, s.API+"/2015-03-31/functions/"+app+"/invocations", strings.NewReader(payload))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("X-Amz-Invocation-Type", "Event")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		s.t.Fatalf("%s", resp.Status)
	}
}

// An event that its function failed on is kept, can be looked at, and is delivered again when somebody says so.
func TestDeadLetters(t *testing.T) {
	t.Parallel()
	s := sharedNode(t)
	s.deploy(copyApp(t, "function-node", map[string]string{
		"index.mjs": "const seen = new Set();\nexport const handler = async ({ order }) => {\n" +
			"  if (!seen.has(order)) { seen.add(order); throw new Error('no paper'); }\n  console.log('printed ' + order + '.');\n};\n",
		"lull.yaml": "function: {handler: index.handler, runtime: nodejs20.x, retries: 0}\nscale: {max: 1}\n"}), "printer")
	for order := range 2 {
		s.send("printer", fmt.Sprintf(`{"order": %d}`, order))
	}
	type event struct{ ID, State, LastError string }
	list := func() []event { return decode[[]event](t, s.command("events", "printer", "--json").Stdout) }
	eventually(t, 20*time.Second, "both events are dead", func() (bool, any) {
		events := list()
		return len(events) == 2 && events[0].State == "dead" && events[1].State == "dead", events
	})
	first := list()[0]
	if !strings.Contains(first.LastError, "no paper") {
		t.Errorf("%+v", first)
	}
	if shown := s.command("events", "printer", "show", first.ID); shown.Code != 0 || !strings.Contains(shown.Stdout, `{"order": `) {
		t.Errorf("%s", shown)
	}
	if again := s.command("events", "printer", "retry", "--all"); again.Code != 0 {
		t.Errorf("%s", again)
	}
	eventually(t, 20*time.Second, "both orders are printed", func() (bool, any) {
		logs := s.logs("printer")
		return strings.Contains(logs, "printed 0.") && strings.Contains(logs, "printed 1.") && len(list()) == 0, logs
	})
}

// The event formats of REST APIs and load balancers, asleep and awake.
func TestOtherPayloads(t *testing.T) {
	t.Parallel()
	s := sharedNode(t)
	for payload, answer := range map[string]string{
		"1.0": "multiValueHeaders: { 'Set-Cookie': ['a=1', 'b=2'] }, headers: { 'x-format': event.version + ' ' + event.resource }",
		"alb": "headers: { 'Set-Cookie': 'a=1', 'x-format': event.requestContext.elb.targetGroupArn.split(':')[1] + ' ' + typeof event.version }, statusDescription: '202 Accepted'",
	} {
		app := "payload-" + strings.Trim(payload, ".0")
		s.deploy(copyApp(t, "function-node", map[string]string{
			"index.mjs": "export const handler = async (event) => ({ statusCode: 202, " + answer + ",\n" +
				"  body: JSON.stringify([event.httpMethod, event.path, event.queryStringParameters.q, event.headers['x-one'] ?? event.headers['X-One'], event.body]) });\n",
			"lull.yaml": "function: {handler: index.handler, runtime: nodejs20.x, payload: \"" + payload + "\"}\nidle: {pause: 300ms, hibernate: 900ms}\n"}), app)
		for _, state := range []string{"running", "hibernated"} {
			s.awaitState(app, state)
			req, err := http.NewRequestWithContext(within(t, 20*time.Second), http.MethodPost, s.URL(app, "/a/b?q=1"), strings.NewReader(`{"x":1}`))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("X-One", "1")
			req.Header.Set("Content-Type", "application/json")
			resp, err := s.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if string(body) != `["POST","/a/b","1","1","{\"x\":1}"]` || resp.StatusCode != http.StatusAccepted || err != nil {
				t.Errorf("%s, %s: %s %s %v", payload, state, resp.Status, body, err)
			}
			want, cookies := "1.0 /{proxy+}", []string{"a=1", "b=2"}
			if payload == "alb" {
				want, cookies = "aws undefined", []string{"a=1"}
			}
			if got := resp.Header.Get("X-Format"); got != want {
				t.Errorf("%s, %s: %q", payload, state, got)
			}
			if diff := cmp.Diff(cookies, resp.Header.Values("Set-Cookie")); diff != "" {
				t.Errorf("%s, %s: %s", payload, state, diff)
			}
		}
	}
}
