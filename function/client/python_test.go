package client_test

import (
	"strings"
	"testing"
	"time"
)

// python is Debian's, which is the one that sandboxes see, whatever else is in PATH.
const python = "/usr/bin/python3"

func startPython(t *testing.T, handler string, files map[string]string, env ...string) *lambda {
	t.Helper()
	return start(t, []string{python}, "", handler, files, env...)
}

func TestPythonHandlers(t *testing.T) {
	for _, test := range []struct {
		name, handler string
		files         map[string]string
		want          string
	}{
		{"module", "main.handler", map[string]string{"main.py": "def handler(event, context):\n    return {'got': event['n']}"}, `{"got": 1}`},
		{"path", "pkg/main.handler", map[string]string{"pkg/main.py": "def handler(event, context):\n    return __name__"}, `"pkg.main"`},
		{"package", "pkg.main.handler", map[string]string{"pkg/__init__.py": "", "pkg/main.py": "from . import word\ndef handler(event, context):\n    return word.WORD", "pkg/word.py": "WORD = 'beside'"}, `"beside"`},
		{"callable object", "main.handler", map[string]string{"main.py": "class Handler:\n    def __call__(self, event, context):\n        return 'called'\nhandler = Handler()"}, `"called"`},
		{"nothing", "main.handler", map[string]string{"main.py": "def handler(event, context):\n    pass"}, `null`},
		{"numbers", "main.handler", map[string]string{"main.py": "from decimal import Decimal\ndef handler(event, context):\n    return [Decimal('1.10'), Decimal('NaN'), float('nan'), float('inf'), {'a': Decimal(3)}]"}, `[1.10, NaN, NaN, Infinity, {"a": 3}]`},
		{"not ASCII", "main.handler", map[string]string{"main.py": "def handler(event, context):\n    return 'żółw 🐢'"}, `"żółw 🐢"`},
		{"half a character", "main.handler", map[string]string{"main.py": "def handler(event, context):\n    return '\\ud83d'"}, `"\ud83d"`},
		{"bytes", "main.handler", map[string]string{"main.py": "def handler(event, context):\n    return b'\\x00raw'"}, "\x00raw"},
		{"names of this client's own modules", "client.handler", map[string]string{"client.py": "import lull_names\ndef handler(event, context):\n    return lull_names.WORD", "lull_names.py": "WORD = 'own'"}, `"own"`},
		{"packages beside it", "main.handler", map[string]string{"main.py": "import one, two\ndef handler(event, context):\n    return one.N + two.N", "packages/one.py": "N = 1", ".lull/python/two.py": "N = 2"}, `3`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := startPython(t, test.handler, test.files)
			l.want(l.invoke(`{"n":1}`), test.want)
			l.want(l.invoke(`{"n":1}`), test.want)
		})
	}
}

func TestPythonInvocationErrors(t *testing.T) {
	for _, test := range []struct{ name, code, kind, message string }{
		{"raised", "raise ValueError('broken')", "ValueError", "broken"},
		{"own class", "class NoSeat(Exception): pass\n    raise NoSeat('full')", "NoSeat", "full"},
		{"no message", "raise KeyError", "KeyError", ""},
		{"not JSON", "import datetime\n    return datetime.date(2000, 1, 1)", "Runtime.MarshalError", "Unable to marshal response: Object of type date is not JSON serializable"},
		{"circular", "a = []\n    a.append(a)\n    return a", "Runtime.MarshalError", "Unable to marshal response: Circular reference detected"},
		{"__str__ raises", "class Bad(Exception):\n        def __str__(self): raise ValueError\n    raise Bad", "Bad", "the exception has no message"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := startPython(t, "main.handler", map[string]string{"main.py": "def handler(event, context):\n    " + test.code})
			for _, id := range []string{"request-1", "request-2"} {
				described := wantError(t, l.invoke(`{}`), test.kind, test.message)
				trace, _ := described["stackTrace"].([]any)
				if described["requestId"] != id {
					t.Errorf("the id is %v; want %s", described["requestId"], id)
				}
				if strings.HasPrefix(test.kind, "Runtime.") {
					continue
				}
				if first, _ := trace[0].(string); len(trace) != 1 || !strings.Contains(first, "/main.py\", line ") || !strings.Contains(first, ", in handler\n") {
					t.Errorf("the trace is %q", trace)
				}
			}
			l.said("[ERROR] " + test.kind + ": " + test.message)
		})
	}
	t.Run("event", func(t *testing.T) {
		t.Parallel()
		l := startPython(t, "main.handler", map[string]string{"main.py": "def handler(event, context): pass"})
		wantError(t, l.invoke(`{`), "Runtime.UnmarshalError", "Unable to unmarshal input: ")
		wantError(t, l.invoke(`{}`, "Lambda-Runtime-Client-Context", "{"), "Runtime.LambdaContextUnmarshalError", "Unable to parse Client Context JSON: ")
	})
}

func TestPythonInitErrors(t *testing.T) {
	for _, test := range []struct {
		name, handler string
		files         map[string]string
		kind, message string
	}{
		{"no file", "main.handler", nil, "Runtime.ImportModuleError", "Unable to import module 'main': No module named 'main'"},
		{"no package", "main.handler", map[string]string{"main.py": "import left_out"}, "Runtime.ImportModuleError", "Unable to import module 'main': No module named 'left_out'"},
		{"syntax", "main.handler", map[string]string{"main.py": "def handler("}, "Runtime.UserCodeSyntaxError", "Syntax error in module 'main': '(' was never closed (main.py, line 1)"},
		{"no function", "main.handler", map[string]string{"main.py": ""}, "Runtime.HandlerNotFound", "Handler 'handler' missing on module 'main'"},
		{"no dot", "main", nil, "Runtime.MalformedHandlerName", "Bad handler 'main': not enough values to unpack (expected 2, got 1)"},
		{"built in", "sys.exit", nil, "Runtime.BuiltInModuleConflict", "Cannot use built-in module sys as a handler module"},
		{"raised", "main.handler", map[string]string{"main.py": "raise ValueError('at start')"}, "ValueError", "at start"},
		{"exit", "main.handler", map[string]string{"main.py": "raise SystemExit(3)"}, "Runtime.ExitError", "exited with 3"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := startPython(t, test.handler, test.files)
			wantError(t, l.wait(l.init), test.kind, test.message)
			if code := l.exit(); code != 1 {
				t.Errorf("exited with %d; want 1", code)
			}
		})
	}
}

func TestPythonContext(t *testing.T) {
	t.Parallel()
	l := startPython(t, "main.handler", map[string]string{"main.py": `
import logging, os

def handler(event, context):
    logging.getLogger("seats").warning("only %d left", 2)
    print("printed")
    left = context.get_remaining_time_in_millis()
    return [context.aws_request_id, context.function_name, context.function_version, context.memory_limit_in_mb, context.invoked_function_arn,
            50000 < left <= 60000, context.client_context and [context.client_context.custom, context.client_context.client.app_title],
            context.identity.cognito_identity_id, os.environ.get("_X_AMZN_TRACE_ID")]
`})
	const fields = `"greet", "3", "256", "arn:aws:lambda:us-east-1:000000000000:function:greet", true, `
	l.want(l.invoke(`{}`, "Lambda-Runtime-Client-Context", `{"custom":{"a":"ä"},"client":{"app_title":"t"}}`, "Lambda-Runtime-Cognito-Identity", `{"cognitoIdentityId":"me"}`, "Lambda-Runtime-Trace-Id", "Root=1-2"),
		`["request-1", `+fields+`[{"a": "ä"}, "t"], "me", "Root=1-2"]`)
	l.want(l.invoke(`{}`), `["request-2", `+fields+`null, null, null]`)
	l.said("[WARNING]\t20")
	l.said("Z\trequest-1\tonly 2 left\n")
	l.said("Z\trequest-2\tonly 2 left\nprinted\n")
}

func TestPythonLogAsJSON(t *testing.T) {
	t.Parallel()
	l := startPython(t, "main.handler", map[string]string{"main.py": `
import logging

def handler(event, context):
    logging.info("seats", extra={"left": 2})
`}, "AWS_LAMBDA_LOG_FORMAT=JSON", "AWS_LAMBDA_LOG_LEVEL=INFO")
	l.invoke(`{}`)
	l.said(`Z", "level": "INFO", "message": "seats", "logger": "root", "requestId": "request-1", "left": 2}`)
}

func TestPythonExit(t *testing.T) {
	t.Parallel()
	l := startPython(t, "main.handler", map[string]string{"main.py": "import sys\ndef handler(event, context):\n    sys.exit(7)"})
	l.begin(`{}`)
	if code := l.exit(); code != 7 {
		t.Errorf("exited with %d; want 7", code)
	}
}

func TestPythonLarge(t *testing.T) {
	t.Parallel()
	l := startPython(t, "main.handler", map[string]string{"main.py": "def handler(event, context):\n    return event"})
	large := `"` + strings.Repeat("żółw ", 800_000) + `"`
	if a := l.invoke(large); a.Body != large {
		t.Errorf("answered %d bytes; want the %d of the event", len(a.Body), len(large))
	}
	l.want(l.invoke(`1`), `1`)
}

func TestPythonConcurrency(t *testing.T) {
	t.Parallel()
	l := startPython(t, "main.handler", map[string]string{"main.py": `
import sys, threading, time

both = threading.Barrier(2)

def handler(event, context):
    if event == "never": threading.Event().wait()
    if event == "raise": raise ValueError("broken")
    if event == "exit": sys.exit(1)
    if event == "both": both.wait(20)
    return context.aws_request_id
`}, "AWS_LAMBDA_MAX_CONCURRENCY=4")
	l.timeout = time.Second
	l.begin(`"never"`)
	one, other := l.begin(`"both"`), l.begin(`"both"`)
	wantError(t, l.invoke(`"raise"`), "ValueError", "broken")
	wantError(t, l.invoke(`"exit"`), "Runtime.ExitError", "exited with 1")
	l.want(l.wait(one), `"request-2"`)
	l.want(l.wait(other), `"request-3"`)
	// Three of four threads are left, and a fourth takes the place of the one that hangs: four events are taken at once.
	l.begin(`"never"`)
	l.begin(`"never"`)
	l.begin(`"never"`)
	l.want(l.invoke(`"fourth"`), `"request-9"`)
}

// Beyond what Lambda has: a generator streams.
func TestPythonStreams(t *testing.T) {
	t.Parallel()
	l := startPython(t, "main.handler", map[string]string{"main.py": `
def handler(event, context):
    if event == "early": raise ValueError("early")
    if event == "prelude": yield {"statusCode": 201}
    yield "a"
    yield ""
    yield b"b"
    if event == "midway": raise ValueError("midway")
    if event == "long": raise ValueError("midway" + "\u20ac" * 5000)
    if event == "deep": deep(200)

def deep(n):
    if n == 0: raise ValueError("midway")
    deep(n - 1) if n % 2 else deep(
        n - 1)
`})
	for range 2 {
		a := l.invoke(`{}`)
		if got := l.rest(a); got != "ab" || a.Type != "application/octet-stream" {
			t.Errorf("answered %s %q", a.Type, got)
		}
		a = l.invoke(`"prelude"`)
		if got := l.rest(a); got != `{"statusCode": 201}`+"\x00\x00\x00\x00\x00\x00\x00\x00ab" || a.Type != "application/vnd.awslambda.http-integration-response" {
			t.Errorf("answered %s %q", a.Type, got)
		}
		a = l.invoke(`"midway"`)
		got := l.rest(a)
		if kind, body := streamError(t, a); got != "ab" || kind != "ValueError" || !strings.Contains(body, `"errorMessage": "midway"`) {
			t.Errorf("answered %q and the error %s %s", got, kind, body)
		}
		wantError(t, l.invoke(`"early"`), "ValueError", "early")
	}
	for _, name := range []string{"long", "deep"} {
		a := l.invoke(`"` + name + `"`)
		got := l.rest(a)
		if kind, body := streamError(t, a); got != "ab" || kind != "ValueError" || !strings.Contains(body, `"errorMessage": "midway`) || !strings.Contains(body, "main.py") {
			t.Errorf("a %s error: answered %q and the error %s %s", name, got, kind, body)
		}
	}
}
