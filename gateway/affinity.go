package gateway

import (
	"bytes"
	"container/list"
	"sync"
	"time"

	"github.com/lull-dev/lull/gateway/http1"
	"github.com/lull-dev/lull/gateway/wire"
)

// What Settings.Affinity can be. Anything else is affinityNone.
const (
	affinityAuto   = "auto"   // an Engine.IO session comes back to where it began
	affinityCookie = "cookie" // a client does
)

// affinity is what an exchange knows about where it belongs.
type affinity struct {
	environment string        // where it belongs; empty if anywhere
	cookie      bool          // the client is told by a cookie where it has been
	every       time.Duration // between two pings of the Engine.IO session, if that is known
	opens       bool          // it opens an Engine.IO session: its answer says which
	key         string        // what sessions of this host are remembered under, before their ids
	opening     []byte        // the first bytes of that answer
}

const cookieName = "lull-environment"

// belongs finds out where the request belongs.
func (x *exchange) belongs() {
	switch x.settings.Affinity {
	case affinityAuto:
		_, query, _ := bytes.Cut(x.req.Target, []byte("?"))
		if parameter(query, "EIO") == nil {
			return
		}
		x.affinity.key = hostKey(x.req.Host) + " " // apps cannot speak for each other's sessions
		sid := parameter(query, "sid")
		if sid == nil {
			x.affinity.opens = x.req.Upgrade == nil && string(x.req.Method) == "GET"
			return
		}
		s := x.g.sessions.find(x.affinity.key+string(sid), time.Now())
		x.affinity.environment, x.affinity.every = s.environment, s.every
	case affinityCookie:
		x.affinity.cookie = true
		x.affinity.environment = cookieOf(x.req.Fields)
	}
}

// cookieOf returns the id in the request's cookie, empty if there is none that could be one.
func cookieOf(fields []http1.Field) string {
	for i := range fields {
		if !http1.EqualFold(fields[i].Key, "cookie") {
			continue
		}
		for rest := fields[i].Value; len(rest) > 0; {
			var pair []byte
			pair, rest, _ = bytes.Cut(rest, []byte(";"))
			if name, id, ok := bytes.Cut(bytes.TrimSpace(pair), []byte("=")); ok && string(name) == cookieName && len(id) <= 64 {
				return string(id)
			}
		}
	}
	return ""
}

// setCookie returns what the client is to be told; empty if it knows.
func (x *exchange) setCookie() string {
	if id := x.place.Environment(); x.affinity.cookie && x.affinity.environment != id {
		return cookieName + "=" + id + "; Path=/; HttpOnly; SameSite=Lax"
	}
	return ""
}

// maxOpening is how much of an answer is looked at for an open packet.
const maxOpening = 256

// overhear looks at the first bytes of an answer that opens a session, and remembers the session. p is what has just come.
func (x *exchange) overhear(p []byte) {
	a := &x.affinity
	a.opening = append(a.opening, p[:min(len(p), maxOpening-len(a.opening))]...)
	packet, ok := parseOpen(a.opening)
	if ok {
		x.g.sessions.put(x.affinity.key+packet.SID, session{x.place.Environment(), packet.every()}, time.Now())
	}
	if ok || len(a.opening) == maxOpening {
		a.opens, a.opening = false, nil
	}
}

// overhearing is a Lender that remembers what it lent.
type overhearing struct {
	wire.Lender
	lent []byte
}

func (o *overhearing) Lend() []byte {
	o.lent = o.Lender.Lend()
	return o.lent
}

// session is what is known of an Engine.IO session.
type session struct {
	environment string
	every       time.Duration // between two pings; 0 if it was not said
}

// sessions remembers where Engine.IO sessions live: as many as maxSessions, those used last, none longer than
// sessionIdle after its last use.
type sessions struct {
	mu    sync.Mutex
	byKey map[string]*list.Element // of entry
	order list.List                // the one used last in front
}

type sessionEntry struct {
	key string
	session
	used time.Time
}

const (
	maxSessions = 100_000
	sessionIdle = time.Hour
)

func (s *sessions) put(key string, known session, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byKey == nil {
		s.byKey = map[string]*list.Element{}
	}
	s.drop(key)
	s.byKey[key] = s.order.PushFront(&sessionEntry{key, known, now})
	for last := s.order.Back(); ; last = s.order.Back() {
		entry := last.Value.(*sessionEntry)
		if s.order.Len() <= maxSessions && now.Sub(entry.used) < sessionIdle {
			return
		}
		s.drop(entry.key)
	}
}

func (s *sessions) drop(key string) {
	if e := s.byKey[key]; e != nil {
		s.order.Remove(e)
		delete(s.byKey, key)
	}
}

func (s *sessions) find(key string, now time.Time) session {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.byKey[key]
	if e == nil {
		return session{}
	}
	entry := e.Value.(*sessionEntry)
	if now.Sub(entry.used) >= sessionIdle {
		s.drop(key)
		return session{}
	}
	entry.used = now
	s.order.MoveToFront(e)
	return entry.session
}
