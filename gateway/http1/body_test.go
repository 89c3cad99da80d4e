package http1

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http/httputil"
	"strings"
	"testing"
	"time"

	"github.com/lull-dev/lull/gateway/wire"
	"pgregory.net/rapid"
)

// script is a connection that hands out its pieces one read at a time, then ends.
type script struct {
	pieces [][]byte
	sent   bytes.Buffer
}

func (s *script) Read(p []byte) (int, error) {
	if len(s.pieces) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.pieces[0])
	if s.pieces[0] = s.pieces[0][n:]; len(s.pieces[0]) == 0 {
		s.pieces = s.pieces[1:]
	}
	return n, nil
}

func (s *script) Write(p []byte) (int, error)      { return s.sent.Write(p) }
func (s *script) Close() error                     { return nil }
func (s *script) LocalAddr() net.Addr              { return nil }
func (s *script) RemoteAddr() net.Addr             { return nil }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

func reader(pieces ...string) *wire.Reader {
	s := &script{}
	for _, piece := range pieces {
		s.pieces = append(s.pieces, []byte(piece))
	}
	return &wire.Reader{Conn: wire.NewConn(s)}
}

// readAll reads a body to its end and returns it with what is left behind it.
func readAll(b *Body) (string, error) {
	var all strings.Builder
	loan := wire.Loan{}
	defer loan.Reclaim()
	for {
		n, err := b.ReadTo(&loan)
		if n > 0 {
			all.Write(loan.Bytes(n))
		}
		if err == io.EOF {
			return all.String(), nil
		}
		if err != nil {
			return all.String(), err
		}
	}
}

func TestBodies(t *testing.T) {
	for _, test := range []struct {
		name   string
		length int64
		in     string
		want   string
		err    error
		rest   string
	}{
		{"fixed", 5, "helloGET", "hello", nil, "GET"},
		{"fixed, cut short", 5, "hel", "hel", io.ErrUnexpectedEOF, ""},
		{"none", 0, "GET", "", nil, "GET"},
		{"until the end", UntilClose, "hello", "hello", nil, ""},
		{"chunks", Chunked, "3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\nGET", "hello", nil, "GET"},
		{"chunk with capital size", Chunked, "A\r\n0123456789\r\n000\r\n\r\n", "0123456789", nil, ""},
		{"extension is dropped", Chunked, "1;a=\"b\";c\r\nx\r\n0;d\r\n\r\n", "x", nil, ""},
		{"trailers", Chunked, "1\r\nx\r\n0\r\nX-A: 1\r\nHost: b\r\nTransfer-Encoding: chunked\r\n\r\nGET", "x", nil, "GET"},
		{"cut short in a size", Chunked, "1", "", io.ErrUnexpectedEOF, ""},
		{"cut short in a chunk", Chunked, "5\r\nhel", "hel", io.ErrUnexpectedEOF, ""},
		{"cut short before the last chunk", Chunked, "1\r\nx\r\n", "x", io.ErrUnexpectedEOF, ""},
		{"cut short in the trailers", Chunked, "0\r\nX: 1\r\n", "", io.ErrUnexpectedEOF, ""},
		{"empty size", Chunked, "\r\nx", "", ErrChunk, ""},
		{"extension only", Chunked, ";a\r\nx", "", ErrChunk, ""},
		{"signed size", Chunked, "+1\r\nx\r\n", "", ErrChunk, ""},
		{"size with 0x", Chunked, "0x1\r\nx\r\n", "", ErrChunk, ""},
		{"space before the size", Chunked, " 1\r\nx\r\n", "", ErrChunk, ""},
		{"space after the size", Chunked, "1 \r\nx\r\n", "", ErrChunk, ""},
		{"underscore in the size", Chunked, "1_0\r\nx\r\n", "", ErrChunk, ""},
		{"huge size", Chunked, "10000000000000000\r\nx\r\n", "", ErrChunk, ""},
		{"bare LF after the size", Chunked, "1\nx\r\n", "", ErrChunk, ""},
		{"bare CR after the size", Chunked, "1\rx\r\n", "", ErrChunk, ""},
		{"bare CR in an extension", Chunked, "1;a\rb\r\nx\r\n", "", ErrChunk, ""},
		{"NUL in an extension", Chunked, "1;a\x00\r\nx\r\n", "", ErrChunk, ""},
		{"long extension", Chunked, "1;" + strings.Repeat("a", 300) + "\r\nx\r\n", "", ErrChunk, ""},
		{"endless size", Chunked, strings.Repeat("0", 5000), "", ErrChunk, ""},
		{"no end of a chunk", Chunked, "1\r\nxy\r\n", "x", ErrChunk, ""},
		{"bare LF at the end of a chunk", Chunked, "1\r\nx\n0\r\n\r\n", "x", ErrChunk, ""},
		{"bare LF in the trailers", Chunked, "0\r\nX: 1\n\r\n", "", ErrBareLF, ""},
		{"fold in the trailers", Chunked, "0\r\nX: 1\r\n 2\r\n\r\n", "", ErrFold, ""},
		{"endless trailers", Chunked, "0\r\n" + strings.Repeat("A: b\r\n", 2000), "", ErrTrailer, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, split := range []bool{false, true} {
				src := reader(test.in)
				if split {
					src = reader(strings.Split(test.in, "")...)
				}
				var b Body
				b.Start(src, test.length)
				got, err := readAll(&b)
				if got != test.want || !errors.Is(err, test.err) {
					t.Errorf("read %q, %v, want %q, %v (split %v)", got, err, test.want, test.err, split)
				}
				left, _ := io.ReadAll(src.Conn.Conn)
				if left = append(src.Buffered(), left...); test.err == nil && string(left) != test.rest {
					t.Errorf("left %q, want %q", left, test.rest)
				}
			}
		})
	}
}

func TestTrailersThatMayGoOn(t *testing.T) {
	var b Body
	b.Start(reader("0\r\nX-A: 1\r\nHost: b\r\nContent-Length: 3\r\nX-B: 2\r\nX-Forwarded-For: 4\r\n\r\n"), Chunked)
	if _, err := readAll(&b); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range b.Trailer() {
		got = append(got, string(f.Key)+"="+string(f.Value))
	}
	if s := strings.Join(got, " "); s != "X-A=1 X-B=2" {
		t.Errorf("trailers are %s", s)
	}
}

// TestGathersChunksWithoutWaiting: an event that is there must not wait for the half chunk behind it.
func TestGathersChunksWithoutWaiting(t *testing.T) {
	var b Body
	b.Start(reader("1\r\na\r\n1\r\nb\r\n5\r", "\nhello\r\n0\r\n\r\n"), Chunked)
	loan := wire.Loan{}
	n, err := b.ReadTo(&loan)
	if string(loan.Bytes(n)) != "ab" || err != nil {
		t.Errorf("first read is %q, %v", loan.Bytes(n), err)
	}
	if n, err := b.ReadBuffered(&loan); n != 0 || err != nil {
		t.Errorf("ReadBuffered returned %d, %v", n, err)
	}
	n, err = b.ReadTo(&loan)
	if string(loan.Bytes(n)) != "hello" || err != io.EOF {
		t.Errorf("second read is %q, %v", loan.Bytes(n), err)
	}
}

// TestWriterAndBodyAgree sends random bodies through a Writer, in random steps, and back through a Body, in random pieces.
func TestWriterAndBodyAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &script{}
		w := Writer{Conn: wire.NewConn(s), Chunked: rapid.Bool().Draw(t, "chunked")}
		w.Put(append(w.Tail(), "HEAD"...))
		var want bytes.Buffer
		for range rapid.IntRange(0, 20).Draw(t, "steps") {
			space := w.Lend()
			n := rapid.IntRange(0, len(space)).Draw(t, "n")
			for i := range n {
				space[i] = byte('a' + (want.Len()+i)%26)
			}
			want.Write(space[:n])
			w.Commit(n)
			if w.end-w.start > 8000 || rapid.Bool().Draw(t, "flush") {
				w.Flush()
				w.Reclaim()
			}
		}
		w.End(nil)
		w.Flush()

		sent, _ := bytes.CutPrefix(s.sent.Bytes(), []byte("HEAD"))
		src := &script{}
		for rest := sent; len(rest) > 0; {
			n := min(len(rest), rapid.IntRange(1, 9000).Draw(t, "piece"))
			src.pieces = append(src.pieces, rest[:n])
			rest = rest[n:]
		}
		length := int64(want.Len())
		if w.Chunked {
			length = Chunked
		}
		var b Body
		b.Start(&wire.Reader{Conn: wire.NewConn(src)}, length)
		got, err := readAll(&b)
		if err != nil || got != want.String() {
			t.Fatalf("came back %d bytes, %v, want %d", len(got), err, want.Len())
		}
	})
}

func FuzzChunked(f *testing.F) {
	f.Add([]byte("3\r\nhel\r\n2;x\r\nlo\r\n0\r\nA: b\r\n\r\n"), 3)
	f.Add([]byte("0\r\n\r\nGET"), 1)
	f.Fuzz(func(t *testing.T, text []byte, cut int) {
		cut = min(max(cut, 0), len(text))
		var b Body
		b.Start(reader(string(text[:cut]), string(text[cut:])), Chunked)
		ours, err := readAll(&b)
		if err != nil {
			return
		}
		theirs, err := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(text)))
		if err != nil || string(theirs) != ours {
			t.Fatalf("read %q, net/http %q, %v", ours, theirs, err)
		}
	})
}
