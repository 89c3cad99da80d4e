package gateway

import (
	"bytes"
	"encoding/json"
	"strconv"
	"time"

	"github.com/lull-dev/lull/wsframe"
)

// dialect is an application protocol with heartbeats of its own inside a WebSocket's messages. Heartbeats are not data: they
// do not keep an environment awake, and while it sleeps the gateway speaks for it. To teach the gateway another one add a
// row to dialects.
//
// Heartbeats are written as they are sent, but JSON without the spaces that some libraries put in. What is longer than
// wsframe.MaxSmall is never taken for one.
type dialect struct {
	name   string // for metrics
	binary bool   // its messages are binary ones

	// How it is recognised; any one will do.
	subprotocols []string                          // that the app chose
	target       func(path, query []byte) bool     // of the request
	first        func(m []byte, fromApp bool) bool // the first message of a side

	call, answer string                     // what the client asks the app now and then, and what it expects
	reply        func(m []byte) []byte      // instead, where the answer depends on the call; nil if m is none
	isReply      func(m []byte) bool        // instead: whether the app's m is such an answer
	appCall      string                     // what the app asks the client
	clientAnswer string                     // and what it expects
	clientBeat   string                     // what the client says now and then without expecting an answer
	appBeat      string                     // what the app does
	stamp        func(now time.Time) string // instead, where it depends on the time
	isStamp      func(m []byte) bool        // whether the app's m is such a one

	every time.Duration // how often the app speaks up (appCall, appBeat, stamp); not by itself if it is not positive
	// learn, if set, reads every out of the first message of a side; it gets what is known and returns what is then.
	learn func(m []byte, fromApp bool, every time.Duration) time.Duration
}

// dialects are all that are known.
var dialects = []*dialect{
	engineIO4,
	engineIO3,
	{
		// Heartbeats of the client on the topic "phoenix", answered with its ref. The client gives up a connection on which
		// one was not answered when the next is due (30 s).
		// https://hexdocs.pm/phoenix/writing_a_channels_client.html
		name: "phoenix",
		target: func(path, query []byte) bool {
			return bytes.HasSuffix(path, []byte("/websocket")) && parameter(query, "vsn") != nil
		},
		reply: phoenixReply, isReply: isPhoenixReply,
	},
	{
		// The server speaks every 3 s (BEAT_INTERVAL); the client gives up after 6 s of silence (staleThreshold).
		// https://github.com/rails/rails/blob/main/actioncable/lib/action_cable/server/connections.rb
		// https://github.com/rails/rails/blob/main/actioncable/app/javascript/action_cable/connection_monitor.js
		name: "actioncable", subprotocols: []string{"actioncable-v1-json"},
		stamp: func(now time.Time) string {
			return `{"type":"ping","message":` + strconv.FormatInt(now.Unix(), 10) + `}`
		},
		isStamp: func(m []byte) bool { return bytes.HasPrefix(m, []byte(`{"type":"ping"`)) },
		every:   3 * time.Second,
	},
	{
		// Both sides speak every 15 s (KeepAliveInterval) and give up after 30 s of silence.
		// https://github.com/dotnet/aspnetcore/blob/main/src/SignalR/docs/specs/HubProtocol.md
		name:       "signalr",
		first:      func(m []byte, fromApp bool) bool { return !fromApp && isSignalR(m, `"protocol":"json"`) },
		clientBeat: "{\"type\":6}\x1e", appBeat: "{\"type\":6}\x1e", every: 15 * time.Second,
	},
	{
		// The same in MessagePack, each message after its length: the array [6].
		name: "signalr", binary: true,
		first:      func(m []byte, fromApp bool) bool { return !fromApp && isSignalR(m, `"protocol":"messagepack"`) },
		clientBeat: "\x02\x91\x06", appBeat: "\x02\x91\x06", every: 15 * time.Second,
	},
	{
		// Either side may ping at any time and expects a pong.
		// https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md
		name: "graphql-ws", subprotocols: []string{"graphql-transport-ws"},
		call: `{"type":"ping"}`, answer: `{"type":"pong"}`, appCall: `{"type":"ping"}`, clientAnswer: `{"type":"pong"}`,
	},
	{
		// Its predecessor: the server may say that it is alive; how often is not told.
		// https://github.com/apollographql/subscriptions-transport-ws/blob/master/PROTOCOL.md
		name: "graphql-ws", subprotocols: []string{"graphql-ws"}, appBeat: `{"type":"ka"}`,
	},
	{
		// An end of line each way, as often as both agreed on in CONNECT and CONNECTED.
		// https://stomp.github.io/stomp-specification-1.2.html#Heart-beating
		name: "stomp", subprotocols: []string{"v10.stomp", "v11.stomp", "v12.stomp"},
		first: func(m []byte, fromApp bool) bool {
			return !fromApp && (bytes.HasPrefix(m, []byte("CONNECT\n")) || bytes.HasPrefix(m, []byte("STOMP\n")))
		},
		clientBeat: "\n", appBeat: "\n", learn: stompBeat,
	},
	{
		// The server says that it is alive, every 25 s by default.
		// https://github.com/sockjs/sockjs-protocol
		name: "sockjs", first: func(m []byte, fromApp bool) bool { return fromApp && string(m) == "o" },
		appBeat: "h", every: 25 * time.Second,
	},
}

// said is what a message is as a heartbeat.
type said uint8

const (
	isData   said = iota // it is none
	isBeat               // nobody answers it
	isCall               // the other side answers it
	isAnswer             // it is the answer
)

// ofClient says what a client's message is.
func (d *dialect) ofClient(m []byte) said {
	switch text := string(m); {
	case text == "":
		return isData
	case text == d.call, d.reply != nil && d.reply(m) != nil:
		return isCall
	case text == d.clientAnswer:
		return isAnswer
	case text == d.clientBeat:
		return isBeat
	}
	return isData
}

// ofApp says what an app's message is.
func (d *dialect) ofApp(m []byte) said {
	switch text := string(m); {
	case text == "":
		return isData
	case text == d.appCall:
		return isCall
	case text == d.answer, d.isReply != nil && d.isReply(m):
		return isAnswer
	case text == d.appBeat, d.isStamp != nil && d.isStamp(m):
		return isBeat
	}
	return isData
}

// kind is that of its messages.
func (d *dialect) kind() wsframe.Kind {
	if d.binary {
		return wsframe.Binary
	}
	return wsframe.Text
}

// answerTo returns what the app would answer to a client's call.
func (d *dialect) answerTo(m []byte) []byte {
	if d.reply != nil {
		return d.reply(m)
	}
	return []byte(d.answer)
}

// speaks returns what the app would say by itself, "" if nothing.
func (d *dialect) speaks(now time.Time) string {
	switch {
	case d.stamp != nil:
		return d.stamp(now)
	case d.appCall != "":
		return d.appCall
	}
	return d.appBeat
}

// dialectOfTarget recognises a dialect by what was asked for.
func dialectOfTarget(target []byte) *dialect {
	path, query, _ := bytes.Cut(target, []byte("?"))
	for _, d := range dialects {
		if d.target != nil && d.target(path, query) {
			return d
		}
	}
	return nil
}

// dialectOfSubprotocol recognises a dialect by what the app chose.
func dialectOfSubprotocol(name []byte) *dialect {
	for _, d := range dialects {
		for _, known := range d.subprotocols {
			if string(name) == known {
				return d
			}
		}
	}
	return nil
}

// dialectOfFirst recognises a dialect by the first message of a side.
func dialectOfFirst(m []byte, fromApp bool) *dialect {
	for _, d := range dialects {
		if d.first != nil && d.first(m, fromApp) {
			return d
		}
	}
	return nil
}

// parameter returns a parameter of a query, nil if it is not there.
func parameter(query []byte, name string) []byte {
	for len(query) > 0 {
		var pair []byte
		pair, query, _ = bytes.Cut(query, []byte("&"))
		if key, value, ok := bytes.Cut(pair, []byte("=")); ok && string(key) == name {
			return value
		}
	}
	return nil
}

// squeeze takes the spaces between the tokens out of m if it is JSON. It works in place.
func squeeze(m []byte) []byte {
	if len(m) == 0 || m[0] != '{' && m[0] != '[' {
		return m
	}
	out, inString, escaped := m[:0], false, false
	for _, c := range m {
		switch {
		case escaped:
			escaped = false
		case inString && c == '\\':
			escaped = true
		case c == '"':
			inString = !inString
		case !inString && (c == ' ' || c == '\t' || c == '\n' || c == '\r'):
			continue
		}
		out = append(out, c)
	}
	return out
}

func isSignalR(m []byte, protocol string) bool {
	return bytes.HasSuffix(m, []byte("\x1e")) && bytes.Contains(m, []byte(protocol)) && bytes.Contains(m, []byte(`"version"`))
}

// phoenixMessage is a message in the first version of the serializer; the second is an array of five.
type phoenixMessage struct {
	Topic   string          `json:"topic"`
	Event   string          `json:"event"`
	Payload json.RawMessage `json:"payload"`
	Ref     json.RawMessage `json:"ref"`
}

func parsePhoenix(m []byte) (p phoenixMessage, join json.RawMessage, ok bool) {
	if !bytes.Contains(m, []byte(`"phoenix"`)) {
		return p, nil, false
	}
	if m[0] == '{' {
		return p, nil, json.Unmarshal(m, &p) == nil && p.Topic == "phoenix"
	}
	join = json.RawMessage("null")
	parts := []any{&join, &p.Ref, &p.Topic, &p.Event, &p.Payload}
	return p, join, json.Unmarshal(m, &parts) == nil && len(parts) == 5 && p.Topic == "phoenix"
}

func phoenixReply(m []byte) []byte {
	p, join, ok := parsePhoenix(m)
	if !ok || p.Event != "heartbeat" || string(p.Payload) != "{}" || p.Ref == nil {
		return nil
	}
	status := json.RawMessage(`{"status":"ok","response":{}}`)
	var reply []byte
	if join == nil {
		reply, _ = json.Marshal(phoenixMessage{Topic: p.Topic, Event: "phx_reply", Payload: status, Ref: p.Ref})
	} else {
		reply, _ = json.Marshal([]any{join, p.Ref, p.Topic, "phx_reply", status})
	}
	return reply
}

func isPhoenixReply(m []byte) bool {
	p, _, ok := parsePhoenix(m)
	return ok && p.Event == "phx_reply"
}

// stompBeat reads how often the app speaks out of the heart-beat header: in CONNECT its second number is how often the
// client wants to hear something, in CONNECTED its first is how often the app can say something; 0 is never. The slower
// counts; if the client's was not seen (with long credentials CONNECT is not a small frame), the app's.
func stompBeat(m []byte, fromApp bool, every time.Duration) time.Duration {
	frame, _, _ := bytes.Cut(m, []byte("\n\n"))
	_, header, _ := bytes.Cut(frame, []byte("\nheart-beat:"))
	header, _, _ = bytes.Cut(header, []byte("\n"))
	can, wants, _ := bytes.Cut(bytes.TrimSpace(header), []byte(","))
	number := wants
	if fromApp {
		number = can
	}
	ms, err := strconv.Atoi(string(number))
	if err != nil || ms <= 0 || ms > 1<<30 || every < 0 {
		return -1
	}
	return max(every, time.Duration(ms)*time.Millisecond)
}
