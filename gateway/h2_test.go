package gateway

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/lull-dev/lull"
)

// client2 returns a client that speaks HTTP/2 in clear text from the first byte.
func (d *door) client2() *http.Client {
	client := d.client()
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	client.Transport.(*http.Transport).Protocols = protocols
	return client
}

func TestHTTP2(t *testing.T) {
	d := openHandler(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Trailer", "X-Sum")
		w.Header().Set("X-Proto", r.Proto)
		w.WriteHeader(http.StatusTeapot)
		fmt.Fprintf(w, "%s %s %s %q %s %s", r.Method, r.Host, r.RequestURI, body, r.Header.Get("X-Forwarded-For"), r.Header.Get("Cookie"))
		w.Header().Set("X-Sum", r.Trailer.Get("X-Sum"))
	})
	client := d.client2()
	for range 3 {
		request := newRequest(t, "POST", "http://app.test:81/a%20b?x=%zz&y", io.MultiReader(strings.NewReader("ping")))
		request.Trailer = http.Header{"X-Sum": {"4"}}
		request.AddCookie(&http.Cookie{Name: "a", Value: "b"})
		request.AddCookie(&http.Cookie{Name: "c", Value: "d"})
		request.Header.Set("X-Forwarded-For", "1.2.3.4")
		answer, body := d.do(client, request)
		if want := `POST app.test:81 /a%20b?x=%zz&y "ping" 127.0.0.1 a=b; c=d`; body != want {
			t.Errorf("app saw %s, want %s", body, want)
		}
		if answer.ProtoMajor != 2 || answer.StatusCode != http.StatusTeapot || answer.Header.Get("X-Proto") != "HTTP/1.1" {
			t.Errorf("answer is %v", answer)
		}
		if answer.Header.Get("Lull-Environment") != "env-1" || answer.Header.Get("Server-Timing") == "" {
			t.Errorf("headers are %v", answer.Header)
		}
		if got := answer.Trailer.Get("X-Sum"); got != "4" {
			t.Errorf("trailer is %q", got)
		}
	}
	answer, body := d.get(client, "http://none.test/")
	failed(t, answer, body, lull.KindNoApp)
	answer, body = d.do(client, newRequest(t, "HEAD", "http://app.test/", nil))
	if answer.StatusCode != http.StatusTeapot || body != "" {
		t.Errorf("answer to HEAD is %v %q", answer, body)
	}
}

// TestHTTP2BodyThatStops: a body of which nothing comes any more is given up, and so is its place.
func TestHTTP2BodyThatStops(t *testing.T) {
	d := openHandler(t, Config{BodyTimeout: 50 * time.Millisecond}, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	say, hear := io.Pipe()
	defer hear.Close()
	go io.WriteString(hear, "half")
	request := newRequest(t, "POST", "http://app.test/", say)
	request.ContentLength = 8
	answer, body := d.do(d.client2(), request)
	if answer.StatusCode != http.StatusRequestTimeout || !strings.Contains(body, "stopped coming") {
		t.Errorf("answer is %v %s", answer, body)
	}
	d.env.awaitCounts(t, counts{})
}

func TestHTTP2InBulk(t *testing.T) {
	size := bulk() / 8
	d := openHandler(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		io.Copy(w, r.Body)
	})
	grown := watchHeap()
	answer, err := d.client2().Post("http://app.test/", "x/y", &endless{size})
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, answer.Body)
	answer.Body.Close()
	if n != size || err != nil {
		t.Errorf("%d bytes came back as %d, %v", size, n, err)
	}
	if heap := grown(); heap > 32<<20 {
		t.Errorf("the heap grew by %d KB", heap>>10)
	}
}

func TestHTTP2Events(t *testing.T) {
	next, cancelled := make(chan string), make(chan struct{})
	d := openHandler(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		http.NewResponseController(w).Flush()
		for text := range next {
			io.WriteString(w, text)
			http.NewResponseController(w).Flush()
		}
		<-r.Context().Done()
		close(cancelled)
	})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	answer, err := d.client2().Do(newRequest(t, "GET", "http://app.test/", nil).WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	d.env.awaitCounts(t, counts{Streams: 1})
	in := bufio.NewReader(answer.Body)
	for i := range 5 {
		next <- fmt.Sprintln(i)
		if got, err := in.ReadString('\n'); got != fmt.Sprintln(i) || err != nil {
			t.Fatalf("event is %q, %v", got, err)
		}
	}
	close(next)
	cancel() // the client leaves
	select {
	case <-cancelled:
	case <-time.After(5 * time.Second):
		t.Fatal("the app's exchange goes on")
	}
	d.env.awaitCounts(t, counts{})
}

func TestHTTP2AppGoesInTheMiddle(t *testing.T) {
	d := openRaw(t, Config{}, func(conn net.Conn, in *bufio.Reader) {
		http.ReadRequest(in)
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n")
	})
	answer, err := d.client2().Get("http://app.test/")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if body, err := io.ReadAll(answer.Body); err == nil {
		t.Errorf("the body %q looks whole", body)
	}
}

func TestHTTP2Shutdown(t *testing.T) {
	began, finish := make(chan struct{}), make(chan struct{})
	d := openHandler(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		close(began)
		<-finish
		io.WriteString(w, "hello")
	})
	client := d.client2()
	got := make(chan string, 1)
	go func() {
		answer, err := client.Get("http://app.test/")
		if err != nil {
			got <- err.Error()
			return
		}
		defer answer.Body.Close()
		body, _ := io.ReadAll(answer.Body)
		got <- string(body)
	}()
	<-began
	over := make(chan error, 1)
	go func() { over <- d.Shutdown(context.Background()) }()
	eventually(t, func() error {
		if !d.closing.Load() {
			return fmt.Errorf("not closing yet")
		}
		return nil
	})
	close(finish)
	if body := <-got; body != "hello" {
		t.Errorf("the exchange ended with %q", body)
	}
	if err := <-over; err != nil {
		t.Error(err)
	}
}
