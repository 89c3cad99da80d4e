package gateway

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestEngineIOSessionsComeBack(t *testing.T) {
	for _, test := range []struct{ name, opening string }{
		{"protocol 4", `0{"sid":"lv_VI97HAXpY6yYWAAAC","upgrades":["websocket"],"pingInterval":300,"pingTimeout":20000,"maxPayload":1000000}`},
		{"protocol 3", `96:0{"sid":"lv_VI97HAXpY6yYWAAAC","upgrades":["websocket"],"pingInterval":300,"pingTimeout":5000}2:40`},
		{"protocol 3 in binary", "\x00\x09\x06\xff0{\"sid\":\"lv_VI97HAXpY6yYWAAAC\",\"pingInterval\":300,\"pingTimeout\":5000}"},
	} {
		for _, pieces := range []bool{false, true} {
			t.Run(fmt.Sprint(test.name, " in pieces ", pieces), func(t *testing.T) {
				d := openHandler(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Query().Has("sid") {
						echo(w, r)
						return
					}
					if !pieces {
						io.WriteString(w, test.opening)
						return
					}
					for _, c := range []byte(test.opening) {
						w.Write([]byte{c})
						http.NewResponseController(w).Flush()
					}
				})
				d.apps.settings.Affinity = "auto"
				if _, body := d.get(d.client(), "http://app.test/socket.io/?EIO=4&transport=polling"); body != test.opening {
					t.Fatalf("the answer is %q", body)
				}
				if got := d.fleet.wants.Load().Environment; got != "" {
					t.Errorf("the first request wants %q", got)
				}
				d.webSocket("/socket.io/?EIO=4&transport=websocket&sid=lv_VI97HAXpY6yYWAAAC").CloseNow()
				if got := d.fleet.wants.Load().Environment; got != "env-1" {
					t.Errorf("the second request wants %q", got)
				}
				d.get(d.client(), "http://other.test/socket.io/?EIO=4&transport=polling&sid=lv_VI97HAXpY6yYWAAAC")
				if got := d.fleet.wants.Load().Environment; got != "" {
					t.Errorf("another host's request wants %q", got)
				}
			})
		}
	}
}

// TestEngineIOIntervalComesFromPolling: a WebSocket that goes on with a session does not open with a packet.
func TestEngineIOIntervalComesFromPolling(t *testing.T) {
	h := holdStream(t, Config{}, ask{target: "/"})
	h.apps.settings.Affinity = "auto"
	key := "app.test lv"
	h.sessions.put(key, session{"env-1", 300 * time.Millisecond}, time.Now())
	second := h.dial().send("GET /?EIO=4&sid=lv HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	second.head()
	h.env.awaitCounts(t, counts{Streams: 2})
	h.env.pause()
	if got := second.next(); got != "text:2" {
		t.Errorf("the client heard %q", got)
	}
}

func TestCookies(t *testing.T) {
	for _, test := range []struct{ affinity, cookie, want, set string }{
		{"cookie", "", "", "lull-environment=env-1; Path=/; HttpOnly; SameSite=Lax"},
		{"cookie", "a=b; lull-environment=env-0;c=d", "env-0", "lull-environment=env-1; Path=/; HttpOnly; SameSite=Lax"},
		{"cookie", "lull-environment=env-1", "env-1", ""},
		{"cookie", "lull-environment=" + strings.Repeat("x", 65), "", "lull-environment=env-1; Path=/; HttpOnly; SameSite=Lax"},
		{"auto", "lull-environment=env-1", "", ""},
		{"none", "", "", ""},
		{"", "", "", ""},
	} {
		for _, upgrade := range []bool{false, true} {
			d := openHandler(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Upgrade") != "" {
					echo(w, r)
				}
			})
			d.apps.settings.Affinity = test.affinity
			request := newRequest(t, "GET", "http://app.test/", nil)
			if test.cookie != "" {
				request.Header.Set("Cookie", test.cookie)
			}
			if upgrade {
				request.Header.Set("Connection", "Upgrade")
				request.Header.Set("Upgrade", "websocket")
				request.Header.Set("Sec-WebSocket-Version", "13")
				request.Header.Set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
			}
			answer, err := d.client().Do(request)
			if err != nil {
				t.Fatal(err)
			}
			answer.Body.Close()
			if got := answer.Header.Get("Set-Cookie"); got != test.set {
				t.Errorf("%+v, upgrade %v: set %q", test, upgrade, got)
			}
			if got := d.fleet.wants.Load().Environment; got != test.want {
				t.Errorf("%+v, upgrade %v: wants %q", test, upgrade, got)
			}
		}
	}
}

func TestSessionsAreForgotten(t *testing.T) {
	var s sessions
	now := time.Unix(1_000_000, 0)
	s.put("a", session{environment: "1"}, now)
	s.put("b", session{environment: "2"}, now)
	now = now.Add(sessionIdle - time.Second)
	if got := s.find("a", now); got.environment != "1" {
		t.Errorf("a is at %q", got.environment)
	}
	now = now.Add(time.Second)
	if got := s.find("b", now); got.environment != "" {
		t.Errorf("after an hour without use b is at %q", got.environment)
	}
	if got := s.find("a", now); got.environment != "1" {
		t.Errorf("a is at %q", got.environment)
	}
	for i := range maxSessions {
		s.put(fmt.Sprint(i), session{environment: "3"}, now)
	}
	if got := s.find("a", now); got.environment != "" || len(s.byKey) != maxSessions || s.order.Len() != maxSessions {
		t.Errorf("a is at %q; %d are known", got.environment, len(s.byKey))
	}
	s.put("c", session{}, now.Add(2*sessionIdle))
	if len(s.byKey) != 1 {
		t.Errorf("%d are known after a long time", len(s.byKey))
	}
}
