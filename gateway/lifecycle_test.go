package gateway

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/fleet"
	"github.com/prometheus/client_golang/prometheus"
)

// failed checks an answer made by Lull.
func failed(t *testing.T, answer *http.Response, body string, kind lull.Kind) {
	t.Helper()
	if answer.StatusCode != kind.Status() || answer.Header.Get("Lull-Error") != string(kind) {
		t.Fatalf("answer is %v %s, want %s", answer, body, kind)
	}
	var told struct{ Error, Message, Hint string }
	if err := json.Unmarshal([]byte(body), &told); err != nil || told.Error != string(kind) || told.Message == "" {
		t.Errorf("body is %q, %v", body, err)
	}
	if (answer.StatusCode == 503) != (answer.Header.Get("Retry-After") != "") {
		t.Errorf("Retry-After is %q on a %d", answer.Header.Get("Retry-After"), answer.StatusCode)
	}
}

func TestErrorsOfTheFleet(t *testing.T) {
	for _, kind := range []lull.Kind{lull.KindQueueFull, lull.KindStarting, lull.KindDraining, lull.KindTimeout, lull.KindCrashed} {
		d := openHandler(t, Config{}, hello)
		d.fleet.acquire = acquireFunc(func(context.Context) error {
			return fmt.Errorf("acquire: %w", &lull.Error{Kind: kind, Message: "It is so.", Hint: "Do this."})
		})
		answer, body := d.get(d.client(), "http://app.test/")
		failed(t, answer, body, kind)
		if !strings.Contains(body, "It is so.") || !strings.Contains(body, "Do this.") {
			t.Errorf("body is %s", body)
		}
	}
}

func TestNoSuchApp(t *testing.T) {
	d := openHandler(t, Config{Domain: "test"}, hello)
	client := d.client()
	answer, body := d.get(client, "http://none.test/")
	failed(t, answer, body, lull.KindNoApp)

	request := newRequest(t, "GET", "http://none.test/<script>", nil)
	request.Header.Set("Accept", "text/html,*/*")
	answer, body = d.do(client, request)
	if answer.StatusCode != 404 || !strings.HasPrefix(answer.Header.Get("Content-Type"), "text/html") ||
		!strings.Contains(body, "There is no app at &#34;none.test&#34;.") {
		t.Errorf("page is %v %s", answer, body)
	}
	answer, body = d.do(client, newRequest(t, "HEAD", "http://none.test/", nil))
	if answer.StatusCode != 404 || body != "" || answer.ContentLength <= 0 {
		t.Errorf("answer to HEAD is %v", answer)
	}
}

func TestInsidesOfAnErrorAreNotShown(t *testing.T) {
	d := openHandler(t, Config{}, hello)
	d.fleet.acquire = acquireFunc(func(context.Context) error { return errors.New("secret path") })
	d.Log = Config{}.withDefaults().Log
	answer, body := d.get(d.client(), "http://app.test/")
	failed(t, answer, body, lull.KindInternal)
	if strings.Contains(body, "secret") {
		t.Errorf("body is %s", body)
	}
}

func TestAppThatGoesBeforeItsAnswer(t *testing.T) {
	gone := &lull.Error{Kind: lull.KindCrashed, Message: "The app exited with code 3."}
	t.Run("its environment has ended", func(t *testing.T) {
		var d *door
		d = openRaw(t, Config{}, func(conn net.Conn, in *bufio.Reader) {
			http.ReadRequest(in)
			d.env.end(gone)
		})
		answer, body := d.get(d.client(), "http://app.test/")
		failed(t, answer, body, lull.KindCrashed)
		if !strings.Contains(body, "exited with code 3") {
			t.Errorf("body is %s", body)
		}
	})
	t.Run("its environment has ended without a word on the connection", func(t *testing.T) {
		var d *door
		d = openRaw(t, Config{}, func(conn net.Conn, in *bufio.Reader) {
			http.ReadRequest(in)
			d.env.end(gone)
			io.Copy(io.Discard, in)
		})
		answer, body := d.get(d.client(), "http://app.test/")
		failed(t, answer, body, lull.KindCrashed)
	})
	t.Run("it only closed the connection", func(t *testing.T) {
		d := openRaw(t, Config{}, func(conn net.Conn, in *bufio.Reader) { http.ReadRequest(in) })
		client := d.client()
		answer, body := d.get(client, "http://app.test/")
		failed(t, answer, body, lull.KindRefused)
		if !strings.Contains(body, "lull logs app") {
			t.Errorf("body is %s", body)
		}
		answer, body = d.do(client, newRequest(t, "POST", "http://app.test/", strings.NewReader("x")))
		failed(t, answer, body, lull.KindRefused)
	})
	t.Run("it does not listen", func(t *testing.T) {
		d := open(t, Config{}, func(context.Context) (net.Conn, error) { return nil, errors.New("refused") })
		answer, body := d.get(d.client(), "http://app.test/")
		failed(t, answer, body, lull.KindRefused)
	})
	t.Run("it does not speak HTTP", func(t *testing.T) {
		for _, said := range []string{"220 mail ready\r\n\r\n", "HTTP/1.1 200 OK\nX: y\n\n", "HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
			"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("y", 70000)} {
			d := openRaw(t, Config{}, func(conn net.Conn, in *bufio.Reader) {
				http.ReadRequest(in)
				io.WriteString(conn, said)
				io.Copy(io.Discard, in)
			})
			answer, body := d.get(d.client(), "http://app.test/")
			failed(t, answer, body, lull.KindRefused)
		}
	})
	t.Run("it takes too long", func(t *testing.T) {
		d := openRaw(t, Config{}, func(conn net.Conn, in *bufio.Reader) { io.Copy(io.Discard, in) })
		d.apps.settings.RequestTimeout = 50 * time.Millisecond
		answer, body := d.get(d.client(), "http://app.test/")
		failed(t, answer, body, lull.KindTimeout)
		answer, body = d.do(d.client(), newRequest(t, "POST", "http://app.test/", &endless{100_000}))
		failed(t, answer, body, lull.KindTimeout)
		if late := d.env.late.Load(); late != 2 {
			t.Errorf("the fleet was told %d times", late)
		}
	})
	t.Run("it does not read", func(t *testing.T) {
		over := make(chan struct{})
		defer close(over)
		d := openRaw(t, Config{}, func(conn net.Conn, in *bufio.Reader) { <-over })
		d.apps.settings.RequestTimeout = 50 * time.Millisecond
		c := d.dial().send("POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 1000000000\r\n\r\n")
		go io.Copy(c.Conn, &endless{100 << 20})
		answer, err := http.ReadResponse(c.in, nil)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(answer.Body)
		failed(t, answer, string(body), lull.KindTimeout)
	})
}

// TestTimeToAnswerBeginsAfterTheRequest: an upload may take longer than an answer.
func TestTimeToAnswerBeginsAfterTheRequest(t *testing.T) {
	d := openHandler(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n)
	})
	d.apps.settings.RequestTimeout = 100 * time.Millisecond
	say, hear := io.Pipe()
	go func() {
		defer hear.Close()
		tick := time.NewTicker(30 * time.Millisecond)
		defer tick.Stop()
		for range 10 {
			<-tick.C
			io.WriteString(hear, "piece")
		}
	}()
	if answer, body := d.do(d.client(), newRequest(t, "POST", "http://app.test/", say)); body != "50" {
		t.Errorf("answer is %v %s", answer, body)
	}
}

// TestAppThatGoesInTheMiddle: what has arrived is passed on, but never looks whole.
func TestAppThatGoesInTheMiddle(t *testing.T) {
	for _, test := range []struct{ name, version, head string }{
		{"length", "HTTP/1.1", "Content-Length: 100\r\n\r\n"},
		{"chunks", "HTTP/1.1", "Transfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n9\r\nhal"},
		{"chunks for HTTP/1.0", "HTTP/1.0", "Transfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n9\r\nhal"},
		{"chunks for HTTP/1.0, broken", "HTTP/1.0", "Transfer-Encoding: chunked\r\n\r\n4\r\nsome\r\nzz\r\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			leave := make(chan struct{})
			d := openRaw(t, Config{}, func(conn net.Conn, in *bufio.Reader) {
				http.ReadRequest(in)
				io.WriteString(conn, "HTTP/1.1 200 OK\r\n"+test.head+"more")
				<-leave
			})
			c := d.dial().send("GET / %s\r\nHost: app.test\r\n\r\n", test.version)
			close(leave)
			answer, err := http.ReadResponse(c.in, nil)
			if err != nil {
				t.Fatal(err)
			}
			if body, err := io.ReadAll(answer.Body); err == nil {
				t.Errorf("the body %q looks whole", body)
			}
			d.env.awaitCounts(t, counts{})
		})
	}
}

func TestEnvironmentThatEndsBeforeItIsReached(t *testing.T) {
	d := openHandler(t, Config{}, hello)
	dead := newFakeEnvironment("env-0", func(context.Context) (net.Conn, error) { return nil, errors.New("refused") })
	dead.end(&lull.Error{Kind: lull.KindCrashed, Message: "Gone."})
	var asked atomic.Int64
	d.fleet.acquire = func(context.Context, fleet.Want) (fleet.Place, error) {
		if asked.Add(1) == 1 {
			return dead.place(), nil
		}
		return d.env.place(), nil
	}
	answer, body := d.get(d.client(), "http://app.test/")
	if body != "hello" || answer.Header.Get("Lull-Environment") != "env-1" {
		t.Errorf("answer is %v %s", answer, body)
	}
	if got := dead.counts(); got != (counts{}) {
		t.Errorf("the dead environment has %v", got)
	}
}

// TestKeptConnectionThatIsDead: the app closes a connection at the moment the next request is on its way.
func TestKeptConnectionThatIsDead(t *testing.T) {
	var conns, changes atomic.Int64
	d := openRaw(t, Config{}, func(conn net.Conn, in *bufio.Reader) {
		first := conns.Add(1)%2 == 1
		for i := 0; ; i++ {
			request, err := http.ReadRequest(in)
			if err != nil || first && i == 1 { // closes with the second request read
				return
			}
			io.Copy(io.Discard, request.Body)
			if request.Method != "GET" {
				changes.Add(1)
			}
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	client := d.client()
	d.get(client, "http://app.test/")
	if answer, body := d.get(client, "http://app.test/"); body != "ok" {
		t.Errorf("the second GET was answered with %v %s", answer, body)
	}
	if got := d.env.dials.Load(); got != 2 {
		t.Errorf("dialled %d times, want 2", got)
	}
	for i, method := range []string{"POST", "PUT", "DELETE"} {
		d.fleet.env = newFakeEnvironment(fmt.Sprintf("env-%d", i+2), d.env.dial) // whose connection dies in the same way
		d.get(client, "http://app.test/")
		answer, body := d.do(client, newRequest(t, method, "http://app.test/", http.NoBody))
		failed(t, answer, body, lull.KindRefused)
		if changes.Load() != 0 {
			t.Errorf("%s was sent twice", method)
		}
		conns.Add(1) // the next connection is a first one again
	}
}

// TestRequestThatTheAppHasNotBegun is sent again, once, over another connection, if all of it is here.
func TestRequestThatTheAppHasNotBegun(t *testing.T) {
	var refusals atomic.Int64 // that are left
	d := openRaw(t, Config{}, func(conn net.Conn, in *bufio.Reader) {
		request, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		body, _ := io.ReadAll(request.Body)
		if refusals.Add(-1) >= 0 {
			io.WriteString(conn, "HTTP/1.1 503 Service Unavailable\r\nLull-Error: not-begun\r\nRetry-After: 1\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbusy")
			return
		}
		fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body)
	})
	for _, c := range []struct {
		refusals int64
		body     io.Reader
		status   int
		want     string
		dials    int64
	}{
		{1, strings.NewReader("small"), 200, "small", 2},
		{1, http.NoBody, 200, "", 2},
		{2, strings.NewReader("small"), 503, "busy", 2},
		{1, strings.NewReader(strings.Repeat("x", 1<<20)), 503, "busy", 1},
	} {
		refusals.Store(c.refusals)
		before := d.env.dials.Load()
		answer, body := d.do(d.client(), newRequest(t, "POST", "http://app.test/", c.body))
		if answer.StatusCode != c.status || body != c.want || answer.Header.Get("Lull-Error") != "" {
			t.Errorf("%+v: answer is %v %q", c, answer, body)
		}
		if got := d.env.dials.Load() - before; got != c.dials {
			t.Errorf("%+v: dialled %d times", c, got)
		}
	}
}

// TestRequestThatKillsItsEnvironment: a GET over a kept connection of which the app dies is not sent to a second
// environment, which would die of it as well. The end of the connection is here before the news of the environment's.
func TestRequestThatKillsItsEnvironment(t *testing.T) {
	gone := &lull.Error{Kind: lull.KindCrashed, Message: "The app exited with code 3."}
	var d *door
	var second *fakeEnvironment
	var served, deaths atomic.Int64
	d = openRaw(t, Config{}, func(conn net.Conn, in *bufio.Reader) {
		for {
			request, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			if request.URL.Path == "/kill" {
				env := d.env
				if deaths.Add(1) > 1 {
					env = second
				}
				conn.Close()
				time.AfterFunc(20*time.Millisecond, func() { env.end(gone) })
				return
			}
			served.Add(1)
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	reach := d.env.dial
	d.env.dial = func(ctx context.Context) (net.Conn, error) {
		if d.env.dials.Load() == 1 {
			return reach(ctx)
		}
		<-d.env.done // a dying environment takes no connection
		return nil, gone
	}
	second = newFakeEnvironment("env-2", reach)
	d.fleet.acquire = func(context.Context, fleet.Want) (fleet.Place, error) {
		select {
		case <-d.env.done:
			return second.place(), nil
		default:
			return d.env.place(), nil
		}
	}
	client := d.client()
	d.get(client, "http://app.test/")
	answer, body := d.get(client, "http://app.test/kill")
	failed(t, answer, body, lull.KindCrashed)
	if served.Load() != 1 || deaths.Load() != 1 || second.dials.Load() != 0 {
		t.Errorf("%d requests were served, %d environments died, the second was reached %d times; want 1, 1, 0",
			served.Load(), deaths.Load(), second.dials.Load())
	}
}

func TestKeptConnectionsAreClosedSoon(t *testing.T) {
	closed := make(chan struct{}, 10)
	d := openRaw(t, Config{}, func(conn net.Conn, in *bufio.Reader) {
		seen(conn, in)
		closed <- struct{}{}
	})
	d.apps.settings.IdlePause = 40 * time.Millisecond
	d.get(d.client(), "http://app.test/")
	select {
	case <-closed:
	case <-time.After(5 * time.Second):
		t.Error("an unused connection stays open")
	}
}

func TestSlowClients(t *testing.T) {
	config := Config{HeadTimeout: 50 * time.Millisecond, IdleTimeout: 50 * time.Millisecond, BodyTimeout: 50 * time.Millisecond}
	d := openHandler(t, config, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/early" {
			control := http.NewResponseController(w)
			control.EnableFullDuplex()
			w.Header().Set("Content-Length", "10")
			control.Flush()
		}
		io.Copy(w, r.Body)
	})
	for _, test := range []struct{ name, sent, want string }{
		{"says nothing", "", ""},
		{"half a head", "GET / HTTP/1.1\r\nHost: app.test\r\n", "HTTP/1.1 408"},
		{"half a body", "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 10\r\n\r\nabc", "HTTP/1.1 408"},
		{"half a body that an answer waits for", "POST /early HTTP/1.1\r\nHost: app.test\r\nContent-Length: 10\r\n\r\nabc",
			"HTTP/1.1 200"},
		{"idle after an answer", "GET / HTTP/1.1\r\nHost: app.test\r\n\r\n", "HTTP/1.1 200"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := d.dial().send("%s", test.sent)
			got, _ := c.rest()
			if !strings.HasPrefix(got, test.want) || test.want == "" && got != "" {
				t.Errorf("answer is %q", got)
			}
			d.env.awaitCounts(t, counts{})
		})
	}
	t.Run("a byte at a time", func(t *testing.T) {
		c := d.dial().send("GET / HTTP/1.1\r\nHost: app.test\r\nX: ")
		over := make(chan struct{})
		defer func() { <-over }()
		go func() {
			defer close(over)
			tick := time.NewTicker(2 * time.Millisecond)
			defer tick.Stop()
			for range tick.C {
				if _, err := io.WriteString(c.Conn, "y"); err != nil {
					return
				}
			}
		}()
		if got := c.head(); !strings.HasPrefix(got, "HTTP/1.1 408") {
			t.Errorf("answer is %q", got)
		}
		c.Close()
	})
}

func TestClientThatDoesNotRead(t *testing.T) {
	cancelled := make(chan struct{})
	d := openHandler(t, Config{WriteTimeout: 100 * time.Millisecond}, func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(w, &endless{1 << 30})
		if err != nil {
			close(cancelled)
		}
	})
	d.dial().send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n")
	select {
	case <-cancelled:
	case <-time.After(10 * time.Second):
		t.Fatal("the app's answer is still waited for")
	}
	d.env.awaitCounts(t, counts{})
}

func TestMaxConnections(t *testing.T) {
	d := openHandler(t, Config{MaxConnections: 2}, hello)
	var held []*raw
	for range 2 {
		c := d.dial().send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n")
		c.head()
		c.take(len("hello"))
		held = append(held, c)
	}
	third := d.dial().send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n")
	if got, _ := third.rest(); !strings.HasPrefix(got, "HTTP/1.1 503") || !strings.Contains(got, "Retry-After") {
		t.Errorf("the third connection got %q", got)
	}
	third.Close()
	held[0].Close()
	eventually(t, func() error {
		c := d.dial()
		defer c.Close()
		fmt.Fprint(c.Conn, "GET / HTTP/1.1\r\nHost: app.test\r\n\r\n")
		if line, _ := c.in.ReadString('\n'); !strings.HasPrefix(line, "HTTP/1.1 200") {
			return fmt.Errorf("after one left, the next gets %q", line)
		}
		return nil
	})
}

func TestShutdownLetsExchangesEnd(t *testing.T) {
	began, finish := make(chan struct{}), make(chan struct{})
	d := openHandler(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		close(began)
		<-finish
		io.WriteString(w, "hello")
	})
	idle := d.dial()
	busy := d.dial().send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n")
	<-began
	over := make(chan error, 1)
	go func() { over <- d.Shutdown(context.Background()) }()
	if got, err := idle.rest(); got != "" || err != nil {
		t.Errorf("the idle connection ended with %q, %v", got, err)
	}
	eventually(t, func() error {
		conn, err := net.Dial("tcp", d.addr)
		if err == nil {
			conn.Close()
			return errors.New("still accepts")
		}
		return nil
	})
	select {
	case err := <-over:
		t.Fatalf("Shutdown returned %v with an exchange under way", err)
	default:
	}
	close(finish)
	if got, err := busy.rest(); !strings.HasSuffix(got, "hello") || !strings.Contains(got, "Connection: close") || err != nil {
		t.Errorf("the exchange ended with %q, %v", got, err)
	}
	if err := <-over; err != nil {
		t.Error(err)
	}
}

func TestShutdownCutsWhatIsLeft(t *testing.T) {
	d := openRaw(t, Config{}, func(conn net.Conn, in *bufio.Reader) { io.Copy(io.Discard, in) })
	c := d.dial().send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n")
	d.env.awaitCounts(t, counts{Places: 1})
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	if err := d.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown returned %v", err)
	}
	if got, err := c.rest(); err == nil && got == "" {
		t.Error("the cut looks like an end")
	}
}

func TestMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	d := openHandler(t, Config{Metrics: registry}, hello)
	client := d.client()
	d.get(client, "http://app.test/")
	d.get(client, "http://none.test/")
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			name := family.GetName()
			for _, label := range m.GetLabel() {
				name += " " + label.GetValue()
			}
			got[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	for name, want := range map[string]float64{
		"lull_gateway_links": 1, "lull_gateway_answers_total 2xx": 1,
		"lull_gateway_failures_total no-app": 1, "lull_gateway_wait_seconds warm": 1, "lull_gateway_body_bytes_total out": 5,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
}
