package site

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/lull-dev/lull"
)

// rule is a redirect or rewrite whose patterns are known to be right.
type rule struct {
	segments []string // of From; :name stands for any one
	splat    bool     // and whatever follows, for *
	to       string
	status   int
}

func newRule(r lull.Redirect) rule {
	from := split(r.From)
	splat := len(from) > 0 && from[len(from)-1] == "*"
	if splat {
		from = from[:len(from)-1]
	}
	status := r.Status
	if status == 0 {
		status = http.StatusFound
	}
	return rule{from, splat, r.To, status}
}

func split(p string) []string {
	p = strings.Trim(p, "/")
	if p == "" {
		return nil
	}
	return strings.Split(p, "/")
}

// match compares a path that is clean. A slash at its end makes no difference. It returns what the placeholders stand for.
func (r *rule) match(p string) (values map[string]string, ok bool) {
	segments := split(p)
	if len(segments) < len(r.segments) || len(segments) > len(r.segments) && !r.splat {
		return nil, false
	}
	for i, want := range r.segments {
		switch {
		case strings.HasPrefix(want, ":"):
			if values == nil {
				values = map[string]string{}
			}
			values[want[1:]] = url.PathEscape(segments[i])
		case want != segments[i]:
			return nil, false
		}
	}
	if !r.splat {
		return values, true
	}
	if values == nil {
		values = map[string]string{}
	}
	rest := segments[len(r.segments):]
	escaped := make([]string, len(rest))
	for i, segment := range rest {
		escaped[i] = url.PathEscape(segment)
	}
	values["splat"] = strings.Join(escaped, "/")
	if len(rest) > 0 && strings.HasSuffix(p, "/") {
		values["splat"] += "/"
	}
	return values, true
}

// target puts values in, which are escaped: they can become part of To's path or query, and nothing else.
func (r *rule) target(values map[string]string) string {
	if len(values) == 0 {
		return r.to
	}
	var b strings.Builder
	inQuery := false
	for i := 0; i < len(r.to); {
		n := nameAt(r.to[i:])
		value, there := values[r.to[i:][min(1, n):n]]
		switch {
		case n > 0 && there && inQuery:
			plain, _ := url.PathUnescape(value)
			b.WriteString(url.QueryEscape(plain))
		case n > 0 && there:
			if strings.HasSuffix(b.String(), "//") || b.String() == "/" { // what follows must not become a host
				value = strings.TrimLeft(value, "/")
			}
			b.WriteString(value)
		default:
			n = 1
			inQuery = inQuery || r.to[i] == '?'
			b.WriteByte(r.to[i])
		}
		i += n
	}
	return b.String()
}

// nameAt returns the length of the :name that s begins with, 0 if it does not.
func nameAt(s string) int {
	if len(s) < 2 || s[0] != ':' || '0' <= s[1] && s[1] <= '9' {
		return 0
	}
	n := 1
	for n < len(s) && (s[n] == '_' || 'a' <= s[n]|0x20 && s[n]|0x20 <= 'z' || '0' <= s[n] && s[n] <= '9') {
		n++
	}
	if n == 1 {
		return 0
	}
	return n
}
