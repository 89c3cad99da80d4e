package client_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	format "github.com/lull-dev/lull/function/event"
)

// direct is a lambda that takes HTTP requests itself.
type direct struct {
	*lambda
	address string
}

// startDirect starts a handler and waits until it takes requests.
func startDirect(t *testing.T, settings, code string, env ...string) direct {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(free.Addr().String())
	free.Close()
	if settings == "" {
		settings = `"timeout": 30000, "request": 6291456, "response": 6291456`
	}
	env = append(env, `LULL_FUNCTION_HTTP={"port": `+port+`, "arn": "arn:aws:lambda:us-east-1:000000000000:function:greet", `+settings+`}`)
	l := startNode(t, "index.handler", map[string]string{"index.js": code}, env...)
	d := direct{l, "127.0.0.1:" + port}
	deadline := time.Now().Add(patience)
	for again := time.NewTicker(10 * time.Millisecond); ; <-again.C {
		conn, err := net.Dial("tcp", d.address)
		if err == nil {
			conn.Close()
			return d
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// send sends a request as it is and returns the answer, nil if the connection ended without one.
func (d direct) send(request string) (*http.Response, string) {
	d.t.Helper()
	conn, err := net.Dial("tcp", d.address)
	if err != nil {
		d.t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, request); err != nil {
		d.t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return nil, ""
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return resp, string(body)
}

func get(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: shop.example.com\r\n\r\n" }

func (d direct) want(path string, status int, body string) {
	d.t.Helper()
	if resp, got := d.send(get(path)); resp == nil || resp.StatusCode != status || got != body {
		d.t.Errorf("GET %s: %+v %q; want %d %q", path, resp, got, status, body)
	}
}

// says waits until the process has logged something.
func (d direct) says(text string) {
	d.t.Helper()
	deadline := time.After(patience)
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for !strings.Contains(d.log(), text) {
		select {
		case <-again.C:
		case <-deadline:
			d.t.Errorf("the log does not say %q", text)
			return
		}
	}
}

// The event of a request is the one that programs get which poll for it.
func TestNodeHTTPEvents(t *testing.T) {
	t.Parallel()
	d := startDirect(t, "", `exports.handler = async (event) => ({ statusCode: 200, body: JSON.stringify(event) });`)
	for name, request := range map[string]string{
		"get": "GET /my/path%20here?parameter1=value1&parameter1=value2&parameter2=v%26alue&empty&plus=a+b HTTP/1.1\r\nHost: shop.example.com:8080\r\n" +
			"User-Agent: agent\r\nCookie: cookie1=a; cookie2=b\r\nCookie: cookie3=c\r\nHeader1: value1\r\nheader1: value2\r\nConnection: close\r\nLull-Invoke: secret\r\nX-Forwarded-For: 198.51.100.7, 203.0.113.9\r\n",
		"json":        "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: 17\r\n\r\n{\"say\": \"h\u00e4llo\"}",
		"binary":      "PUT /a? HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nContent-Length: 4\r\n\r\n\x00\xff\x80\n",
		"not UTF-8":   "PUT / HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n\xff\xfe",
		"form":        "POST /form HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 7\r\n\r\na=1&b=2",
		"compressed":  "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx",
		"chunked":     "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/problem+json\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n1\r\n \r\n0\r\n\r\n",
		"bad escapes": "GET /a%20b?x=%zz&y=%ff&%41=%42&=&&z=a=b HTTP/1.1\r\nHost: a\r\n",
		"ampersands":  "GET /?&& HTTP/1.1\r\nHost: a\r\n",
		"names":       "GET /?__proto__=1&constructor=2&__proto__=3 HTTP/1.1\r\nHost: a\r\n__proto__: x\r\nconstructor: y\r\nX-Umlaut: \u00e4\r\nLull-Schedule: nightly\r\n",
		"IPv6":        "GET / HTTP/1.1\r\nHost: [::1]:8080\r\n",
		"empty":       "DELETE / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			if !strings.Contains(request, "\r\n\r\n") {
				request += "\r\n"
			}
			if !strings.Contains(request, "X-Forwarded-For") {
				request = strings.Replace(request, "\r\n", "\r\nX-Forwarded-For: 203.0.113.9\r\n", 1)
			}
			resp, text := d.send(request)
			if resp == nil || resp.StatusCode != 200 {
				t.Fatalf("%+v", resp)
			}
			var got map[string]any
			if err := json.Unmarshal([]byte(text), &got); err != nil {
				t.Fatal(err)
			}
			context := got["requestContext"].(map[string]any)
			r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(request)))
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Fatal(err)
			}
			info := format.Info{App: "greet", RequestID: context["requestId"].(string), Time: time.UnixMilli(int64(context["timeEpoch"].(float64)))}
			var want map[string]any
			if err := json.Unmarshal(format.Encode(format.V2, r, body, info), &want); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What a handler answers becomes the HTTP that it becomes for programs which send it to the Runtime API.
func TestNodeHTTPAnswers(t *testing.T) {
	t.Parallel()
	d := startDirect(t, "", `exports.handler = async (event) => JSON.parse(Buffer.from(event.headers["x-answer"], "base64"));`)
	for _, payload := range []string{
		`{"statusCode":201,"headers":{"content-type":"text/plain","X-Number":5,"x-yes":true,"x-none":null},"cookies":["a=1; HttpOnly","b=2"],"body":"hi","isBase64Encoded":false}`,
		`{"statusCode":200,"headers":{"content-type":"text/plain","x-a":"1","X-A":"2"},"body":"hi"}`,
		`{"statusCode":200,"headers":{"Content-Type":"text/plain"},"body":"AP8=","isBase64Encoded":true}`,
		`{"statusCode":204}`, `{"statusCode":304,"body":"x"}`, `{"statusCode":"302","headers":{"Location":"/x"}}`, `{"statusCode":200,"body":{"a":1}}`,
		`{"statusCode":200,"body":"","headers":{}}`, `{"statusCode":200,"body":null}`, `{"statusCode":200,"body":5}`,
		`{"message":"hi"}`, `{"headers":5,"body":[]}`, `"hi \u00e4"`, `42`, `[1]`, `null`, `true`, `{}`,
		`{"statusCode":200,"headers":{"Content-Length":"5","transfer-encoding":"chunked","connection":"x","lull-environment":"x"},"body":""}`,
		`{"statusCode":200,"headers":{"x-umlaut":"\u00e4"},"body":"\u00e4"}`,
		`{"statusCode":200,"headers":{"x-a":"0"},"multiValueHeaders":{"X-A":["1","2"]},"body":""}`,
		`{"statusCode":99}`, `{"statusCode":600}`, `{"statusCode":200.5}`, `{"statusCode":1e99}`, `{"statusCode":101}`, `{"statusCode":"ok"}`, `{"statusCode":null}`, `{"statusCode":true}`,
		`{"statusCode":200,"headers":{"a b":"x"}}`, `{"statusCode":200,"headers":{"":"x"}}`, `{"statusCode":200,"headers":{"x":"a\r\nSet-Cookie: b"}}`,
		`{"statusCode":200,"cookies":["a\u0000"]}`, `{"statusCode":200,"headers":{"x":["a"]}}`, `{"statusCode":200,"headers":["x"]}`,
		`{"statusCode":200,"body":"%%%","isBase64Encoded":true}`, `{"statusCode":200,"cookies":"a=1"}`,
	} {
		resp, body := d.send("GET / HTTP/1.1\r\nHost: a\r\nX-Answer: " + base64.StdEncoding.EncodeToString([]byte(payload)) + "\r\n\r\n")
		want, err := format.Decode(format.V2, []byte(payload))
		if err != nil {
			want = &format.Answer{Status: 502, Header: http.Header{"Content-Type": {"application/json"}, "X-Amzn-Errortype": {"Runtime.InvalidResponse"}},
				Body: []byte("{\"message\":\"Internal Server Error\"}\n")}
		}
		if want.Status == 304 {
			want.Body = nil
		}
		if resp == nil {
			t.Errorf("%s: no answer", payload)
			continue
		}
		for _, name := range []string{"Date", "Content-Length", "Connection"} {
			resp.Header.Del(name)
		}
		slices.Sort(want.Header["X-A"]) // those that differ in case have no order
		slices.Sort(resp.Header["X-A"])
		if diff := cmp.Diff(want.Header, resp.Header); resp.StatusCode != want.Status || body != string(want.Body) || diff != "" {
			t.Errorf("%s: %d %q %s; want %d %q", payload, resp.StatusCode, body, diff, want.Status, want.Body)
		}
	}
}

const failing = `
	let busy = 0;
	exports.handler = async (event, context) => {
		const act = event.rawPath ?? event.act;
		if (act === "/throw") throw new TypeError("no\r\ngood");
		if (act === "/big") return "x".repeat(2000);
		if (act === "/bigint") return { n: 1n };
		if (act === "/never") await new Promise(() => setTimeout(() => {}, 60000));
		if (act === "/empty") await new Promise(() => {});
		if (act === "/stray") { setTimeout(() => { throw new Error("stray"); }); await new Promise(() => setTimeout(() => {}, 60000)); }
		if (act === "/stray/later") { setTimeout(() => { throw new Error("stray"); }, 1000); await new Promise(() => setTimeout(() => {}, 60000)); }
		if (act === "/slow") {
			if (busy++ > 0) throw new Error("two at once");
			await new Promise((r) => setTimeout(r, 50));
			busy--;
		}
		return { statusCode: 200, body: act + " " + context.functionName + " " + (context.getRemainingTimeInMillis() > 0) + " " + event.body?.length };
	};`

func TestNodeHTTPFails(t *testing.T) {
	t.Parallel()
	d := startDirect(t, `"timeout": 20000, "request": 1000, "response": 1000`, failing)
	internal := "{\"message\":\"Internal Server Error\"}\n"
	d.want("/fine", 200, "/fine greet true undefined")
	d.want("/throw", 502, internal)
	d.want("/big", 502, internal)
	d.want("/bigint", 502, internal)
	d.want("/empty", 502, internal)
	if resp, _ := d.send(get("/throw")); resp.Header.Get("X-Amzn-Errortype") != "TypeError" {
		t.Errorf("%+v", resp.Header)
	}
	post := func(n int) string {
		return fmt.Sprintf("POST /post HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", n, strings.Repeat("x", n))
	}
	if resp, body := d.send(post(1000)); resp == nil || body != "/post greet true 1000" {
		t.Errorf("%+v %q", resp, body)
	}
	if resp, _ := d.send(post(1001)); resp == nil || resp.StatusCode != 413 {
		t.Errorf("%+v", resp)
	}
	for _, said := range []string{"Invoke Error", "TypeError", "Function.ResponseSizeTooLarge: RequestId: ", "Runtime.MarshalError", "RequestTooLargeException"} {
		d.says(said)
	}
}

// Whatever it comes by, a process that works at one invocation works at one.
func TestNodeHTTPTakesTurns(t *testing.T) {
	t.Parallel()
	d := startDirect(t, "", failing)
	polled := d.begin(`{"act":"/slow"}`)
	answers := make(chan string)
	for range 3 {
		go func() {
			_, body := d.send(get("/slow"))
			answers <- body
		}()
	}
	for range 3 {
		if got := <-answers; got != "/slow greet true undefined" {
			t.Errorf("answered %q", got)
		}
	}
	d.lambda.want(d.wait(polled), `{"statusCode":200,"body":"/slow greet true undefined"}`)
}

// One that is late, or throws where nobody catches it, is answered; then the process ends, as on Lambda.
func TestNodeHTTPEndsTheProcess(t *testing.T) {
	for path, want := range map[string]struct {
		status, exit int
		says         string
	}{
		"/never": {504, 1, "Task timed out after 0.30 seconds"},
		"/stray": {502, 129, "Uncaught Exception"},
	} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			d := startDirect(t, `"timeout": 300, "request": 1000, "response": 1000`, failing)
			if resp, _ := d.send(get(path)); resp == nil || resp.StatusCode != want.status {
				t.Errorf("answered %+v", resp)
			}
			if code := d.exit(); code != want.exit {
				t.Errorf("exited with %d; want %d", code, want.exit)
			}
			if !strings.Contains(d.log(), want.says) {
				t.Errorf("the log does not say %q", want.says)
			}
		})
	}
}

// Who waits for one to end whose client has left, and which does not end or throws, has not been begun and may come again.
func TestNodeHTTPLeavesNobodyWaiting(t *testing.T) {
	for path, exit := range map[string]int{"/never": 1, "/stray/later": 129} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			d := startDirect(t, `"timeout": 2000, "request": 1000, "response": 1000`, failing)
			left, err := net.Dial("tcp", d.address)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(left, get(path)); err != nil {
				t.Fatal(err)
			}
			d.begin(`{"act":"/fine"}`) // taken, and waits as well: the first has begun
			left.Close()
			resp, _ := d.send(get("/fine"))
			if resp == nil || resp.StatusCode != 503 || !resp.Close || resp.Header.Get("Lull-Error") != "not-begun" || resp.Header.Get("Retry-After") != "1" {
				t.Errorf("answered %+v", resp)
			}
			if code := d.exit(); code != exit {
				t.Errorf("exited with %d", code)
			}
		})
	}
}

// With several at a time one that never answers, or fails, disturbs nobody.
func TestNodeHTTPConcurrency(t *testing.T) {
	t.Parallel()
	d := startDirect(t, `"timeout": 1000, "request": 1000, "response": 1000`, failing, "AWS_LAMBDA_MAX_CONCURRENCY=4")
	statuses := make(chan int)
	for _, path := range []string{"/never", "/stray", "/fine"} {
		go func() {
			resp, _ := d.send(get(path))
			statuses <- resp.StatusCode
		}()
	}
	got := []int{<-statuses, <-statuses, <-statuses}
	slices.Sort(got)
	if diff := cmp.Diff([]int{200, 502, 504}, got); diff != "" {
		t.Error(diff)
	}
	d.want("/fine", 200, "/fine greet true undefined")
}

// A client that leaves does not disturb those after it.
func TestNodeHTTPClientLeaves(t *testing.T) {
	t.Parallel()
	d := startDirect(t, "", failing)
	for _, request := range []string{get("/slow"), "POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nx", "GET /slow HTTP/1.1\r\nHo"} {
		conn, err := net.Dial("tcp", d.address)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(conn, bytes.NewReader([]byte(request))); err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	d.want("/slow", 200, "/slow greet true undefined")
	if strings.Contains(d.log(), "two at once") {
		t.Error("it worked at two")
	}
}
