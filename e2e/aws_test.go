package e2e

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"
)

// awsClient is AWS's official clients for JavaScript, pointed at a node.
type awsClient struct {
	s   *stage
	dir string
	env []string
}

func newAWSClient(s *stage) awsClient {
	s.t.Helper()
	dir := filepath.Join(s.t.TempDir(), "client")
	if err := os.CopyFS(dir, os.DirFS("clients/aws")); err != nil {
		s.t.Fatal(err)
	}
	command(s.t, dir, "npm", "ci", "--no-audit", "--no-fund")
	token, err := s.Token()
	if err != nil {
		s.t.Fatal(err)
	}
	return awsClient{s, dir, append(os.Environ(), "AWS_ENDPOINT_URL="+s.API, "AWS_REGION=eu-central-1", "AWS_ACCESS_KEY_ID=anybody",
		"AWS_SECRET_ACCESS_KEY="+token)}
}

// result is what the client prints.
type result struct {
	Status  int
	Error   string
	Payload string
	Version string
	Log     string
	Pieces  []string
	Details string
	Thrown  string
	Message string
	IP      string
}

func (c awsClient) run(args ...string) result {
	c.s.t.Helper()
	cmd := exec.CommandContext(within(c.s.t, time.Minute), "node", append([]string{"client.mjs"}, args...)...)
	cmd.Dir, cmd.Env = c.dir, c.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		c.s.t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return decode[result](c.s.t, string(out))
}

// streaming is a function that answers in pieces, and may fail between them.
const streaming = `
export const stream = awslambda.streamifyResponse(async (event, out) => {
  out.write('one ');
  if (event.fail) throw new RangeError('in the middle');
  out.write('two');
  out.end();
});
`

// AWS's Lambda client invokes a function in all ways there are.
func TestInvokeWithAWSClient(t *testing.T) {
	t.Parallel()
	s := sharedNode(t)
	s.deploy(copyApp(t, "function-node", map[string]string{"index.mjs": `
let events = 0;
export const handler = async (event, context) => {
  if (event.fail) throw new TypeError('it was asked to fail');
  if (event.count) events++;
  console.log('asked for', JSON.stringify(event));
  return { event, events, name: context.functionName };
};
`}), "invoked")
	c := newAWSClient(s)
	got := c.run("invoke", "invoked", `{"a": 1}`)
	if got.Status != 200 || got.Payload != `{"event":{"a":1},"events":0,"name":"invoked"}` || got.Version != "1" || !strings.Contains(got.Log, `asked for {"a":1}`) {
		t.Errorf("%+v", got)
	}
	if got = c.run("invoke", "arn:aws:lambda:eu-central-1:000000000000:function:invoked:1", `{"fail": true}`); got.Error != "Unhandled" ||
		!strings.Contains(got.Payload, `"errorType":"TypeError"`) {
		t.Errorf("a function that fails: %+v", got)
	}
	if got = c.run("dryrun", "invoked"); got.Status != http.StatusNoContent {
		t.Errorf("a dry run: %+v", got)
	}
	if got = c.run("invoke", "nobody", `{}`); got.Thrown != "ResourceNotFoundException" || got.Status != http.StatusNotFound {
		t.Errorf("a function that is not there: %+v", got)
	}
	if got = c.run("invoke", "invoked", `{`); got.Thrown != "InvalidRequestContentException" {
		t.Errorf("an event that is no JSON: %+v", got)
	}

	// An event is taken while the function sleeps, and delivered.
	s.awaitState("invoked", "hibernated")
	if got = c.run("event", "invoked", `{"count": true}`); got.Status != http.StatusAccepted {
		t.Errorf("an event: %+v", got)
	}
	eventually(t, 20*time.Second, "the event is delivered", func() (bool, any) {
		got := c.run("invoke", "invoked", `{}`)
		return strings.Contains(got.Payload, `"events":1`), got
	})

	stranger := c
	stranger.env = append(c.env, "AWS_SECRET_ACCESS_KEY=another")
	if got = stranger.run("invoke", "invoked", `{}`); got.Thrown != "InvalidSignatureException" || got.Status != http.StatusForbidden {
		t.Errorf("another secret: %+v", got)
	}

	s.deploy(copyApp(t, "function-node", map[string]string{"index.mjs": streaming, "lull.yaml": "function: {handler: index.stream, runtime: nodejs20.x}\n"}), "streamed")
	if got = c.run("stream", "streamed", `{}`); strings.Join(got.Pieces, "") != "one two" || got.Error != "" {
		t.Errorf("a stream: %+v", got)
	}
	got = c.run("stream", "streamed", `{"fail": true}`)
	if diff := cmp.Diff([]string{"one "}, got.Pieces); diff != "" || !strings.Contains(got.Details, "in the middle") {
		t.Errorf("a stream that fails: %+v", got)
	}
}

// Clients of a WebSocket API: the function hears them and speaks to them, and sleeps in between.
func TestWebSocketFunction(t *testing.T) {
	t.Parallel()
	s := sharedNode(t)
	s.deploy("apps/function-websocket", "chatter")
	ctx := within(t, 90*time.Second)
	if _, resp, err := websocket.Dial(ctx, s.URL("chatter", "/"), &websocket.DialOptions{HTTPClient: s.Client()}); err == nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("without the secret: %v %v", resp, err)
	}
	// What is no upgrade is an HTTP event, also if it wants an event stream. This function knows no such route, and fails.
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL("chatter", "/"), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	resp, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusBadGateway || resp.Header.Get("X-Amzn-Errortype") != "Error" {
		t.Errorf("a request: %d %v", resp.StatusCode, resp.Header)
	}
	first, second := s.dial("chatter", "/?secret=yes"), s.dial("chatter", "/?secret=yes")
	for _, state := range []string{"running", "paused", "hibernated"} {
		s.awaitState("chatter", state)
		s.say(second, `{"action": "say", "text": "`+state+`"}`)
		for _, conn := range []*websocket.Conn{first, second} {
			if got := s.hear(conn); got != state {
				t.Errorf("while %s: heard %q", state, got)
			}
		}
	}
	s.say(first, `nonsense`)
	if got := s.hear(first); !strings.Contains(got, "Internal server error") {
		t.Errorf("a message that the function fails on: %q", got)
	}
	// A new release keeps the clients, which an API Gateway does too.
	s.deploy("apps/function-websocket", "chatter")
	s.say(first, `{"action": "say", "text": "nobody is known to the new one"}`)

	c := newAWSClient(s)
	if got := c.run("post", "bm9ib2R5IGhlcmU=", "x"); got.Thrown != "GoneException" || got.Status != http.StatusGone {
		t.Errorf("a post to nobody: %+v", got)
	}
}
