package event

import (
	"strconv"
	"unicode/utf8"
)

// writer writes JSON by appending: an event is written for every request, and what it is made of is known.
type writer struct {
	buf   []byte
	comma bool
}

// begin begins the object that is the whole.
func (w *writer) begin() {
	w.buf = append(w.buf, '{')
	w.comma = false
}

func (w *writer) open(key string, bracket byte) {
	w.key(key)
	w.buf = append(w.buf, bracket)
	w.comma = false
}

func (w *writer) close(bracket byte) {
	w.buf = append(w.buf, bracket)
	w.comma = true
}

func (w *writer) separate() {
	if w.comma {
		w.buf = append(w.buf, ',')
	}
	w.comma = true
}

func (w *writer) key(key string) {
	w.separate()
	w.buf = appendString(w.buf, key)
	w.buf = append(w.buf, ':')
}

func (w *writer) text(key, value string) {
	w.key(key)
	w.buf = appendString(w.buf, value)
}

func (w *writer) number(key string, value int64) {
	w.key(key)
	w.buf = strconv.AppendInt(w.buf, value, 10)
}

func (w *writer) bool(key string, value bool) {
	w.key(key)
	w.buf = strconv.AppendBool(w.buf, value)
}

func (w *writer) null(key string) {
	w.key(key)
	w.buf = append(w.buf, "null"...)
}

func (w *writer) item(value string) {
	w.separate()
	w.buf = appendString(w.buf, value)
}

const hexDigits = "0123456789abcdef"

// appendString appends s as a JSON string. What is not UTF-8 becomes U+FFFD.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && size == 1 {
				dst = append(dst, s[start:i]...)
				dst = append(dst, "\ufffd"...)
				start = i + size
			}
			i += size
			continue
		}
		dst = append(dst, s[start:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		start = i
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}
