package gateway

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lull-dev/lull/wsframe"
)

// TestHeartbeats plays each protocol: how it opens, what passes while the environment is up without being data, and what
// the gateway says in the app's name while it sleeps.
func TestHeartbeats(t *testing.T) {
	for _, test := range []struct {
		name     string
		ask      ask
		opening  []string // "<" is the app's, ">" the client's; they are data
		up       []string // that is not
		asleep   []string // "<" is the gateway's
		protocol string
		answers  float64 // that the gateway gave or things that it said
	}{
		{"engine.io 3", ask{target: "/socket.io/?EIO=3&transport=websocket"},
			[]string{`<text:0{"sid":"a","upgrades":[],"pingInterval":25000,"pingTimeout":5000}`, "<text:40", ">text:2probe"},
			[]string{">text:2", "<text:3"}, []string{">text:2", "<text:3"}, "engine.io", 1},
		{"engine.io 4", ask{target: "/engine.io/?EIO=4&transport=websocket"},
			[]string{`<text:0{"sid":"a","upgrades":[],"pingInterval":300,"pingTimeout":5000}`, ">text:40"},
			[]string{"<text:2", ">text:3"}, []string{"<text:2", ">text:3", "<text:2"}, "engine.io", 2},
		{"phoenix 1", ask{target: "/socket/websocket?vsn=1.0.0"},
			[]string{`>text:{"topic":"room:lobby","event":"phx_join","payload":{},"ref":"1"}`},
			[]string{`>text:{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"2"}`,
				`<text:{"event":"phx_reply","payload":{"response":{},"status":"ok"},"ref":"2","topic":"phoenix"}`},
			[]string{`>text:{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"3"}`,
				`<text:{"topic":"phoenix","event":"phx_reply","payload":{"status":"ok","response":{}},"ref":"3"}`}, "phoenix", 1},
		{"phoenix 2", ask{target: "/live/websocket?_csrf_token=x&vsn=2.0.0"},
			[]string{`>text:["3","3","room:lobby","phx_join",{}]`, `<text:["3","3","room:lobby","phx_reply",{"status":"ok","response":{}}]`},
			[]string{`>text:[null,"5","phoenix","heartbeat",{}]`, `<text:[null,"5","phoenix","phx_reply",{"response":{},"status":"ok"}]`},
			[]string{`>text:[null, "6", "phoenix", "heartbeat", {}]`, `<text:[null,"6","phoenix","phx_reply",{"status":"ok","response":{}}]`},
			"phoenix", 1},
		{"signalr", ask{target: "/hub?id=x"},
			[]string{">text:{\"protocol\":\"json\",\"version\":1}\x1e", "<text:{}\x1e"},
			[]string{">text:{\"type\":6}\x1e", "<text:{\"type\":6}\x1e"},
			[]string{">text:{\"type\":6}\x1e", ">ping:x", "<pong:x"}, "signalr", 0},
		{"signalr in messagepack", ask{},
			[]string{">text:{\"protocol\":\"messagepack\",\"version\":1}\x1e", "<text:{}\x1e"},
			[]string{">binary:\x02\x91\x06", "<binary:\x02\x91\x06"},
			[]string{">binary:\x02\x91\x06", ">ping:x", "<pong:x"}, "signalr", 0},
		{"graphql-ws", ask{subprotocol: "graphql-transport-ws"},
			[]string{`>text:{"type":"connection_init"}`, `<text:{"type":"connection_ack"}`},
			[]string{`>text:{"type":"ping"}`, `<text:{"type":"pong"}`, `<text:{"type": "ping"}`, `>text:{"type": "pong"}`},
			[]string{`>text:{"type":"ping"}`, `<text:{"type":"pong"}`}, "graphql-ws", 1},
		{"its predecessor", ask{subprotocol: "graphql-ws"},
			[]string{`>text:{"type":"connection_init"}`, `<text:{"type":"connection_ack"}`},
			[]string{`<text:{"type":"ka"}`}, nil, "graphql-ws", 0},
		{"stomp", ask{subprotocol: "v12.stomp"},
			[]string{">text:CONNECT\naccept-version:1.2\nhost:x\nheart-beat:10000,100\n\n\x00",
				"<text:CONNECTED\nversion:1.2\nheart-beat:300,10000\n\n\x00"},
			[]string{">text:\n", "<text:\n"}, []string{"<text:\n", ">text:\n", "<text:\n"}, "stomp", 2},
		{"sockjs", ask{target: "/echo/000/abc/websocket"},
			[]string{"<text:o", `>text:["x"]`}, []string{"<text:h"}, nil, "sockjs", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.ask.guarded = true
			h := holdStream(t, Config{}, test.ask)
			h.play(test.opening)
			moved, held := h.env.movedSoFar(), len(h.env.reasons())
			h.play(test.up)
			if h.env.movedSoFar() != moved || len(h.env.reasons()) != held {
				t.Errorf("heartbeats counted as data")
			}
			eventually(t, func() error {
				h.env.mu.Lock()
				defer h.env.mu.Unlock()
				if len(h.env.settled)%2 != 0 {
					return fmt.Errorf("the stream is not settled: %v", h.env.settled)
				}
				return nil
			})
			h.sleeps()
			for _, what := range test.asleep {
				if what[0] == '>' {
					h.says(what[1:])
				} else {
					h.clientHears(what[1:])
				}
			}
			if got := h.env.reasons(); len(got) != held {
				t.Errorf("the environment was held for %q", got[held:])
			}
			awaitValue(t, h.metrics.beats[test.protocol], test.answers)
			h.wakes("text:hello")
		})
	}
}

func (h *heldStream) play(what []string) {
	h.t.Helper()
	for _, what := range what {
		if what[0] == '>' {
			h.says(what[1:])
			h.appHears(what[1:])
		} else {
			h.appSays(what[1:])
			h.clientHears(what[1:])
		}
	}
}

func TestActionCableIsKeptUp(t *testing.T) {
	t.Parallel()
	h := holdStream(t, Config{}, ask{subprotocol: "actioncable-v1-json"})
	h.play([]string{`<text:{"type":"welcome"}`, `<text:{"type":"ping","message":1700000000}`})
	h.sleeps()
	if got := h.client.next(); !strings.HasPrefix(got, `text:{"type":"ping","message":`) {
		t.Errorf("the client heard %q", got)
	}
}

// TestEngineIOAnswersGoToWhoAsked: the app has asked before it fell asleep, and the gateway then.
func TestEngineIOAnswersGoToWhoAsked(t *testing.T) {
	t.Parallel()
	h := holdStream(t, Config{}, ask{target: "/socket.io/?EIO=4"})
	h.play([]string{`<text:0{"sid":"a","pingInterval":300,"pingTimeout":5000}`, "<text:2"})
	h.awaitSettled(false)
	h.env.pause()
	h.clientHears("text:2")
	h.says("text:3", "text:3", "ping:")
	h.clientHears("pong:")
	h.env.tick(t)
	h.appHears("text:3")
	h.awaitSettled(false, true)
	h.wakes("text:4")
	h.notWokenBut(1)
}

func (h *heldStream) notWokenBut(n int) {
	h.t.Helper()
	if got := h.env.reasons(); len(got) != n {
		h.t.Errorf("the environment was held for %q", got)
	}
}

func TestStompBeat(t *testing.T) {
	connect := func(header string) string { return "CONNECT\nhost:x\n" + header + "\n\n\x00" }
	for _, test := range []struct {
		client, app string
		want        time.Duration
	}{
		{connect("heart-beat:0,2000"), "CONNECTED\nheart-beat:1000,0\n\n\x00", 2 * time.Second},
		{connect("heart-beat:0,1000"), "CONNECTED\nheart-beat:3000,0\n\n\x00", 3 * time.Second},
		{connect("heart-beat:1000,0"), "CONNECTED\nheart-beat:3000,0\n\n\x00", -1},
		{connect("x:y"), "CONNECTED\nheart-beat:3000,0\n\n\x00", -1},
		{connect("heart-beat:0,1000"), "CONNECTED\nheart-beat:0,1000\n\n\x00", -1},
		{connect("heart-beat:0,1000"), "CONNECTED\nversion:1.2\n\n\x00", -1},
		{"", "CONNECTED\nheart-beat:3000,0\n\n\x00", 3 * time.Second},
	} {
		every := time.Duration(0)
		if test.client != "" {
			every = stompBeat([]byte(test.client), false, every)
		}
		if got := stompBeat([]byte(test.app), true, every); got != test.want {
			t.Errorf("%q, %q: every %v, want %v", test.client, test.app, got, test.want)
		}
	}
}

func TestCallers(t *testing.T) {
	var c callers
	for range 40 { // only the last 32 are known
		c.push(true)
	}
	if c.ofApp() || c.count != 32 {
		t.Errorf("%d callers, the app among them: %v", c.count, c.ofApp())
	}
	c.push(false)
	for range 31 {
		if gateway, ok := c.pop(); !gateway || !ok || !c.ofApp() {
			t.Fatalf("popped %v, %v", gateway, ok)
		}
	}
	if gateway, ok := c.pop(); gateway || !ok || c.ofApp() {
		t.Errorf("popped %v, %v", gateway, ok)
	}
	if _, ok := c.pop(); ok {
		t.Error("popped what is not there")
	}
}

// FuzzDialects gives all protocols anything: nothing panics, and a heartbeat is never also something else.
func FuzzDialects(f *testing.F) {
	f.Add([]byte(`[null,"5","phoenix","heartbeat",{}]`))
	f.Add([]byte(`{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"2"}`))
	f.Add([]byte(`97:0{"sid":"a","pingInterval":25000}2:40`))
	f.Add([]byte("CONNECTED\nheart-beat:0,x\n\n"))
	f.Fuzz(func(t *testing.T, m []byte) {
		if len(m) > wsframe.MaxSmall {
			return
		}
		m = squeeze(m)
		dialectOfTarget(m)
		parseOpen(m)
		for _, fromApp := range []bool{false, true} {
			dialectOfFirst(m, fromApp)
			for _, d := range dialects {
				if d.learn != nil {
					d.learn(m, fromApp, 0)
				}
				if d.ofApp(m); d.ofClient(m) == isCall && len(d.answerTo(m)) == 0 {
					t.Errorf("%s: no answer to %q", d.name, m)
				}
			}
		}
	})
}
