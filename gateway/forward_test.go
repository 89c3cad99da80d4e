package gateway

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func hello(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") }

func TestForwardsARequestAndItsAnswer(t *testing.T) {
	d := openHandler(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-App", "yes")
		w.WriteHeader(http.StatusTeapot)
		fmt.Fprintf(w, "%s %s %s %q", r.Method, r.Host, r.RequestURI, body)
	})
	client := d.client()
	for i := range 3 {
		answer, body := d.do(client, newRequest(t, "POST", "http://App.test:81/a%20b?x=%zz&y", strings.NewReader("ping")))
		if want := `POST App.test:81 /a%20b?x=%zz&y "ping"`; body != want {
			t.Errorf("app saw %s, want %s", body, want)
		}
		if answer.StatusCode != http.StatusTeapot || answer.Header.Get("X-App") != "yes" {
			t.Errorf("answer is %v", answer)
		}
		if got := answer.Header.Get("Lull-Environment"); got != "env-1" {
			t.Errorf("Lull-Environment is %q", got)
		}
		if got := answer.Header.Get("Server-Timing"); got != `lull;desc="warm";dur=0` {
			t.Errorf("Server-Timing is %q", got)
		}
		if got := d.env.dials.Load(); got != 1 {
			t.Errorf("after %d exchanges the app was dialled %d times, want 1", i+1, got)
		}
	}
	if got := *d.apps.asked.Load(); got != "app.test" {
		t.Errorf("host asked for is %q", got)
	}
	if got := d.fleet.wants.Load().Why; got != "POST /a%20b" {
		t.Errorf("Want.Why is %q", got)
	}
}

func TestQuietHeaders(t *testing.T) {
	d := openHandler(t, Config{QuietHeaders: true}, hello)
	answer, _ := d.get(d.client(), "http://app.test/")
	if answer.Header.Get("Lull-Environment") != "" || answer.Header.Get("Server-Timing") != "" {
		t.Errorf("headers are %v", answer.Header)
	}
}

// seen answers with the head it got.
func seen(conn net.Conn, in *bufio.Reader) {
	var head strings.Builder
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		head.WriteString(line)
		if line == "\r\n" {
			fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", head.Len(), head.String())
			head.Reset()
		}
	}
}

func TestHeadAsTheAppSeesIt(t *testing.T) {
	forwarded := func(host string) string {
		return "X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: " + host +
			"\r\nForwarded: for=127.0.0.1;host=\"" + host + "\";proto=http\r\n\r\n"
	}
	trust := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	for _, test := range []struct {
		name, sent, want string
		trust            []netip.Prefix
	}{
		{"order and case are kept",
			"GET /?a=b HTTP/1.1\r\nhost: app.test\r\nX-b:  1 \r\nx-A: 2\r\nX-B: \r\n\r\n",
			"GET /?a=b HTTP/1.1\r\nhost: app.test\r\nX-b: 1\r\nx-A: 2\r\nX-B: \r\n" + forwarded("app.test"), nil},
		{"what is for this connection stays here",
			"GET / HTTP/1.1\r\nHost: app.test\r\nConnection: X-Secret, Keep-Alive, Host, content-length\r\nX-Secret: 1\r\nKeep-Alive: 5\r\n" +
				"Proxy-Authorization: x\r\nProxy-Connection: close\r\nTE: gzip\r\nUpgrade: foo\r\nHTTP2-Settings: a\r\nA: b\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: app.test\r\nA: b\r\n" + forwarded("app.test"), nil},
		{"TE: trailers goes on",
			"GET / HTTP/1.1\r\nHost: app.test\r\nTE: deflate, trailers\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: app.test\r\nConnection: TE\r\nTE: trailers\r\n" + forwarded("app.test"), nil},
		{"forged forwarding headers are replaced",
			"GET / HTTP/1.1\r\nHost: app.test\r\nX-Forwarded-For: 1.1.1.1\r\nx_forwarded_for: 2.2.2.2\r\nForwarded: for=3.3.3.3\r\n" +
				"X-Forwarded-Host: evil\r\nX-Forwarded-Proto: https\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: app.test\r\n" + forwarded("app.test"), nil},
		{"a trusted proxy's are appended to",
			"GET / HTTP/1.1\r\nHost: app.test\r\nX-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2\r\nForwarded: for=3.3.3.3\r\n" +
				"X-Forwarded-Host: shop.test\r\nX-Forwarded-Proto: https\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: app.test\r\nX-Forwarded-For: 1.1.1.1, 2.2.2.2, 127.0.0.1\r\nX-Forwarded-Proto: https\r\n" +
				"X-Forwarded-Host: shop.test\r\nForwarded: for=3.3.3.3, for=127.0.0.1;host=\"app.test\";proto=http\r\n\r\n", trust},
		{"absolute form",
			"GET http://app.test:80/x?y HTTP/1.1\r\nHost: app.test:80\r\n\r\n",
			"GET /x?y HTTP/1.1\r\nHost: app.test:80\r\n" + forwarded("app.test:80"), nil},
		{"asterisk form",
			"OPTIONS * HTTP/1.1\r\nHost: app.test.\r\n\r\n",
			"OPTIONS * HTTP/1.1\r\nHost: app.test.\r\n" + forwarded("app.test."), nil},
		{"an upgrade to HTTP/2 is not taken up",
			"GET / HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: app.test\r\n" + forwarded("app.test"), nil},
		{"any other upgrade is",
			"GET / HTTP/1.1\r\nHost: app.test\r\nConnection: upgrade\r\nUpgrade: thing/2\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: thing/2\r\n" + forwarded("app.test"), nil},
		{"HTTP/1.0",
			"GET / HTTP/1.0\r\nHost: app.test\r\nConnection: keep-alive\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: app.test\r\n" + forwarded("app.test"), nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := openRaw(t, Config{TrustForwarded: test.trust}, seen)
			c := d.dial().send("%s", test.sent)
			answer, err := http.ReadResponse(c.in, nil)
			if err != nil {
				t.Fatal(err)
			}
			got, _ := io.ReadAll(answer.Body)
			if diff := cmp.Diff(test.want, string(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPipelinedRequestsAreAnsweredInOrder(t *testing.T) {
	d := openHandler(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s", r.URL.Path, body)
	})
	c := d.dial()
	c.send("GET /1 HTTP/1.1\r\nHost: app.test\r\n\r\n" +
		"POST /2 HTTP/1.1\r\nHost: app.test\r\nContent-Length: 3\r\n\r\nabc\r\n" + // one CR LF too many
		"POST /3 HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ndef\r\n0\r\n\r\n" +
		"GET /4 HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n" +
		"GET /5 HTTP/1.1\r\nHost: app.test\r\n\r\n")
	for _, want := range []string{"/1 ", "/2 abc", "/3 def", "/4 "} {
		answer, err := http.ReadResponse(c.in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, _ := io.ReadAll(answer.Body); string(body) != want {
			t.Errorf("answer is %q, want %q", body, want)
		}
	}
	if rest, _ := c.rest(); rest != "" {
		t.Errorf("after Connection: close there is %q", rest)
	}
}

func TestAnswerOnTheWire(t *testing.T) {
	for _, test := range []struct{ name, request, app, want string }{
		{"reason, order and repeated headers are kept", "GET / HTTP/1.1",
			"HTTP/1.1 299 Fine so far\r\nSet-Cookie: a\r\nset-cookie: b\r\nContent-Length: 2\r\nX: y\r\n\r\nok",
			"HTTP/1.1 299 Fine so far\r\nSet-Cookie: a\r\nset-cookie: b\r\nX: y\r\nContent-Length: 2\r\n\r\nok"},
		{"what is for the other connection stays there", "GET / HTTP/1.1",
			"HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nLull-Error: forged\r\nContent-Length: 0\r\n\r\n",
			"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
		{"a body without a length is chunked", "GET / HTTP/1.1",
			"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nwhole",
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwhole\r\n0\r\n\r\n"},
		{"chunks that come together leave together", "GET / HTTP/1.1",
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\n\r\n",
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\nabcdefg\r\n0\r\n\r\n"},
		{"trailers go on", "GET / HTTP/1.1",
			"HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Sum: 1\r\nContent-Length: 7\r\n\r\n",
			"HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n"},
		{"HTTP/1.0 client", "GET / HTTP/1.0",
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
			"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc"},
		{"HEAD keeps the length", "HEAD / HTTP/1.1",
			"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
			"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"},
		{"HEAD keeps the coding", "HEAD / HTTP/1.1",
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"},
		{"204", "GET / HTTP/1.1", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n"},
		{"304 keeps the length", "GET / HTTP/1.1",
			"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"},
		{"426 says what to upgrade to", "GET / HTTP/1.1",
			"HTTP/1.1 426 Upgrade Required\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n",
			"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"},
		{"early hints go on", "GET / HTTP/1.1",
			"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
			"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
		{"but not to HTTP/1.0", "GET / HTTP/1.0",
			"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
			"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := openRaw(t, Config{QuietHeaders: true}, func(conn net.Conn, in *bufio.Reader) {
				if _, err := http.ReadRequest(in); err == nil {
					io.WriteString(conn, test.app)
				}
			})
			c := d.dial().send("%s\r\nHost: app.test\r\n\r\n", test.request)
			if diff := cmp.Diff(test.want, c.take(len(test.want))); diff != "" {
				t.Error(diff)
			}
			c.Conn.(*net.TCPConn).CloseWrite()
			if rest, err := c.rest(); rest != "" || err != nil {
				t.Errorf("then there is %q, %v", rest, err)
			}
		})
	}
}
