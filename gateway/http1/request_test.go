package http1

import (
	"bufio"
	"bytes"
	"errors"
	"net/http"
	"strings"
	"testing"
)

// refused are heads that two servers could read differently, or that nobody sends in good faith. The gateway's tests send
// the same kinds through a socket.
var refused = []struct {
	name, head string
	want       error
}{
	{"both lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", ErrLengthAndTE},
	{"two equal lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n", ErrLengthTwice},
	{"two lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", ErrLengthTwice},
	{"list of lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\n", ErrLength},
	{"signed length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\n", ErrLength},
	{"negative length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -3\r\n\r\n", ErrLength},
	{"hexadecimal length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\n", ErrLength},
	{"empty length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", ErrLength},
	{"huge length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", ErrLength},
	{"length with a space in it", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 2\r\n\r\n", ErrLength},
	{"coding twice", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", ErrTE},
	{"coding that is not chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", ErrTE},
	{"coding identity", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", ErrTE},
	{"coding empty", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n", ErrTE},
	{"coding in quotes", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n", ErrTE},
	{"coding with a vertical tab", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \vchunked\r\n\r\n", ErrControl},
	{"chunked not last", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", ErrTE},
	{"chunked twice in a list", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity, chunked\r\n\r\n", ErrTE},
	{"other coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", ErrTEUnsupported},
	{"coding in HTTP/1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", ErrTEVersion},
	{"space before the colon", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 3\r\n\r\n", ErrFieldName},
	{"tab before the colon", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\t: chunked\r\n\r\n", ErrFieldName},
	{"fold", "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n", ErrFold},
	{"fold at the start", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", ErrFold},
	{"fold of a coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n", ErrFold},
	{"bare LF after the line", "GET / HTTP/1.1\nHost: a\r\n\r\n", ErrBareLF},
	{"bare LF after a header", "GET / HTTP/1.1\r\nHost: a\nX: 1\r\n\r\n", ErrBareLF},
	{"bare LF at the end", "GET / HTTP/1.1\r\nHost: a\r\n\n", ErrBareLF},
	{"bare CR in the line", "GET /\rX HTTP/1.1\r\nHost: a\r\n\r\n", ErrTarget},
	{"bare CR in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: 1\rTransfer-Encoding: chunked\r\n\r\n", ErrControl},
	{"CR CR LF", "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", ErrControl},
	{"NUL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n", ErrControl},
	{"NUL in a name", "GET / HTTP/1.1\r\nHost: a\r\nX\x00: b\r\n\r\n", ErrFieldName},
	{"DEL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: a\x7fb\r\n\r\n", ErrControl},
	{"no colon", "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", ErrField},
	{"empty name", "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", ErrFieldName},
	{"no Host", "GET / HTTP/1.1\r\nX: a\r\n\r\n", ErrHostMissing},
	{"two Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", ErrHostRepeated},
	{"empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", ErrHost},
	{"list of Hosts", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", ErrHost},
	{"Host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", ErrHost},
	{"Host with a user", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", ErrHost},
	{"Host with a word as port", "GET / HTTP/1.1\r\nHost: a:http\r\n\r\n", ErrHost},
	{"Host with two ports", "GET / HTTP/1.1\r\nHost: a:1:2\r\n\r\n", ErrHost},
	{"Host with a broken address", "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", ErrHost},
	{"another host in the target", "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", ErrTargetHost},
	{"another port in the target", "GET http://a:81/ HTTP/1.1\r\nHost: a\r\n\r\n", ErrTargetHost},
	{"user in the target", "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", ErrTargetHost},
	{"other scheme", "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", ErrTarget},
	{"authority form", "GET a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", ErrTarget},
	{"relative target", "GET a HTTP/1.1\r\nHost: a\r\n\r\n", ErrTarget},
	{"fragment", "GET /#x HTTP/1.1\r\nHost: a\r\n\r\n", ErrTarget},
	{"broken escape", "GET /%z HTTP/1.1\r\nHost: a\r\n\r\n", ErrTarget},
	{"asterisk without OPTIONS", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", ErrTarget},
	{"CONNECT", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", ErrConnect},
	{"space in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", ErrRequestLine},
	{"two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", ErrTarget},
	{"tab in the line", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", ErrMethod},
	{"space at the start", " GET / HTTP/1.1\r\nHost: a\r\n\r\n", ErrMethod},
	{"space at the end", "GET / HTTP/1.1 \r\nHost: a\r\n\r\n", ErrRequestLine},
	{"method with a colon", "GE:T / HTTP/1.1\r\nHost: a\r\n\r\n", ErrMethod},
	{"endless method", strings.Repeat("A", 33) + " / HTTP/1.1\r\nHost: a\r\n\r\n", ErrMethod},
	{"HTTP/0.9", "GET /\r\n\r\n", ErrRequestLine},
	{"HTTP/2.0", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", ErrVersion},
	{"HTTP/1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", ErrVersion},
	{"HTTP/1.10", "GET / HTTP/1.10\r\nHost: a\r\n\r\n", ErrRequestLine},
	{"http/1.1", "GET / http/1.1\r\nHost: a\r\n\r\n", ErrRequestLine},
	{"unknown expectation", "POST / HTTP/1.1\r\nHost: a\r\nExpect: pancakes\r\nContent-Length: 1\r\n\r\n", ErrExpect},
	{"Connection with a quote", "GET / HTTP/1.1\r\nHost: a\r\nConnection: \"close\"\r\n\r\n", ErrConnection},
	{"too many headers", "GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("A: b\r\n", MaxFields) + "\r\n", ErrFieldCount},
}

func TestRefusedRequests(t *testing.T) {
	for _, test := range refused {
		t.Run(test.name, func(t *testing.T) {
			if err := parse(new(Request), test.head); !errors.Is(err, test.want) {
				t.Errorf("Parse says %v, want %v", err, test.want)
			}
		})
	}
}

// parse looks for the end of the head as a connection does.
func parse(r *Request, text string) error {
	end, _, err := HeadEnd([]byte(text), 0)
	switch {
	case err != nil:
		return err
	case end == 0:
		return errors.New("more to come")
	}
	return r.Parse([]byte(text)[:end])
}

func TestRequestFacts(t *testing.T) {
	var r Request
	head := "POST /a?b HTTP/1.1\r\nhOST: a.example:80\r\nContent-Length: 12\r\nConnection: close, Upgrade, X-Mine\r\n" +
		"Upgrade: websocket\r\nTE: trailers\r\nExpect: 100-Continue\r\nX-Mine: 1\r\nX-Other:\t\xc3\xbc \r\n\r\n"
	if err := parse(&r, head); err != nil {
		t.Fatal(err)
	}
	if string(r.Method) != "POST" || string(r.Target) != "/a?b" || string(r.Host) != "a.example:80" || r.Minor != 1 {
		t.Errorf("parsed %s %s %s 1.%d", r.Method, r.Target, r.Host, r.Minor)
	}
	if r.Length != 12 || !r.Close || string(r.Upgrade) != "websocket" || !r.Trailers || !r.Continue {
		t.Errorf("parsed %+v", r)
	}
	hop := map[string]bool{}
	for _, f := range r.Fields {
		hop[string(f.Key)] = f.Hop
	}
	for key, want := range map[string]bool{"hOST": false, "Content-Length": false, "Connection": true, "Upgrade": true,
		"TE": true, "Expect": false, "X-Mine": true, "X-Other": false} {
		if hop[key] != want {
			t.Errorf("%s: hop is %v, want %v", key, hop[key], want)
		}
	}
	if got := r.Fields[len(r.Fields)-1].Value; string(got) != "\xc3\xbc" {
		t.Errorf("X-Other is %q", got)
	}
}

func TestHeadEndResumes(t *testing.T) {
	head := "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n"
	from := 0
	for n := 1; n <= len(head); n++ {
		end, next, err := HeadEnd([]byte(head[:n]), from)
		if err != nil {
			t.Fatal(err)
		}
		if want := 0; n < len(head) && end != want {
			t.Fatalf("after %d bytes the end is at %d", n, end)
		}
		if n == len(head) && end != n {
			t.Fatalf("the end is at %d, want %d", end, n)
		}
		from = next
	}
}

func FuzzRequest(f *testing.F) {
	for _, test := range refused {
		f.Add([]byte(test.head))
	}
	for _, head := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET http://a/b%20?c HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: [::1]:80\r\nTransfer-Encoding:  Chunked \r\nTrailer: x\r\n\r\n",
		"PUT / HTTP/1.0\r\nContent-Length: 007\r\nConnection: keep-alive\r\n\r\n",
	} {
		f.Add([]byte(head))
	}
	f.Fuzz(func(t *testing.T, text []byte) { checkLikeStandardLibrary(t, text) })
}

// checkLikeStandardLibrary makes sure that what is accepted means the same to net/http.
func checkLikeStandardLibrary(t *testing.T, text []byte) {
	end, _, err := HeadEnd(text, 0)
	if err != nil || end == 0 {
		return
	}
	var ours Request
	if ours.Parse(text[:end]) != nil {
		return
	}
	theirs, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(text[:end])))
	if err != nil {
		t.Fatalf("accepted what net/http refuses: %v\n%q", err, text[:end])
	}
	length := ours.Length
	if length != theirs.ContentLength {
		t.Errorf("length is %d, net/http says %d: %q", length, theirs.ContentLength, text)
	}
	if theirs.Method != string(ours.Method) || theirs.URL.RequestURI() == "" {
		t.Errorf("method is %q, net/http says %q", ours.Method, theirs.Method)
	}
	if len(ours.Host) > 0 && !strings.EqualFold(theirs.Host, string(ours.Host)) {
		t.Errorf("host is %q, net/http says %q", ours.Host, theirs.Host)
	}
	if path := strings.TrimSuffix(theirs.RequestURI, string(ours.Target)); len(path) == len(theirs.RequestURI) {
		t.Errorf("target is %q, net/http says %q", ours.Target, theirs.RequestURI)
	}
	if ours.Minor == 1 && ours.Close != theirs.Close {
		t.Errorf("close is %v, net/http says %v: %q", ours.Close, theirs.Close, text)
	}
	checkFields(t, ours.Fields, theirs.Header)
}

// checkFields compares values in order, name by name. Host, Transfer-Encoding, Trailer and (after use) Connection are not
// among net/http's.
func checkFields(t *testing.T, ours []Field, theirs http.Header) {
	seen := map[string]int{}
	for _, f := range ours {
		if f.Name == Host || f.Name == TransferEncoding || f.Name == Trailer || f.Name == ContentLength {
			continue
		}
		key := http.CanonicalHeaderKey(string(f.Key))
		values := theirs[key]
		if i := seen[key]; i >= len(values) || values[i] != string(f.Value) {
			t.Errorf("%s is %q, net/http says %q", key, f.Value, values)
		}
		seen[key]++
	}
}
