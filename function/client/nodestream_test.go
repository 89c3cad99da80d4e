package client_test

import (
	"strings"
	"testing"
	"time"
)

// chunk is the next piece of a streamed answer, "" after its end.
func (l *lambda) chunk(a answer) string {
	l.t.Helper()
	if a.Chunks == nil {
		l.t.Fatalf("answered %+v; want a stream", a)
	}
	select {
	case piece := <-a.Chunks:
		return piece
	case <-time.After(patience):
		l.t.Fatal("no piece of the answer comes")
		return ""
	}
}

// rest is all that is left of a streamed answer.
func (l *lambda) rest(a answer) string {
	l.t.Helper()
	var all strings.Builder
	for piece := l.chunk(a); piece != ""; piece = l.chunk(a) {
		all.WriteString(piece)
	}
	return all.String()
}

// Each piece is seen before the next is written: the handler waits for an invocation that says it was.
func TestNodeStreamsPieceByPiece(t *testing.T) {
	t.Parallel()
	l := startNode(t, "index.handler", map[string]string{"index.mjs": `
		let go;
		export const handler = awslambda.streamifyResponse(async (event, stream, context) => {
			if (event.go) { go(); stream.end(context.functionName); return; }
			stream.setContentType("text/event-stream");
			for (const word of ["one", "two", "three"]) {
				stream.write(word);
				await new Promise((r) => { go = r; });
			}
			stream.end();
		});`}, "AWS_LAMBDA_MAX_CONCURRENCY=2")
	a := l.invoke(`{}`)
	if a.Type != "text/event-stream" || a.Mode != "streaming" {
		t.Errorf("answered %+v", a)
	}
	for _, word := range []string{"one", "two", "three"} {
		if piece := l.chunk(a); piece != word {
			t.Errorf("got %q; want %q", piece, word)
		}
		if said := l.rest(l.invoke(`{"go":true}`)); said != "greet" {
			t.Errorf("said %q", said)
		}
	}
	if rest := l.rest(a); rest != "" {
		t.Errorf("then %q", rest)
	}
}

func TestNodeStreams(t *testing.T) {
	const prelude = `{"statusCode":201,"headers":{"X-A":"b"},"cookies":["c=d"]}` + "\x00\x00\x00\x00\x00\x00\x00\x00"
	const withPrelude = "application/vnd.awslambda.http-integration-response"
	const from = `stream = awslambda.HttpResponseStream.from(stream, { statusCode: 201, headers: { "X-A": "b" }, cookies: ["c=d"] });`
	for _, test := range []struct{ name, code, contentType, want string }{
		{"plain", `stream.write("a"); stream.end("b");`, "application/octet-stream", "ab"},
		{"only an end", `stream.end("b");`, "application/octet-stream", "b"},
		{"nothing", `stream.end();`, "application/octet-stream", ""},
		{"bytes and objects", `stream.write(Buffer.from("a")); stream.write({ b: 1 }); stream.write(new Uint8Array([99])); stream.end();`, "application/octet-stream", `a{"b":1}c`},
		{"prelude", from + `stream.write("body"); stream.end();`, withPrelude, prelude + "body"},
		{"prelude and only an end", from + `stream.end("body");`, withPrelude, prelude + "body"},
		{"prelude and nothing", from + `stream.end();`, withPrelude, prelude},
		{"empty pieces", `stream.write(""); stream.write("a"); stream.write(""); stream.end("");`, "application/octet-stream", "a"},
		{"pipeline", `const { pipeline } = await import("node:stream/promises"); const { Readable } = await import("node:stream"); await pipeline(Readable.from(["x", "y"]), stream);`, "application/octet-stream", "xy"},
		{"ends after the handler", `setTimeout(() => stream.end("late"), 20);`, "application/octet-stream", "late"},
		{"back-pressure", `for (let i = 0; i < 64; i++) if (!stream.write("x".repeat(65536))) await new Promise((r) => stream.once("drain", r)); stream.end();`, "application/octet-stream", strings.Repeat("x", 64<<16)},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := startNode(t, "index.handler", map[string]string{"index.mjs": `export const handler = awslambda.streamifyResponse(async (event, stream) => {` + test.code + `});`})
			for range 2 {
				a := l.invoke(`{}`)
				if got := l.rest(a); got != test.want || a.Type != test.contentType {
					t.Errorf("answered %s %.100q; want %s %.100q", a.Type, got, test.contentType, test.want)
				}
				if kind, _ := streamError(t, a); kind != "" {
					t.Errorf("with the error %s", kind)
				}
			}
		})
	}
}

// An error after the first byte is a trailer; before it, it is like any other.
func TestNodeStreamErrors(t *testing.T) {
	for _, test := range []struct{ name, code, before, kind, message string }{
		{"in the middle", `stream.write("some"); await new Promise((r) => setTimeout(r, 20)); throw new RangeError("midway");`, "some", "RangeError", "midway"},
		{"just after a piece", `stream.write("some"); throw new RangeError("midway");`, "", "RangeError", "midway"},
		{"before", `throw new RangeError("early");`, "", "RangeError", "early"},
		{"never ended", `stream.write("some");`, "some", "Error", "Response stream is not finished."},
		{"neither written nor ended", ``, "", "Error", "Response stream is not finished."},
		{"long", `stream.write("some"); throw new RangeError("midway" + "\u20ac".repeat(5000));`, "", "RangeError", "midway"},
		{"with a long trace", `stream.write("some"); Error.stackTraceLimit = 500; (function deep(n) { if (n === 0) throw new RangeError("midway"); deep(n - 1); })(1000);`, "", "RangeError", "at deep"},
		{"content type too late", `stream.write("some"); await new Promise((r) => setTimeout(r, 20)); stream.setContentType("text/plain");`, "some", "Runtime.InvalidStreamingOperation", "too late"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := startNode(t, "index.handler", map[string]string{"index.mjs": `export const handler = awslambda.streamifyResponse(async (event, stream) => {` + test.code + `});`})
			for range 2 {
				a := l.invoke(`{}`)
				if a.Chunks == nil {
					wantError(t, a, test.kind, test.message)
					continue
				}
				if got := l.rest(a); !strings.HasPrefix("some", got) || test.before != "" && got != test.before {
					t.Errorf("before the error came %q; want %q", got, test.before)
				}
				if kind, body := streamError(t, a); kind != test.kind || !strings.Contains(body, test.message) {
					t.Errorf("ended with the error %s %s; want %s: %s", kind, body, test.kind, test.message)
				}
			}
		})
	}
}

func TestNodeStreamingNeedsAsync(t *testing.T) {
	t.Parallel()
	l := startNode(t, "index.handler", map[string]string{"index.js": `exports.handler = awslambda.streamifyResponse((event, stream) => { stream.end("x"); });`})
	a := l.invoke(`{}`)
	if a.Chunks != nil {
		l.rest(a)
		_, body := streamError(t, a)
		a = answer{Status: "error", Body: body, ErrorType: "string"}
	}
	wantError(t, a, "string", "Streaming does not support non-async handlers.")
}
