package event

import (
	"encoding/base64"
	"maps"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Encode writes a request, whose body has been read, as an event. It cannot fail: what JSON cannot hold is replaced.
func Encode(format Format, r *http.Request, body []byte, info Info) []byte {
	in := input{Request: r, info: info, body: body, names: headerNames(r.Header)}
	in.path, in.query, _ = strings.Cut(r.RequestURI, "?")
	if r.RequestURI == "" {
		in.path, in.query = r.URL.EscapedPath(), r.URL.RawQuery
	}
	if !strings.HasPrefix(in.path, "/") { // absolute form, or "*" of OPTIONS
		in.path = "/" + strings.TrimPrefix(r.URL.EscapedPath(), "/")
	}
	w := &writer{buf: make([]byte, 0, 1024+2*len(r.RequestURI)+4*len(body)/3)}
	w.begin()
	switch format {
	case V1:
		in.v1(w)
	case ALB:
		in.alb(w)
	default:
		in.v2(w)
	}
	w.close('}')
	return w.buf
}

// input is a request on its way to become an event.
type input struct {
	*http.Request
	info        Info
	body        []byte
	names       []string // of its headers, in order
	path, query string   // as they were sent
}

// kept reports whether a header is for the function: not for one connection only, nor between node and function runtime.
func kept(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return false
	}
	return !strings.HasPrefix(name, "Lull-") || name == "Lull-Schedule"
}

func headerNames(header http.Header) []string {
	return slices.Sorted(func(yield func(string) bool) {
		for name := range maps.Keys(header) {
			if kept(name) && !yield(name) {
				return
			}
		}
	})
}

// v2 writes format 2.0. Function URLs have the cookies in both places, as a list and as a header.
func (in *input) v2(w *writer) {
	w.text("version", "2.0")
	w.text("routeKey", "$default")
	w.text("rawPath", in.path)
	w.text("rawQueryString", in.query)
	if cookies := in.Header["Cookie"]; len(cookies) > 0 {
		w.open("cookies", '[')
		for _, line := range cookies {
			for cookie := range strings.SplitSeq(line, ";") {
				if cookie = strings.TrimSpace(cookie); cookie != "" {
					w.item(cookie)
				}
			}
		}
		w.close(']')
	}
	in.headers(w, "headers", strings.ToLower)
	if names, values := in.parameters(); len(names) > 0 {
		w.open("queryStringParameters", '{')
		for _, name := range names {
			w.text(name, strings.Join(values[name], ","))
		}
		w.close('}')
	}
	prefix, _, _ := strings.Cut(in.domain(), ".")
	w.open("requestContext", '{')
	w.text("accountId", "anonymous")
	w.text("apiId", in.info.App)
	w.text("domainName", in.domain())
	w.text("domainPrefix", prefix)
	w.open("http", '{')
	w.text("method", in.Method)
	w.text("path", in.path)
	w.text("protocol", in.Proto)
	w.text("sourceIp", in.sourceIP())
	w.text("userAgent", in.UserAgent())
	w.close('}')
	w.text("requestId", in.info.RequestID)
	w.text("routeKey", "$default")
	w.text("stage", "$default")
	w.text("time", clock(in.info.Time))
	w.number("timeEpoch", in.info.Time.UnixMilli())
	w.close('}')
	in.content(w, isText(in.Header), false)
}

// v1 writes format 1.0, as an API with one route for everything.
func (in *input) v1(w *writer) {
	w.text("version", "1.0")
	w.text("resource", "/{proxy+}")
	w.text("path", in.path)
	w.text("httpMethod", in.Method)
	in.headers(w, "headers", nil)
	in.multiHeaders(w, "multiValueHeaders", nil)
	in.multiParameters(w)
	w.open("pathParameters", '{')
	w.text("proxy", strings.TrimPrefix(in.path, "/"))
	w.close('}')
	w.null("stageVariables")
	prefix, _, _ := strings.Cut(in.domain(), ".")
	w.open("requestContext", '{')
	w.text("accountId", "anonymous")
	w.text("apiId", in.info.App)
	w.text("domainName", in.domain())
	w.text("domainPrefix", prefix)
	w.text("extendedRequestId", in.info.RequestID)
	w.text("httpMethod", in.Method)
	w.open("identity", '{')
	w.text("sourceIp", in.sourceIP())
	w.text("userAgent", in.UserAgent())
	w.close('}')
	w.text("path", in.path)
	w.text("protocol", in.Proto)
	w.text("requestId", in.info.RequestID)
	w.text("requestTime", clock(in.info.Time))
	w.number("requestTimeEpoch", in.info.Time.UnixMilli())
	w.text("resourceId", in.info.App)
	w.text("resourcePath", "/{proxy+}")
	w.text("stage", "$default")
	w.close('}')
	in.content(w, true, true) // a REST API takes everything for text unless told otherwise
}

// alb writes what a load balancer sends to a target group.
func (in *input) alb(w *writer) {
	w.open("requestContext", '{')
	w.open("elb", '{')
	w.text("targetGroupArn", "arn:aws:elasticloadbalancing:us-east-1:000000000000:targetgroup/"+in.info.App+"/0000000000000000")
	w.close('}')
	w.close('}')
	w.text("httpMethod", in.Method)
	w.text("path", in.path)
	w.open("queryStringParameters", '{') // as they were sent: a load balancer does not decode them
	raw := map[string]string{}
	var order []string
	for pair := range strings.SplitSeq(in.query, "&") {
		name, value, _ := strings.Cut(pair, "=")
		if _, there := raw[name]; !there && pair != "" {
			order = append(order, name)
		}
		raw[name] = value
	}
	for _, name := range order {
		w.text(name, raw[name])
	}
	w.close('}')
	in.headers(w, "headers", strings.ToLower)
	in.contentEmpty(w)
}

// headers writes one value for each name, duplicates joined by commas.
func (in *input) headers(w *writer, key string, rename func(string) string) {
	w.open(key, '{')
	if in.Host != "" {
		w.text(renamed(rename, "Host"), in.Host)
	}
	for _, name := range in.names {
		values, separator := in.Header[name], ","
		if name == "Cookie" {
			separator = "; "
		}
		value := values[0]
		if len(values) > 1 {
			value = strings.Join(values, separator)
		}
		w.text(renamed(rename, name), value)
	}
	w.close('}')
}

func (in *input) multiHeaders(w *writer, key string, rename func(string) string) {
	w.open(key, '{')
	if in.Host != "" {
		w.open(renamed(rename, "Host"), '[')
		w.item(in.Host)
		w.close(']')
	}
	for _, name := range in.names {
		w.open(renamed(rename, name), '[')
		for _, value := range in.Header[name] {
			w.item(value)
		}
		w.close(']')
	}
	w.close('}')
}

func renamed(rename func(string) string, name string) string {
	if rename == nil {
		return name
	}
	return rename(name)
}

// multiParameters writes the query twice: with the last value of each name, and with all of them.
func (in *input) multiParameters(w *writer) {
	names, values := in.parameters()
	if len(names) == 0 {
		w.null("queryStringParameters")
		w.null("multiValueQueryStringParameters")
		return
	}
	w.open("queryStringParameters", '{')
	for _, name := range names {
		w.text(name, values[name][len(values[name])-1])
	}
	w.close('}')
	w.open("multiValueQueryStringParameters", '{')
	for _, name := range names {
		w.open(name, '[')
		for _, value := range values[name] {
			w.item(value)
		}
		w.close(']')
	}
	w.close('}')
}

// parameters decodes the query. A pair that cannot be decoded is taken as it is: nothing a client sends gets lost.
func (in *input) parameters() (names []string, values map[string][]string) {
	if in.query == "" {
		return nil, nil
	}
	values = map[string][]string{}
	for pair := range strings.SplitSeq(in.query, "&") {
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		name, value = unescape(name), unescape(value)
		if values[name] == nil {
			names = append(names, name)
		}
		values[name] = append(values[name], value)
	}
	return names, values
}

func unescape(text string) string {
	if plain, err := url.QueryUnescape(text); err == nil {
		return plain
	}
	return text
}

// domain is the host without its port.
func (in *input) domain() string { return hostOf(in.Request) }

func hostOf(r *http.Request) string {
	if host, _, err := net.SplitHostPort(r.Host); err == nil {
		return host
	}
	return r.Host
}

// sourceIP is who the gateway saw: what it added to the header last.
func (in *input) sourceIP() string { return clientOf(in.Request) }

func clientOf(r *http.Request) string {
	if lines := r.Header["X-Forwarded-For"]; len(lines) > 0 {
		line := lines[len(lines)-1]
		return strings.TrimSpace(line[strings.LastIndexByte(line, ',')+1:])
	}
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		return host
	}
	return r.RemoteAddr
}

// content writes the body; none if there is none, or null.
func (in *input) content(w *writer, text, null bool) {
	switch {
	case len(in.body) == 0 && null:
		w.null("body")
	case len(in.body) > 0:
		in.bodyAs(w, text)
		return
	}
	w.bool("isBase64Encoded", false)
}

// contentEmpty writes the body as a load balancer does, which always has one.
func (in *input) contentEmpty(w *writer) { in.bodyAs(w, len(in.body) == 0 || isText(in.Header)) }

func (in *input) bodyAs(w *writer, text bool) {
	if text && utf8.Valid(in.body) {
		w.key("body")
		w.buf = appendString(w.buf, string(in.body))
		w.bool("isBase64Encoded", false)
		return
	}
	w.key("body")
	w.buf = append(w.buf, '"')
	w.buf = base64.StdEncoding.AppendEncode(w.buf, in.body)
	w.buf = append(w.buf, '"')
	w.bool("isBase64Encoded", true)
}

// isText reports whether AWS takes a body of this kind for text. The list is short: a form, or a body without a type, is
// binary.
func isText(header http.Header) bool {
	if header.Get("Content-Encoding") != "" {
		return false
	}
	kind, _, err := mime.ParseMediaType(header.Get("Content-Type"))
	if err != nil && kind == "" {
		return false
	}
	switch kind {
	case "application/json", "application/xml", "application/javascript":
		return true
	}
	return strings.HasPrefix(kind, "text/") || strings.HasSuffix(kind, "+json") || strings.HasSuffix(kind, "+xml")
}

// clock is the time as access logs have it.
func clock(t time.Time) string { return t.UTC().Format("02/Jan/2006:15:04:05 -0700") }
