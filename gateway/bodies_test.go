package gateway

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// bulk is how much is moved to show that memory stays flat.
func bulk() int64 {
	if raceEnabled {
		return 256 << 20
	}
	return 1 << 30
}

// endless yields n bytes of a pattern.
type endless struct{ left int64 }

func (e *endless) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), e.left))
	for i := 0; i < n; i += len(pattern) {
		copy(p[i:n], pattern)
	}
	e.left -= int64(n)
	return n, nil
}

var pattern = []byte(strings.Repeat("0123456789abcdef", 256))

// watchHeap returns a function that reports by how much the live heap has grown at most.
func watchHeap() func() uint64 {
	live := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse
	}
	runtime.GC()
	before, most := live(), uint64(0)
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-done:
				return
			case <-time.After(20 * time.Millisecond):
				most = max(most, live())
			}
		}
	}()
	return func() uint64 {
		close(done)
		<-stopped
		return max(most, before) - before
	}
}

func TestUploadAndDownloadInConstantMemory(t *testing.T) {
	size := bulk()
	d := openHandler(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "GET" {
			if r.URL.Path == "/length" {
				w.Header().Set("Content-Length", fmt.Sprint(size))
			}
			io.Copy(w, &endless{size})
			return
		}
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n)
	})
	client := d.client()
	for _, how := range []string{"length", "chunked"} {
		grown := watchHeap()
		start := time.Now()
		answer, err := client.Get("http://app.test/" + how)
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
		if n != size || err != nil {
			t.Fatalf("%s: downloaded %d of %d bytes, %v", how, n, size, err)
		}
		down := time.Since(start)

		start = time.Now()
		request := newRequest(t, "POST", "http://app.test/", &endless{size})
		if how == "length" {
			request.ContentLength = size
		}
		if _, body := d.do(client, request); body != fmt.Sprint(size) {
			t.Fatalf("%s: the app got %s bytes of %d", how, body, size)
		}
		rate := func(d time.Duration) float64 { return float64(size) / 1e6 / d.Seconds() }
		heap := grown()
		t.Logf("%s: down %.0f MB/s, up %.0f MB/s, heap grew by %d KB", how, rate(down), rate(time.Since(start)), heap>>10)
		if heap > 16<<20 {
			t.Errorf("%s: the heap grew by %d KB", how, heap>>10)
		}
	}
}

func TestBytesArriveUnchanged(t *testing.T) {
	d := openHandler(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		io.Copy(w, r.Body)
	})
	client := d.client()
	for _, size := range []int64{0, 1, 4000, 4096, 5000, 16384, 65536, 100_000, 3_333_333} {
		for _, length := range []int64{size, -1} {
			want := sha256.New()
			request := newRequest(t, "POST", "http://app.test/", io.TeeReader(&endless{size}, want))
			if request.ContentLength = length; size == 0 && length == 0 {
				request.Body = nil
			}
			answer, err := client.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			got := sha256.New()
			n, err := io.Copy(got, answer.Body)
			answer.Body.Close()
			if err != nil || n != size || string(got.Sum(nil)) != string(want.Sum(nil)) {
				t.Errorf("%d bytes (length %d) came back as %d, %v", size, length, n, err)
			}
		}
	}
}

func TestManyAtOnce(t *testing.T) {
	d := openHandler(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s", r.URL.Path, body)
	})
	client := d.client()
	var wait sync.WaitGroup
	var failed atomic.Int64
	for i := range 2000 {
		wait.Go(func() {
			path, body := fmt.Sprintf("/%d", i), strings.Repeat("x", i)
			request, _ := http.NewRequest("POST", "http://app.test"+path, strings.NewReader(body))
			answer, err := client.Do(request)
			if err != nil {
				t.Errorf("request %d: %v", i, err)
				return
			}
			defer answer.Body.Close()
			if got, err := io.ReadAll(answer.Body); err != nil || string(got) != path+" "+body {
				failed.Add(1)
			}
		})
	}
	wait.Wait()
	if n := failed.Load(); n > 0 {
		t.Errorf("%d answers were wrong", n)
	}
}

func TestTrailersBothWays(t *testing.T) {
	d := openHandler(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Trailer", "X-Answer")
		w.WriteHeader(200)
		io.WriteString(w, "body")
		w.Header().Set("X-Answer", "got "+r.Trailer.Get("X-Request"))
	})
	request := newRequest(t, "POST", "http://app.test/", io.MultiReader(strings.NewReader("body")))
	request.Trailer = http.Header{"X-Request": {"sum"}}
	answer, _ := d.do(d.client(), request)
	if got := answer.Trailer.Get("X-Answer"); got != "got sum" {
		t.Errorf("trailer is %q", got)
	}
}

func TestExpectContinue(t *testing.T) {
	head := "PUT / HTTP/1.1\r\nHost: app.test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
	t.Run("the app wants the body", func(t *testing.T) {
		d := openHandler(t, Config{ExpectTimeout: time.Hour}, func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			w.Write(body)
		})
		c := d.dial().send("%s", head)
		if got := c.head(); got != "HTTP/1.1 100 Continue\r\n" {
			t.Fatalf("first came %q", got)
		}
		c.send("ping")
		if got := c.head(); !strings.HasPrefix(got, "HTTP/1.1 200") || strings.Contains(got, "Connection: close") {
			t.Errorf("then came %q", got)
		}
		c.take(4)
		c.send("%s", head)
		c.head()
		c.send("pong")
		if got := c.head(); !strings.HasPrefix(got, "HTTP/1.1 200") {
			t.Errorf("on the same connection came %q", got)
		}
	})
	t.Run("the app does not", func(t *testing.T) {
		d := openHandler(t, Config{ExpectTimeout: time.Hour}, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusExpectationFailed)
		})
		c := d.dial().send("%s", head)
		if got := c.head(); !strings.HasPrefix(got, "HTTP/1.1 417") || !strings.Contains(got, "Connection: close") {
			t.Errorf("answer is %q", got)
		}
	})
	t.Run("the app does not know of it", func(t *testing.T) {
		d := openRaw(t, Config{ExpectTimeout: 50 * time.Millisecond}, func(conn net.Conn, in *bufio.Reader) {
			for range 9 {
				if line, _ := in.ReadString('\n'); line == "\r\n" {
					break
				}
			}
			body := make([]byte, 4)
			io.ReadFull(in, body)
			fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n%s", body)
		})
		c := d.dial().send("%s", head)
		if got := c.head(); got != "HTTP/1.1 100 Continue\r\n" {
			t.Fatalf("first came %q", got)
		}
		c.send("ping").head()
		if got := c.take(4); got != "ping" {
			t.Errorf("body is %q", got)
		}
	})
}

func TestAnswerBeforeTheWholeBody(t *testing.T) {
	d := openHandler(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		io.ReadFull(r.Body, make([]byte, 10))
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		io.WriteString(w, "too much")
	})
	c := d.dial()
	c.send("POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 1000000000\r\n\r\n0123456789")
	go io.Copy(c.Conn, &endless{100 << 20}) // until the gateway has enough of it
	answer, err := http.ReadResponse(c.in, nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(answer.Body); string(body) != "too much" || err != nil || answer.StatusCode != 413 || !answer.Close {
		t.Errorf("answer is %v, %q, %v", answer, body, err)
	}
}

// TestEarlyAnswersEndTheSending: the answer is over while the body trickles, and then it stops trickling.
func TestEarlyAnswersEndTheSending(t *testing.T) {
	d := openRaw(t, Config{BodyTimeout: time.Hour}, func(conn net.Conn, in *bufio.Reader) {
		in.ReadString('x')
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		io.Copy(io.Discard, in)
	})
	var wait sync.WaitGroup
	for i := range 300 {
		wait.Go(func() {
			conn, err := net.Dial("tcp", d.addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			fmt.Fprint(conn, "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 1000000\r\n\r\n")
			for range i {
				io.WriteString(conn, "x")
			}
			io.WriteString(conn, "x")
			conn.SetReadDeadline(time.Now().Add(20 * time.Second))
			if got, err := io.ReadAll(conn); !strings.HasSuffix(string(got), "\r\n\r\nok") {
				t.Errorf("came %q, %v", got, err)
			}
		})
	}
	wait.Wait()
	d.env.awaitCounts(t, counts{})
}

// untouchable is a client whose deadline must be left alone.
type untouchable struct {
	client
	t *testing.T
}

func (u untouchable) readWithin(time.Duration) { u.t.Error("an interruption was undone") }

func TestAnInterruptionOfTheBodyLasts(t *testing.T) {
	x := &exchange{g: New(Config{}), from: untouchable{t: t}, leaving: true}
	if _, err := x.moreBody(nil); err != errAnswered {
		t.Errorf("moreBody says %v", err)
	}
}

// TestConversation: an app and a client that take turns while both bodies are open.
func TestConversation(t *testing.T) {
	d := openHandler(t, Config{BodyTimeout: 100 * time.Millisecond, StreamAfter: 300 * time.Millisecond},
		func(w http.ResponseWriter, r *http.Request) {
			control := http.NewResponseController(w)
			control.EnableFullDuplex()
			in := bufio.NewReader(r.Body)
			for {
				line, err := in.ReadString('\n')
				if err != nil {
					return
				}
				io.WriteString(w, "you said "+line)
				control.Flush()
			}
		})
	say, hear := io.Pipe()
	request := newRequest(t, "POST", "http://app.test/", say)
	go io.WriteString(hear, "one\n")
	answer, err := d.client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	in := bufio.NewReader(answer.Body)
	in.ReadString('\n')
	d.env.awaitCounts(t, counts{Streams: 1}) // which is after the client's BodyTimeout
	for _, word := range []string{"two\n", "three\n"} {
		io.WriteString(hear, word)
		if got, err := in.ReadString('\n'); got != "you said "+word || err != nil {
			t.Fatalf("heard %q, %v", got, err)
		}
	}
	if got := d.env.reasons(); len(got) != 2 || got[0] != "request body" {
		t.Errorf("held for %q", got)
	}
	hear.Close()
	if rest, err := io.ReadAll(in); len(rest) > 0 || err != nil {
		t.Errorf("at the end came %q, %v", rest, err)
	}
}

func TestClientThatLeavesCancelsTheApp(t *testing.T) {
	for _, test := range []struct{ name, request string }{
		{"while it waits", "GET / HTTP/1.1\r\nHost: app.test\r\n\r\n"},
		{"after its body", "POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"},
		{"in the middle of its body", "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 10\r\n\r\nabc"},
		{"with another request behind", "GET / HTTP/1.1\r\nHost: app.test\r\n\r\nGET /2 HTTP/1.1\r\nHost: app.test\r\n\r\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			began, cancelled := make(chan struct{}), make(chan error, 1)
			d := openHandler(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
				close(began)
				_, err := io.Copy(io.Discard, r.Body)
				<-r.Context().Done()
				cancelled <- err
			})
			c := d.dial().send("%s", test.request)
			<-began
			c.Close()
			select {
			case <-cancelled:
			case <-time.After(5 * time.Second):
				t.Fatal("the app's exchange goes on")
			}
			d.env.awaitCounts(t, counts{})
		})
	}
}

func TestClientThatLeavesTheQueue(t *testing.T) {
	waiting, left := make(chan struct{}), make(chan error, 1)
	d := openHandler(t, Config{}, hello)
	d.fleet.acquire = acquireFunc(func(ctx context.Context) error {
		close(waiting)
		<-ctx.Done()
		left <- context.Cause(ctx)
		return ctx.Err()
	})
	c := d.dial().send("POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 10\r\n\r\nabc")
	<-waiting
	c.Close()
	select {
	case err := <-left:
		if !errors.Is(err, errClientGone) {
			t.Errorf("the wait ended with %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("the place in the queue was kept")
	}
}
