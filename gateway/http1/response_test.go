package http1

import (
	"bufio"
	"bytes"
	"errors"
	"net/http"
	"testing"
)

func TestResponses(t *testing.T) {
	for _, test := range []struct {
		head     string
		status   int
		declared int64
		close    bool
		want     error
	}{
		{"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 200, 5, false, nil},
		{"HTTP/1.1 200\r\n\r\n", 200, UntilClose, false, nil},
		{"HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n", 200, Chunked, false, nil},
		{"HTTP/1.0 200 OK\r\n\r\n", 200, UntilClose, true, nil},
		{"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 0\r\n\r\n", 200, 0, false, nil},
		{"HTTP/1.1 404 Not  found\r\nConnection: close\r\n\r\n", 404, UntilClose, true, nil},
		{"HTTP/1.1 20 OK\r\n\r\n", 0, 0, false, ErrStatusLine},
		{"HTTP/1.1 2000 OK\r\n\r\n", 0, 0, false, ErrStatusLine},
		{"HTTP/1.1 099 OK\r\n\r\n", 0, 0, false, ErrStatusLine},
		{"HTTP/1.1  200 OK\r\n\r\n", 0, 0, false, ErrStatusLine},
		{"HTTP/2.0 200 OK\r\n\r\n", 0, 0, false, ErrStatusLine},
		{"ICY 200 OK\r\n\r\n", 0, 0, false, ErrStatusLine},
		{"HTTP/1.1 200 O\x00K\r\n\r\n", 0, 0, false, ErrControl},
		{"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 0, 0, false, ErrLengthAndTE},
		{"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 0, 0, false, ErrLengthTwice},
		{"HTTP/1.1 200 OK\r\nX : 1\r\n\r\n", 0, 0, false, ErrFieldName},
	} {
		var r Response
		err := r.Parse([]byte(test.head))
		if !errors.Is(err, test.want) {
			t.Errorf("%q: Parse says %v, want %v", test.head, err, test.want)
		}
		if err == nil && (r.Status != test.status || r.Declared != test.declared || r.Close != test.close) {
			t.Errorf("%q: parsed %+v", test.head, r)
		}
	}
}

func FuzzResponse(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"))
	f.Add([]byte("HTTP/1.0 304\r\nConnection: keep-alive, upgrade\r\nUpgrade: x\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		end, _, err := HeadEnd(text, 0)
		if err != nil || end == 0 {
			return
		}
		var ours Response
		if ours.Parse(text[:end]) != nil {
			return
		}
		theirs, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(text[:end])), nil)
		if err != nil {
			t.Fatalf("accepted what net/http refuses: %v\n%q", err, text[:end])
		}
		if theirs.StatusCode != ours.Status {
			t.Errorf("status is %d, net/http says %d", ours.Status, theirs.StatusCode)
		}
		if !ours.Bodyless(false) && ours.Declared >= 0 && ours.Declared != theirs.ContentLength {
			t.Errorf("length is %d, net/http says %d", ours.Declared, theirs.ContentLength)
		}
		checkFields(t, ours.Fields, theirs.Header)
	})
}
