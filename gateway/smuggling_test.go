package gateway

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// recorder is an app that keeps every byte it gets and answers each request head with 200.
type recorder struct {
	mu  sync.Mutex
	got strings.Builder
}

func (r *recorder) serve(conn net.Conn, in *bufio.Reader) {
	for {
		line, err := in.ReadString('\n')
		r.mu.Lock()
		r.got.WriteString(line)
		r.mu.Unlock()
		if err != nil {
			return
		}
		if line == "\r\n" {
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	}
}

func (r *recorder) all() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.got.String()
}

func TestSmugglingIsRefusedAndNeverForwarded(t *testing.T) {
	post := "POST / HTTP/1.1\r\nHost: app.test\r\n"
	const inner = "GET /smuggled HTTP/1.1\r\nHost: app.test\r\n\r\n"
	for _, test := range []struct {
		name, sent string
		status     int
	}{
		{"CL.TE", post + "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		{"TE.CL", post + "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n8\r\nSMUGGLED\r\n0\r\n\r\n", 400},
		{"TE.TE with another case", post + "Transfer-Encoding: chunked\r\ntransfer-encoding: cow\r\n\r\n0\r\n\r\n", 400},
		{"TE twice", post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		{"TE xchunked", post + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400},
		{"TE with a space before the colon", post + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400},
		{"TE with a tab before the colon", post + "Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n", 400},
		{"TE folded", post + "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400},
		{"TE folded into the header before", post + "X: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		{"TE after a vertical tab", post + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400},
		{"TE after a bare LF", post + "X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		{"TE after a bare CR", post + "X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		{"TE after a NUL", post + "X: y\x00\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		{"TE chunked, identity", post + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400},
		{"TE gzip, chunked", post + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501},
		{"TE in HTTP/1.0", "POST / HTTP/1.0\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		{"CL.CL", post + "Content-Length: 0\r\nContent-Length: 44\r\n\r\n", 400},
		{"CL twice the same", post + "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400},
		{"CL list", post + "Content-Length: 3, 3\r\n\r\nabc", 400},
		{"CL signed", post + "Content-Length: +3\r\n\r\nabc", 400},
		{"CL negative", post + "Content-Length: -1\r\n\r\n", 400},
		{"CL with a space before the colon", post + "Content-Length : 3\r\n\r\nabc", 400},
		{"CL too large", post + "Content-Length: 18446744073709551616\r\n\r\n", 400},
		{"CL hexadecimal", post + "Content-Length: 0x10\r\n\r\n", 400},
		{"no Host", "GET / HTTP/1.1\r\n\r\n", 400},
		{"two Hosts", "GET / HTTP/1.1\r\nHost: app.test\r\nHost: other.test\r\n\r\n", 400},
		{"Host with a space before the colon", "GET / HTTP/1.1\r\nHost : app.test\r\n\r\n", 400},
		{"Host with a path", "GET / HTTP/1.1\r\nHost: app.test/x\r\n\r\n", 400},
		{"another host in the target", "GET http://other.test/ HTTP/1.1\r\nHost: app.test\r\n\r\n", 400},
		{"authority form", "GET app.test:80 HTTP/1.1\r\nHost: app.test\r\n\r\n", 400},
		{"CONNECT", "CONNECT app.test:80 HTTP/1.1\r\nHost: app.test:80\r\n\r\n", 501},
		{"request line with LF", "GET / HTTP/1.1\nHost: app.test\r\n\r\n", 400},
		{"request line with a third word", "GET / x HTTP/1.1\r\nHost: app.test\r\n\r\n", 400},
		{"control character in the target", "GET /\x01 HTTP/1.1\r\nHost: app.test\r\n\r\n", 400},
		{"HTTP/2.0 without its preface", "GET / HTTP/2.0\r\nHost: app.test\r\n\r\n", 505},
		{"HTTP/0.9", "GET /\r\n\r\n", 400},
		{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01", 400},
		{"endless head", "GET / HTTP/1.1\r\nHost: app.test\r\nX: " + strings.Repeat("y", 70<<10) + "\r\n\r\n", 431},
		{"endless line", "GET /" + strings.Repeat("y", 70<<10), 431},
		{"too many headers", "GET / HTTP/1.1\r\nHost: app.test\r\n" + strings.Repeat("X: y\r\n", 300) + "\r\n", 431},
	} {
		t.Run(test.name, func(t *testing.T) {
			app := &recorder{}
			d := openRaw(t, Config{}, app.serve)
			c := d.dial()
			go fmt.Fprint(c.Conn, test.sent+inner) // may not be taken whole
			answer, err := http.ReadResponse(c.in, nil)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(answer.Body)
			if answer.StatusCode != test.status || !answer.Close || answer.Header.Get("Lull-Error") != "invalid" {
				t.Errorf("answer is %v %s", answer, body)
			}
			c.Conn.(*net.TCPConn).CloseWrite()
			if rest, _ := c.rest(); rest != "" {
				t.Errorf("a second answer: %q", rest)
			}
			if got := app.all(); got != "" {
				t.Errorf("the app saw %q", got)
			}
		})
	}
}

// TestBrokenChunksNeverEnd: the head is on its way by then, but what follows the broken chunk never reaches the app, and
// neither does an end of the body.
func TestBrokenChunksNeverEnd(t *testing.T) {
	for _, body := range []string{
		"zz\r\nabc\r\n0\r\n\r\n", "3 \r\nabc\r\n0\r\n\r\n", "3\nabc\r\n0\r\n\r\n", "3\r\nabcd\r\n0\r\n\r\n", "3\r\nabc\n0\r\n\r\n",
		"3;\x00\r\nabc\r\n0\r\n\r\n", "-3\r\nabc\r\n0\r\n\r\n", "0x3\r\nabc\r\n0\r\n\r\n", "3\rabc\r\n0\r\n\r\n",
		"fffffffffffffffff\r\nabc\r\n0\r\n\r\n", "0\r\nX : y\r\n\r\n", "0\r\nX: y\n\r\n",
	} {
		t.Run(fmt.Sprintf("%q", body), func(t *testing.T) {
			app := &recorder{}
			over := make(chan struct{})
			d := openRaw(t, Config{}, func(conn net.Conn, in *bufio.Reader) {
				defer close(over)
				all, _ := io.ReadAll(in)
				app.got.Write(all)
			})
			c := d.dial().send("POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n%s%s",
				body, "GET /smuggled HTTP/1.1\r\nHost: app.test\r\n\r\n")
			answer, err := http.ReadResponse(c.in, nil)
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, answer.Body)
			if answer.StatusCode != 400 || !answer.Close {
				t.Errorf("answer is %v", answer)
			}
			c.Conn.(*net.TCPConn).CloseWrite()
			if rest, _ := c.rest(); rest != "" {
				t.Errorf("a second answer: %q", rest)
			}
			if d.env.dials.Load() == 0 {
				return // not even the head was sent
			}
			select {
			case <-over:
			case <-time.After(5 * time.Second):
				t.Fatal("the app still has its connection")
			}
			if got := app.got.String(); strings.Contains(got, "smuggled") || strings.HasSuffix(got, "0\r\n\r\n") {
				t.Errorf("the app saw %q", got)
			}
		})
	}
}

// TestAnswerNobodyAskedFor: an app that says more than it was asked must not answer the next client.
func TestAnswerNobodyAskedFor(t *testing.T) {
	d := openRaw(t, Config{}, func(conn net.Conn, in *bufio.Reader) {
		for {
			request, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			path := request.URL.Path
			answer := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(path), path)
			if path == "/twice" {
				answer += "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
			}
			io.WriteString(conn, answer)
		}
	})
	client := d.client()
	for range 20 {
		for _, path := range []string{"/twice", "/next"} {
			if _, body := d.get(client, "http://app.test"+path); body != path {
				t.Fatalf("%s was answered with %q", path, body)
			}
		}
	}
	if got := d.env.dials.Load(); got < 20 {
		t.Errorf("dialled %d times: a connection was kept after an answer too many", got)
	}
}
