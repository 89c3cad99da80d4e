package api

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lull-dev/lull/internal/bubble"
)

// unread is a body that nobody may read.
type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("the body is read")
	return 0, io.EOF
}

// What the head of a request tells is enough to refuse it.
func TestRefusedBeforeTheBody(t *testing.T) {
	a := newAPI(t, functions{"shop": echo, "till": echo})
	with := func(target string, header ...string) *http.Request {
		r := httptest.NewRequest(http.MethodPost, target, nil)
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		return r
	}
	bearer := []string{"Authorization", "Bearer " + token}
	for name, c := range map[string]struct {
		request *http.Request
		status  int
		kind    string
	}{
		"no token":        {with(invokeShop), 403, "MissingAuthenticationTokenException"},
		"a wrong token":   {with(invokeShop, "Authorization", "Bearer x"), 403, "UnrecognizedClientException"},
		"a wrong scope":   {with("/f/shop/x" + invokeShop), 403, "UnrecognizedClientException"},
		"a wrong secret":  {signed(t, invokeShop, nil, "another", time.Now(), hashHeader, hashOf(nil)), 403, "InvalidSignatureException"},
		"an old date":     {signed(t, invokeShop, nil, token, time.Now().Add(-time.Hour)), 403, "InvalidSignatureException"},
		"no operation":    {with("/2015-03-31/functions/shop/configuration", bearer...), 404, "UnknownOperationException"},
		"no function":     {with("/2015-03-31/functions/nobody/invocations", bearer...), 404, "ResourceNotFoundException"},
		"no connection":   {with("/@connections/abc", bearer...), 410, "GoneException"},
		"another app":     {a.post("till", invokeShop, nil), 403, "AccessDeniedException"},
		"nothing in here": {a.post("till", "/", nil), 404, "UnknownOperationException"},
	} {
		c.request.Body, c.request.ContentLength = io.NopCloser(unread{t}), 1<<20
		if w := a.call(c.request); w.Code != c.status || w.Header().Get("X-Amzn-Errortype") != c.kind {
			t.Errorf("%s: %d %v %s", name, w.Code, w.Header(), w.Body)
		}
	}
}

func TestBodyLimits(t *testing.T) {
	a := newAPI(t, functions{"shop": echo})
	conn := "/@connections/" + connect(t, a, "shop")
	fits, over := `"`+strings.Repeat("x", 1022)+`"`, `"`+strings.Repeat("x", 1023)+`"`
	for _, c := range []struct {
		method, path, body string
		status             int
		kind               string
	}{
		{"POST", invokeShop, fits, 200, ""},
		{"POST", invokeShop, over, 413, "RequestTooLargeException"},
		{"POST", invokeShop, "", 200, ""},
		{"POST", invokeShop, "{", 400, "InvalidRequestContentException"},
		{"POST", conn, fits, 200, ""},
		{"POST", conn, over, 413, "PayloadTooLargeException"},
		{"GET", conn, "", 200, ""},
		{"GET", conn, "x", 413, "PayloadTooLargeException"},
		{"DELETE", conn, "x", 413, "PayloadTooLargeException"},
		{"DELETE", conn, "", 204, ""},
	} {
		for _, length := range []int64{int64(len(c.body)), -1} {
			if c.method == "DELETE" && c.body == "" && length < 0 {
				continue // there is one connection to delete
			}
			r := a.post("shop", c.path, strings.NewReader(c.body))
			r.Method, r.ContentLength = c.method, length
			if w := a.call(r); w.Code != c.status || w.Header().Get("X-Amzn-Errortype") != c.kind {
				t.Errorf("%s %s with %d bytes, said to be %d: %d %v %s", c.method, c.path, len(c.body), length, w.Code, w.Header(), w.Body)
			}
		}
	}
	if a.bodies.taken != 0 || len(a.bodies.by) != 0 {
		t.Errorf("no request is under way, and %d bytes are taken by %v", a.bodies.taken, a.bodies.by)
	}
}

// A caller whose requests take all the memory that it may have is refused until one has ended. Others are not.
func TestBudgetOfBodies(t *testing.T) {
	a := newAPI(t, functions{"shop": echo, "till": echo})
	if !a.bodies.take("shop", maxBody-3) {
		t.Fatal("a fresh budget is spent")
	}
	invoke := func(app, body string, length int64) *httptest.ResponseRecorder {
		r := a.post(app, strings.Replace(invokeShop, "shop", app, 1), strings.NewReader(body))
		r.ContentLength = length
		return a.call(r)
	}
	for _, c := range []struct {
		app, body string
		length    int64
		status    int
	}{
		{"shop", "123", 3, 200}, {"shop", "", 0, 200}, {"shop", "1234", 4, 429}, {"shop", "123", -1, 429}, {"till", "1234", 4, 200}, {"till", "123", -1, 200},
	} {
		w := invoke(c.app, c.body, c.length)
		if w.Code != c.status || c.status == 429 && w.Header().Get("X-Amzn-Errortype") != "TooManyRequestsException" {
			t.Errorf("%s of %s, said to be %d: %d %v %s", c.body, c.app, c.length, w.Code, w.Header(), w.Body)
		}
	}
	a.bodies.give("shop", maxBody-3)
	if w := invoke("shop", "1234", 4); w.Code != 200 {
		t.Errorf("when others have ended: %d %s", w.Code, w.Body)
	}
	for n := range maxBodies / maxBody {
		if !a.bodies.take(fmt.Sprint("app", n), maxBody) {
			t.Errorf("there is no room for app %d", n)
		}
	}
	if w := invoke("shop", "1", 1); w.Code != 429 {
		t.Errorf("when nothing is left for anybody: %d %s", w.Code, w.Body)
	}
}

// What is taken is given back only when the invocation has ended.
func TestBudgetWhileInvoked(t *testing.T) {
	a := newAPI(t, nil)
	a.Functions = functions{"shop": echo}
	taken := int64(0)
	a.Invoker.Functions = functions{"shop": func(ctx context.Context, req *http.Request) (*http.Response, error) {
		taken = a.bodies.by["shop"]
		return echo(ctx, req)
	}}
	for _, length := range []int64{4, -1} {
		r := a.post("shop", invokeShop, strings.NewReader("1234"))
		r.ContentLength = length
		if w := a.call(r); w.Code != 200 || taken != 4 || a.bodies.taken != 0 {
			t.Errorf("said to be %d: %d, %d bytes were taken meanwhile and %d afterwards", length, w.Code, taken, a.bodies.taken)
		}
	}
}

// pipes is a listener; what is sent to it are connections.
type pipes struct {
	conns chan net.Conn
	close func()
}

func listen() pipes {
	conns := make(chan net.Conn)
	return pipes{conns, sync.OnceFunc(func() { close(conns) })}
}

func (p pipes) Accept() (net.Conn, error) {
	if conn, ok := <-p.conns; ok {
		return conn, nil
	}
	return nil, net.ErrClosed
}

func (p pipes) Close() error {
	p.close()
	return nil
}

func (pipes) Addr() net.Addr { return &net.UnixAddr{} }

// A body has its time; an invocation has all the time it wants, on a connection that can be used again.
func TestTimeOfBodies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t, functions{"shop": func(ctx context.Context, req *http.Request) (*http.Response, error) {
			bubble.Pass(time.Hour)
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			return echo(ctx, req)
		}})
		l, server := listen(), &http.Server{Handler: a, ReadHeaderTimeout: time.Minute}
		var serving sync.WaitGroup
		serving.Go(func() { _ = server.Serve(l) })
		defer serving.Wait()
		defer server.Close()

		for _, c := range []struct {
			body   string
			length int
			status int
			after  time.Duration
		}{{"{}", 2, 200, time.Hour}, {"{", 2, 408, bodyTime}, {"", 2, 408, bodyTime}, {"{}", 2000, 413, bodyTime}} {
			conn, far := net.Pipe()
			l.conns <- far
			answers := bufio.NewReader(conn)
			for range 2 {
				began := time.Now()
				fmt.Fprintf(conn, "POST %s%s HTTP/1.1\r\nHost: node\r\nContent-Length: %d\r\n\r\n%s", a.Scoped("shop"), invokeShop, c.length, c.body)
				resp, err := http.ReadResponse(answers, nil)
				if err != nil {
					t.Fatalf("%q of %d bytes: %v", c.body, c.length, err)
				}
				body, err := io.ReadAll(resp.Body)
				if took := time.Since(began); resp.StatusCode != c.status || took != c.after || err != nil {
					t.Errorf("%q of %d bytes: %d %s after %v, %v", c.body, c.length, resp.StatusCode, body, took, err)
				}
				if resp.Close != (c.status != 200) {
					t.Errorf("%q of %d bytes: the connection ends: %v", c.body, c.length, resp.Close)
				}
				if resp.Close {
					break
				}
			}
			_ = conn.Close()
		}
		if a.bodies.taken != 0 {
			t.Errorf("%d bytes are still taken", a.bodies.taken)
		}
	})
}
