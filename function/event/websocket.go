package event

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Peer is a client of a WebSocket API, as its events describe it.
// https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-websocket-api-mapping-template-reference.html
type Peer struct {
	App          string
	ConnectionID string
	Domain       string
	SourceIP     string
	UserAgent    string
	ConnectedAt  time.Time
}

// NewPeer describes the client that sent r, which asks for the connection.
func NewPeer(app, connectionID string, r *http.Request, now time.Time) Peer {
	return Peer{App: app, ConnectionID: connectionID, Domain: hostOf(r), SourceIP: clientOf(r), UserAgent: r.UserAgent(), ConnectedAt: now}
}

// Connect is the event of a client that wants to connect.
func (p Peer) Connect(r *http.Request) []byte {
	in := input{Request: r, names: headerNames(r.Header), query: r.URL.RawQuery}
	w := &writer{}
	w.begin()
	in.headers(w, "headers", nil)
	in.multiHeaders(w, "multiValueHeaders", nil)
	if in.query != "" {
		in.multiParameters(w)
	}
	p.context(w, "CONNECT", "$connect", nil)
	w.bool("isBase64Encoded", false)
	w.close('}')
	return w.buf
}

// Message is the event of a message.
func (p Peer) Message(route string, data []byte, binary bool) []byte {
	w := &writer{buf: make([]byte, 0, 1024+len(data)*4/3)}
	w.begin()
	p.context(w, "MESSAGE", route, func(w *writer) { w.text("messageId", newID()) })
	w.key("body")
	if binary {
		w.buf = append(w.buf, '"')
		w.buf = base64.StdEncoding.AppendEncode(w.buf, data)
		w.buf = append(w.buf, '"')
	} else {
		w.buf = appendString(w.buf, string(data))
	}
	w.bool("isBase64Encoded", binary)
	w.close('}')
	return w.buf
}

// Disconnect is the event of a client that has gone, with what it said or how it went.
func (p Peer) Disconnect(code int, reason string) []byte {
	w := &writer{}
	w.begin()
	p.context(w, "DISCONNECT", "$disconnect", func(w *writer) {
		w.number("disconnectStatusCode", int64(code))
		w.text("disconnectReason", reason)
	})
	w.bool("isBase64Encoded", false)
	w.close('}')
	return w.buf
}

// Failure is what a client is sent when the function has failed on its message.
func (p Peer) Failure() []byte {
	w := &writer{}
	w.begin()
	w.text("message", "Internal server error")
	w.text("connectionId", p.ConnectionID)
	w.text("requestId", newID())
	w.close('}')
	return w.buf
}

// Stage is the stage of WebSocket events: there is one only.
const Stage = "prod"

func (p Peer) context(w *writer, kind, route string, more func(*writer)) {
	now, id := time.Now(), newID()
	w.open("requestContext", '{')
	w.text("routeKey", route)
	if more != nil {
		more(w)
	}
	w.text("eventType", kind)
	w.text("extendedRequestId", id)
	w.text("requestTime", clock(now))
	w.text("messageDirection", "IN")
	w.text("stage", Stage)
	w.number("connectedAt", p.ConnectedAt.UnixMilli())
	w.number("requestTimeEpoch", now.UnixMilli())
	w.open("identity", '{')
	if p.UserAgent != "" {
		w.text("userAgent", p.UserAgent)
	}
	w.text("sourceIp", p.SourceIP)
	w.close('}')
	w.text("requestId", id)
	w.text("domainName", p.Domain)
	w.text("connectionId", p.ConnectionID)
	w.text("apiId", p.App)
	w.close('}')
}

func newID() string {
	var id [12]byte
	rand.Read(id[:])
	return base64.RawURLEncoding.EncodeToString(id[:])
}

// Route finds the route of a text message: what the expression, such as $request.body.action, selects in it, if there is such a
// route, else $default.
// https://docs.aws.amazon.com/apigateway/latest/developerguide/websocket-api-develop-routes.html
func Route(expression string, routes []string, message []byte) string {
	const none = "$default"
	expression = strings.TrimPrefix(expression, "$")
	expression = strings.TrimSuffix(strings.TrimPrefix(expression, "{"), "}")
	expression = strings.TrimPrefix(expression, "$") // ${request.body.x} and {$request.body.x} are both about
	path, ok := strings.CutPrefix(expression, "request.body")
	if !ok || len(routes) == 0 {
		return none
	}
	value := json.RawMessage(message)
	for _, name := range strings.Split(strings.TrimPrefix(path, "."), ".") {
		if name == "" {
			continue
		}
		var object map[string]json.RawMessage
		if json.Unmarshal(value, &object) != nil {
			return none
		}
		if value, ok = object[name]; !ok {
			return none
		}
	}
	var key string
	if json.Unmarshal(value, &key) != nil {
		key = string(value) // a number, true or false
	}
	if !slices.Contains(routes, key) {
		return none
	}
	return key
}
