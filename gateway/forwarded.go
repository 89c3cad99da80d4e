package gateway

import (
	"net"
	"net/netip"
	"slices"
	"strconv"

	"github.com/lull-dev/lull/gateway/http1"
)

// sender is who is at the other end of a client connection.
type sender struct {
	addr    netip.Addr // invalid if it has none
	trusted bool       // what it says about those before it is believed
}

func newSender(remote net.Addr, trust []netip.Prefix) sender {
	if remote == nil {
		return sender{}
	}
	from, err := netip.ParseAddrPort(remote.String())
	if err != nil {
		return sender{}
	}
	addr := from.Addr().Unmap().WithZone("")
	return sender{addr, slices.ContainsFunc(trust, func(p netip.Prefix) bool { return p.Contains(addr) })}
}

func (s sender) append(dst []byte) []byte {
	if !s.addr.IsValid() {
		return append(dst, "unknown"...)
	}
	return s.addr.AppendTo(dst)
}

// appendRequest writes the head of a request as the app gets it: order, names and values as they came; without what was
// for this connection only; framed anew; with who asked.
func appendRequest(dst []byte, r *http1.Request, from sender) []byte {
	dst = append(dst, r.Method...)
	dst = append(dst, ' ')
	dst = append(dst, r.Target...)
	dst = append(dst, " HTTP/1.1\r\n"...)
	declared := false
	for i := range r.Fields {
		f := &r.Fields[i]
		switch f.Name {
		case http1.XForwardedFor, http1.XForwardedHost, http1.XForwardedProto, http1.Forwarded:
			continue
		case http1.ContentLength:
			declared = true
		}
		if !f.Hop {
			dst = http1.AppendField(dst, f.Key, f.Value)
		}
	}
	if r.Length == http1.Chunked {
		dst = append(dst, "Transfer-Encoding: chunked\r\n"...)
	} else if r.Length > 0 && !declared {
		dst = append(dst, "Content-Length: "...)
		dst = strconv.AppendInt(dst, r.Length, 10)
		dst = append(dst, "\r\n"...)
	}
	dst = appendConnection(dst, r)
	dst = appendForwarded(dst, r, from)
	return append(dst, "\r\n"...)
}

func appendConnection(dst []byte, r *http1.Request) []byte {
	switch {
	case r.Upgrade != nil && r.Trailers:
		dst = append(dst, "Connection: Upgrade, TE\r\nTE: trailers\r\n"...)
	case r.Upgrade != nil:
		dst = append(dst, "Connection: Upgrade\r\n"...)
	case r.Trailers:
		dst = append(dst, "Connection: TE\r\nTE: trailers\r\n"...)
	}
	if r.Upgrade != nil {
		dst = http1.AppendField(dst, []byte("Upgrade"), r.Upgrade)
	}
	return dst
}

// appendForwarded says who asked, for what, and how (X-Forwarded-* and RFC 7239).
func appendForwarded(dst []byte, r *http1.Request, from sender) []byte {
	dst = append(dst, "X-Forwarded-For: "...)
	dst = from.before(dst, r, http1.XForwardedFor)
	dst = from.append(dst)

	dst = append(dst, "\r\nX-Forwarded-Proto: "...)
	proto := from.claim(r, http1.XForwardedProto)
	if string(proto) != "https" {
		proto = []byte("http")
	}
	dst = append(dst, proto...)

	host := from.claim(r, http1.XForwardedHost)
	if host == nil {
		host = r.Host
	}
	if len(host) > 0 {
		dst = append(dst, "\r\nX-Forwarded-Host: "...)
		dst = append(dst, host...)
	}

	dst = append(dst, "\r\nForwarded: "...)
	dst = from.before(dst, r, http1.Forwarded)
	dst = append(dst, "for="...)
	if from.addr.Is6() {
		dst = append(dst, `"[`...)
		dst = append(from.append(dst), `]"`...)
	} else {
		dst = from.append(dst)
	}
	if len(r.Host) > 0 {
		dst = append(dst, `;host="`...)
		dst = append(append(dst, r.Host...), '"')
	}
	return append(dst, ";proto=http\r\n"...)
}

// before writes the list that a trusted sender has sent, to be appended to.
func (s sender) before(dst []byte, r *http1.Request, name http1.Name) []byte {
	if !s.trusted {
		return dst
	}
	for i := range r.Fields {
		if f := &r.Fields[i]; f.Name == name && !f.Hop && len(f.Value) > 0 {
			dst = append(append(dst, f.Value...), ", "...)
		}
	}
	return dst
}

// claim returns the value that a trusted sender has sent, nil if there is none.
func (s sender) claim(r *http1.Request, name http1.Name) []byte {
	if !s.trusted {
		return nil
	}
	return http1.Value(r.Fields, name)
}

// hostKey brings a Host into the form apps are found by: lower case, without port and final dot.
func hostKey(host []byte) string {
	end := len(host)
	for end > 0 && host[end-1] >= '0' && host[end-1] <= '9' {
		end--
	}
	if end > 0 && host[end-1] == ':' {
		host = host[:end-1]
	}
	if len(host) > 0 && host[len(host)-1] == '.' {
		host = host[:len(host)-1]
	}
	key := make([]byte, len(host))
	for i, c := range host {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		key[i] = c
	}
	return string(key)
}
