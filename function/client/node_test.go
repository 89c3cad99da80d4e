package client_test

import (
	"strings"
	"testing"
	"time"
)

func startNode(t *testing.T, handler string, files map[string]string, env ...string) *lambda {
	t.Helper()
	return start(t, []string{"node"}, "", handler, files, env...)
}

// All the places a handler can be in, and all the ways to answer.
func TestNodeHandlers(t *testing.T) {
	for _, test := range []struct {
		name, handler string
		files         map[string]string
		want          string
	}{
		{"ES module", "index.handler", map[string]string{"index.mjs": `export const handler = async (event) => ({ got: event.n });`}, `{"got":1}`},
		{"CommonJS", "index.handler", map[string]string{"index.js": `exports.handler = async (event) => event.n + 1;`}, `2`},
		{"cjs", "index.handler", map[string]string{"index.cjs": `exports.handler = async () => __filename.endsWith("index.cjs");`, "package.json": `{"type":"module"}`}, `true`},
		{"type module", "index.handler", map[string]string{"index.js": `export async function handler() { return import.meta.url.endsWith("index.js"); }`, "package.json": `{"type":"module"}`}, `true`},
		{"type of the directory above", "src/app/index.handler", map[string]string{"src/app/index.js": `export const handler = async () => "deep";`, "src/package.json": `{"type":"module"}`}, `"deep"`},
		{"top-level await", "index.handler", map[string]string{"index.mjs": `const word = await new Promise((r) => setTimeout(r, 20, "later")); export const handler = async () => word;`}, `"later"`},
		{"default export", "index.handler", map[string]string{"index.mjs": `export default { handler: async () => "default" };`}, `"default"`},
		{"nested", "index.api.users.get", map[string]string{"index.js": `exports.api = { users: { get: async () => "nested" } };`}, `"nested"`},
		{"directory", "lib/index.handler", map[string]string{"lib/index.js": `exports.handler = async () => require("./other");`, "lib/other.js": `module.exports = "beside";`}, `"beside"`},
		{"directory with an index", "app.handler", map[string]string{"app/index.js": `exports.handler = async () => "index";`}, `"index"`},
		{"callback", "index.handler", map[string]string{"index.js": `exports.handler = (event, context, callback) => setTimeout(() => callback(null, "called"), 5);`}, `"called"`},
		{"callback of an async function", "index.handler", map[string]string{"index.js": `exports.handler = async (event, context, callback) => { callback(null, 1); return 2; };`}, `2`},
		{"succeed", "index.handler", map[string]string{"index.js": `exports.handler = (event, context) => context.succeed("succeeded");`}, `"succeeded"`},
		{"done", "index.handler", map[string]string{"index.js": `exports.handler = (event, context) => { context.done(null, "done"); context.done(null, "again"); };`}, `"done"`},
		{"a value returned by a function that is not async", "index.handler", map[string]string{"index.js": `exports.handler = () => "ignored";`}, `null`},
		{"undefined", "index.handler", map[string]string{"index.js": `exports.handler = async () => {};`}, `null`},
		{"a function", "index.handler", map[string]string{"index.js": `exports.handler = async () => () => 1;`}, `null`},
		{"thenable", "index.handler", map[string]string{"index.js": `exports.handler = () => ({ then: (done) => done("thenable") });`}, `"thenable"`},
		{"not ASCII", "index.handler", map[string]string{"index.js": `exports.handler = async () => "żółw 🐢";`}, `"żółw 🐢"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := startNode(t, test.handler, test.files)
			l.want(l.invoke(`{"n":1}`), test.want)
			l.want(l.invoke(`{"n":1}`), test.want)
		})
	}
}

// The event loop decides when a callback answers, unless the function says otherwise.
func TestNodeWaitsForEmptyEventLoop(t *testing.T) {
	t.Parallel()
	l := startNode(t, "index.handler", map[string]string{"index.js": `
		let finished = 0;
		exports.handler = (event, context, callback) => {
			context.callbackWaitsForEmptyEventLoop = event.wait;
			setTimeout(() => { finished++; }, 50);
			callback(null, event.see ? finished : { get finished() { return finished; } });
		};`})
	l.want(l.invoke(`{"wait":true}`), `{"finished":1}`)
	l.want(l.invoke(`{"wait":false}`), `{"finished":1}`)
}

func TestNodeInvocationErrors(t *testing.T) {
	for _, test := range []struct{ name, code, kind, message string }{
		{"thrown", `exports.handler = () => { throw new TypeError("broken"); }`, "TypeError", "broken"},
		{"rejected", `exports.handler = async () => { throw new RangeError("too far"); }`, "RangeError", "too far"},
		{"own class", `class NoSeat extends Error { name = "NoSeat" } exports.handler = async () => { throw new NoSeat("full"); }`, "NoSeat", "full"},
		{"a string", `exports.handler = async () => { throw "just text"; }`, "string", "just text"},
		{"callback", `exports.handler = (e, c, callback) => callback(new Error("by callback"))`, "Error", "by callback"},
		{"fail", `exports.handler = (e, context) => context.fail("by fail")`, "string", "by fail"},
		{"fail without a reason", `exports.handler = (e, context) => context.fail()`, "string", "handled"},
		{"getters that throw", `exports.handler = async () => { throw { get name() { throw 1; } }; }`, "handled", "callback called with Error argument"},
		{"circular", `exports.handler = async () => { const a = {}; a.a = a; return a; }`, "Runtime.MarshalError", "Unable to stringify response body"},
		{"BigInt", `exports.handler = async () => 10n`, "Runtime.MarshalError", "Unable to stringify response body"},
		{"a promise that never settles", `exports.handler = async () => { await new Promise(() => {}); }`, "Runtime.NodeJsExit", "never settled"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := startNode(t, "index.handler", map[string]string{"index.js": test.code})
			for range 2 {
				described := wantError(t, l.invoke(`{}`), test.kind, test.message)
				if _, ok := described["trace"].([]any); !ok {
					t.Errorf("the trace is %v", described["trace"])
				}
			}
			l.said("\trequest-1\tERROR\tInvoke Error\t")
		})
	}
}

// Nobody caught them: the invocation fails and the process ends.
func TestNodeUncaught(t *testing.T) {
	for _, test := range []struct {
		name, code, kind, message string
		exit                      int
	}{
		{"exception", `exports.handler = async () => { setTimeout(() => { throw new Error("stray"); }); await new Promise(() => setTimeout(() => {}, 5000)); }`, "Error", "stray", 129},
		{"rejection", `exports.handler = async () => { Promise.reject(new Error("stray")); await new Promise(() => setTimeout(() => {}, 5000)); }`, "Runtime.UnhandledPromiseRejection", "Error: stray", 128},
		{"rejection without an error", `exports.handler = async () => { Promise.reject(); await new Promise(() => setTimeout(() => {}, 5000)); }`, "Runtime.UnhandledPromiseRejection", "undefined", 128},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := startNode(t, "index.handler", map[string]string{"index.js": test.code})
			wantError(t, l.invoke(`{}`), test.kind, test.message)
			if code := l.exit(); code != test.exit {
				t.Errorf("exited with %d; want %d", code, test.exit)
			}
		})
	}
}

func TestNodeInitErrors(t *testing.T) {
	for _, test := range []struct {
		name, handler string
		files         map[string]string
		kind, message string
	}{
		{"no file", "index.handler", nil, "Runtime.ImportModuleError", "Error: Cannot find module 'index'\nRequire stack:"},
		{"no package", "index.handler", map[string]string{"index.js": `require("left-out")`}, "Runtime.ImportModuleError", "Error: Cannot find module 'left-out'"},
		{"no package of a module", "index.handler", map[string]string{"index.mjs": `import "left-out";`}, "Runtime.ImportModuleError", "Cannot find package 'left-out'"},
		{"syntax", "index.handler", map[string]string{"index.js": `exports.handler = async (`}, "Runtime.UserCodeSyntaxError", "SyntaxError: "},
		{"not exported", "index.handler", map[string]string{"index.js": `exports.other = 1`}, "Runtime.HandlerNotFound", "index.handler is undefined or not exported"},
		{"no function", "index.handler", map[string]string{"index.js": `exports.handler = {}`}, "Runtime.HandlerNotFound", "index.handler is not a function"},
		{"no dot", "index", map[string]string{"index.js": ``}, "Runtime.MalformedHandlerName", "Bad handler"},
		{"outside", "../index.handler", nil, "Runtime.MalformedHandlerName", "'../index.handler' is not a valid handler name"},
		{"thrown", "index.handler", map[string]string{"index.js": `throw new TypeError("at start")`}, "TypeError", "at start"},
		{"rejected", "index.handler", map[string]string{"index.mjs": `Promise.reject(new Error("at start")); await new Promise((r) => setTimeout(r, 5000));`}, "Runtime.UnhandledPromiseRejection", "Error: at start"},
		{"never", "index.handler", map[string]string{"index.mjs": `await new Promise(() => {});`}, "Runtime.NodeJsExit", "never comes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := startNode(t, test.handler, test.files)
			wantError(t, l.wait(l.init), test.kind, test.message)
			if code := l.exit(); code == 0 {
				t.Error("exited with 0")
			}
		})
	}
}

func TestNodeContext(t *testing.T) {
	t.Parallel()
	l := startNode(t, "index.handler", map[string]string{"index.js": `
		exports.handler = async (event, context) => {
			const { getRemainingTimeInMillis, clientContext, identity, ...rest } = context;
			const left = context.getRemainingTimeInMillis();
			return { left: left > 50000 && left <= 60000, clientContext, identity, trace: process.env._X_AMZN_TRACE_ID, ...rest };
		};`})
	a := l.invoke(`{}`, "Lambda-Runtime-Client-Context", `{"custom":{"a":"ä"}}`, "Lambda-Runtime-Cognito-Identity", `{"cognitoIdentityId":"me"}`, "Lambda-Runtime-Trace-Id", "Root=1-2")
	l.want(a, `{"left":true,"clientContext":{"custom":{"a":"ä"}},"identity":{"cognitoIdentityId":"me"},"trace":"Root=1-2",`+
		`"callbackWaitsForEmptyEventLoop":true,"functionVersion":"3","functionName":"greet","memoryLimitInMB":"256",`+
		`"invokedFunctionArn":"arn:aws:lambda:us-east-1:000000000000:function:greet","awsRequestId":"request-1"}`)
	wantError(t, l.invoke(`{}`, "Lambda-Runtime-Client-Context", `{`), "Error", "Cannot parse ClientContext as json")
	wantError(t, l.invoke(`{`), "SyntaxError", "JSON")
}

// Large events come in many pieces, and large answers leave in many.
func TestNodeLarge(t *testing.T) {
	t.Parallel()
	l := startNode(t, "index.handler", map[string]string{"index.js": `exports.handler = async (event) => event;`})
	large := `"` + strings.Repeat("żółw ", 800_000) + `"`
	if a := l.invoke(large); a.Body != large {
		t.Errorf("answered %d bytes; want the %d of the event", len(a.Body), len(large))
	}
	l.want(l.invoke(`1`), `1`)
}

// One that never answers, one that throws where nobody can catch it, and one that rejects without being asked: the others,
// in the same process, do not notice.
func TestNodeConcurrency(t *testing.T) {
	t.Parallel()
	l := startNode(t, "index.handler", map[string]string{"index.js": `
		exports.handler = async ({ act, n }, context) => {
			if (act === "never") await new Promise(() => {});
			if (act === "throw") { setTimeout(() => { throw new Error("thrown " + n); }, 5); await new Promise(() => {}); }
			if (act === "reject") { setTimeout(async () => { throw new Error("rejected " + n); }, 5); await new Promise(() => {}); }
			await new Promise((r) => setTimeout(r, 30));
			return n;
		};`}, "AWS_LAMBDA_MAX_CONCURRENCY=10")
	l.timeout = 2 * time.Second
	never := l.begin(`{"act":"never"}`)
	thrown, rejected := l.begin(`{"act":"throw","n":1}`), l.begin(`{"act":"reject","n":2}`)
	good := []<-chan answer{l.begin(`{"n":3}`), l.begin(`{"n":4}`), l.begin(`{"n":5}`)}
	wantError(t, l.wait(thrown), "Error", "thrown 1")
	wantError(t, l.wait(rejected), "Runtime.UnhandledPromiseRejection", "Error: rejected 2")
	l.want(l.wait(good[0]), `3`)
	l.want(l.wait(good[1]), `4`)
	l.want(l.wait(good[2]), `5`)
	// Its place is free again once it is late.
	wantError(t, l.wait(never), "Runtime.Timeout", "did not end in time")
	var all []<-chan answer
	for range 10 {
		all = append(all, l.begin(`{"n":6}`))
	}
	for _, waiting := range all {
		l.want(l.wait(waiting), `6`)
	}
}

// With others in the process the event loop is never empty: callbacks answer at once, and what cannot answer is null.
func TestNodeConcurrencyCallbacks(t *testing.T) {
	t.Parallel()
	l := startNode(t, "index.handler", map[string]string{"index.js": `
		setInterval(() => {}, 1000);
		exports.handler = (event, context, callback) => { setTimeout(() => {}, 60000); callback(null, "at once"); };
		exports.nothing = (event) => "ignored";`}, "AWS_LAMBDA_MAX_CONCURRENCY=2")
	l.want(l.invoke(`{}`), `"at once"`)
	l = startNode(t, "index.handler", map[string]string{"index.js": `exports.handler = (event) => "ignored";`}, "AWS_LAMBDA_MAX_CONCURRENCY=2")
	l.want(l.invoke(`{}`), `null`)
}
