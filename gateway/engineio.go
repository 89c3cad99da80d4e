package gateway

import (
	"bytes"
	"encoding/json"
	"time"
)

// Engine.IO, which carries Socket.IO, comes in two kinds that both ping with "2" and answer with "3". A session may begin
// with polling and go on in a WebSocket; its id is then in the target.
//
// In protocol 4 the server pings every pingInterval and the client gives up when none came for pingInterval and
// pingTimeout. In protocol 3 it is the client that pings.
// https://github.com/socketio/engine.io-protocol#heartbeat
// https://github.com/socketio/engine.io-protocol/tree/v3#difference-between-v2-and-v3
var (
	engineIO4 = &dialect{
		name:    "engine.io",
		target:  func(_, query []byte) bool { return string(parameter(query, "EIO")) == "4" },
		appCall: "2", clientAnswer: "3", every: 25 * time.Second, learn: engineBeat,
	}
	engineIO3 = &dialect{
		name:   "engine.io",
		target: func(_, query []byte) bool { return string(parameter(query, "EIO")) == "3" },
		call:   "2", answer: "3",
	}
)

// enginePacket is what the server says when a session opens, in a packet of type 0.
type enginePacket struct {
	SID          string `json:"sid"`
	PingInterval int64  `json:"pingInterval"` // ms
	PingTimeout  int64  `json:"pingTimeout"`  // ms
}

func (p enginePacket) every() time.Duration { return time.Duration(p.PingInterval) * time.Millisecond }

// parseOpen reads an open packet, wherever in m it begins: in the payload of a polling answer of protocol 3 its length comes
// before it. What comes after it does not matter.
func parseOpen(m []byte) (p enginePacket, ok bool) {
	at := bytes.Index(m, []byte("0{"))
	if at < 0 {
		return p, false
	}
	if json.NewDecoder(bytes.NewReader(m[at+1:])).Decode(&p) != nil || p.SID == "" {
		return enginePacket{}, false
	}
	if p.PingInterval <= 0 || p.PingInterval > 1<<30 {
		p.PingInterval = 0
	}
	return p, true
}

func engineBeat(m []byte, fromApp bool, every time.Duration) time.Duration {
	if p, ok := parseOpen(m); ok && fromApp && p.PingInterval > 0 {
		return p.every()
	}
	return every
}
