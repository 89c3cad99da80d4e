package event

import (
	"encoding/json"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
)

func TestWebSocketEvents(t *testing.T) {
	r := httptest.NewRequest("GET", "/?room=a&room=b", nil)
	r.Host = "chat.example.com:8080"
	r.Header.Set("User-Agent", "agent")
	r.Header.Set("X-Forwarded-For", "203.0.113.9")
	r.Header.Set("Sec-Websocket-Protocol", "v1")
	p := NewPeer("chat", "L0SM9cOFvHcCIhw=", r, now)
	except := map[string]bool{"disconnectStatusCode": true, "disconnectReason": true}
	read := func(data []byte) events.APIGatewayWebsocketProxyRequest {
		t.Helper()
		var got events.APIGatewayWebsocketProxyRequest
		strict(t, data, &got, except)
		context := got.RequestContext
		if context.ConnectionID != "L0SM9cOFvHcCIhw=" || context.DomainName != "chat.example.com" || context.Stage != "prod" || context.APIID != "chat" ||
			context.ConnectedAt != now.UnixMilli() || context.Identity.SourceIP != "203.0.113.9" || context.RequestID == "" {
			t.Errorf("%+v", context)
		}
		return got
	}
	got := read(p.Connect(r))
	if got.RequestContext.EventType != "CONNECT" || got.RequestContext.RouteKey != "$connect" || got.Headers["Sec-Websocket-Protocol"] != "v1" ||
		len(got.MultiValueQueryStringParameters["room"]) != 2 || got.QueryStringParameters["room"] != "b" {
		t.Errorf("%+v", got)
	}
	got = read(p.Message("say", []byte(`{"text": "hi"}`), false))
	if got.RequestContext.EventType != "MESSAGE" || got.RequestContext.RouteKey != "say" || got.Body != `{"text": "hi"}` || got.RequestContext.MessageID == "" {
		t.Errorf("%+v", got)
	}
	if got = read(p.Message("$default", []byte{0xff}, true)); got.Body != "/w==" || !got.IsBase64Encoded {
		t.Errorf("%+v", got)
	}
	if got = read(p.Disconnect(1001, "going")); got.RequestContext.EventType != "DISCONNECT" || got.RequestContext.RouteKey != "$disconnect" {
		t.Errorf("%+v", got)
	}
	if when := time.UnixMilli(got.RequestContext.RequestTimeEpoch); time.Since(when) > time.Minute {
		t.Errorf("it is of %s", when)
	}
	if !json.Valid(p.Failure()) {
		t.Errorf("%s", p.Failure())
	}
}

func TestRoute(t *testing.T) {
	routes := []string{"join", "say", "5"}
	for _, c := range []struct{ expression, message, want string }{
		{"$request.body.action", `{"action": "join"}`, "join"},
		{"${request.body.action}", `{"action": "say"}`, "say"},
		{"$request.body.a.b", `{"a": {"b": "say"}}`, "say"},
		{"$request.body.action", `{"action": 5}`, "5"},
		{"$request.body.action", `{"action": "leave"}`, "$default"},
		{"$request.body.action", `{"action": {"x": 1}}`, "$default"},
		{"$request.body.action", `[]`, "$default"},
		{"$request.body.action", `join`, "$default"},
		{"$request.body.action", "", "$default"},
		{"$request.body", `"say"`, "say"},
		{"$default", `{"action": "join"}`, "$default"},
	} {
		if got := Route(c.expression, routes, []byte(c.message)); got != c.want {
			t.Errorf("%s of %s: %s, want %s", c.expression, c.message, got, c.want)
		}
	}
}

func FuzzRoute(f *testing.F) {
	f.Add("$request.body.action", []byte(`{"action": "join"}`))
	f.Fuzz(func(t *testing.T, expression string, message []byte) {
		if got := Route(expression, []string{"join"}, message); got != "join" && got != "$default" {
			t.Errorf("route %q", got)
		}
	})
}
