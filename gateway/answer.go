package gateway

import (
	"strconv"

	"github.com/lull-dev/lull/fleet"
	"github.com/lull-dev/lull/gateway/http1"
)

// answer is how the answer of an app goes on to the client.
type answer struct {
	resp     *http1.Response
	place    fleet.Place // nil leaves out what says where it comes from
	bodyless bool        // it ends with its head
	last     bool        // the client's connection cannot be used again
	cookie   string      // to be set; empty for none
}

// appendStatusLine writes the first line as the app meant it.
func appendStatusLine(dst []byte, resp *http1.Response) []byte {
	dst = append(dst, "HTTP/1.1 "...)
	dst = strconv.AppendInt(dst, int64(resp.Status), 10)
	dst = append(dst, ' ')
	dst = append(dst, resp.Reason...)
	return append(dst, "\r\n"...)
}

// forwarded reports whether a header of an app's answer goes on to the client. What frames the body is written anew, and
// the headers that speak for Lull are Lull's alone.
func forwarded(f *http1.Field) bool {
	if f.Hop {
		return false
	}
	switch f.Name {
	case http1.ContentLength, http1.LullEnvironment, http1.LullError:
		return false
	}
	return true
}

func appendAnswerFields(dst []byte, a answer) []byte {
	for i := range a.resp.Fields {
		if f := &a.resp.Fields[i]; forwarded(f) {
			dst = http1.AppendField(dst, f.Key, f.Value)
		}
	}
	if a.cookie != "" {
		dst = http1.AppendField(dst, []byte("Set-Cookie"), []byte(a.cookie))
	}
	if a.place != nil {
		dst = append(dst, "Lull-Environment: "...)
		dst = append(dst, a.place.Environment()...)
		dst = append(dst, "\r\nServer-Timing: "...)
		dst = appendTiming(dst, a.place)
		dst = append(dst, "\r\n"...)
	}
	return dst
}

// appendTiming writes what it took to give the place, in milliseconds.
func appendTiming(dst []byte, place fleet.Place) []byte {
	dst = append(dst, `lull;desc="`...)
	dst = append(dst, place.How()...)
	dst = append(dst, `";dur=`...)
	return strconv.AppendFloat(dst, float64(place.Waited().Microseconds())/1000, 'f', -1, 64)
}

// appendFraming writes how the body ends and whether the connection goes on. chunked is how this side sends it.
func appendFraming(dst []byte, a answer, chunked bool) []byte {
	declared, status := a.resp.Declared, a.resp.Status
	switch {
	case a.bodyless && (status == 204 || status < 200):
	case declared >= 0:
		dst = append(dst, "Content-Length: "...)
		dst = strconv.AppendInt(dst, declared, 10)
		dst = append(dst, "\r\n"...)
	case chunked || a.bodyless && declared == http1.Chunked:
		dst = append(dst, "Transfer-Encoding: chunked\r\n"...)
	}
	switch {
	case status == 426 && a.resp.Upgrade != nil: // has to say what to upgrade to
		dst = http1.AppendField(dst, []byte("Upgrade"), a.resp.Upgrade)
		if a.last {
			return append(dst, "Connection: upgrade, close\r\n"...)
		}
		return append(dst, "Connection: upgrade\r\n"...)
	case a.last:
		return append(dst, "Connection: close\r\n"...)
	}
	return dst
}
