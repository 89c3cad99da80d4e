package http1

// Classes of characters, as bits.
const (
	tokenChar  = 1 << iota // of a method or header name
	valueChar              // of a header value, with SP and HTAB
	targetChar             // of a request target
	hostChar               // of a host name
)

var chars = func() (table [256]uint8) {
	mark := func(set string, class uint8) {
		for i := range len(set) {
			table[set[i]] |= class
		}
	}
	const alnum = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	mark(alnum+"!#$%&'*+-.^_`|~", tokenChar)
	mark(alnum+"-._~!$&'()*+,;=", hostChar)
	for c := 0x21; c <= 0xff; c++ {
		if c != 0x7f {
			table[c] |= valueChar | targetChar // UTF-8 in a target is not by the book, and common
		}
	}
	table[' '] |= valueChar
	table['\t'] |= valueChar
	table['#'] &^= targetChar // a fragment is never sent
	return table
}()

func all(text []byte, class uint8) bool {
	for _, c := range text {
		if chars[c]&class == 0 {
			return false
		}
	}
	return true
}

func isToken(text []byte) bool { return len(text) > 0 && all(text, tokenChar) }

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// EqualFold reports whether text is want, which is in lower case, whatever the case of text's letters (ASCII).
func EqualFold(text []byte, want string) bool {
	if len(text) != len(want) {
		return false
	}
	for i := range len(want) {
		if lower(text[i]) != want[i] {
			return false
		}
	}
	return true
}

func equalFold(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' }

func trim(text []byte) []byte {
	for len(text) > 0 && isSpace(text[0]) {
		text = text[1:]
	}
	for len(text) > 0 && isSpace(text[len(text)-1]) {
		text = text[:len(text)-1]
	}
	return text
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func hexValue(c byte) (int64, bool) {
	switch {
	case isDigit(c):
		return int64(c - '0'), true
	case 'a' <= c && c <= 'f':
		return int64(c-'a') + 10, true
	case 'A' <= c && c <= 'F':
		return int64(c-'A') + 10, true
	}
	return 0, false
}

// nextElement cuts the first element off a comma-separated list; empty elements are skipped. At the end it is nil.
func nextElement(list []byte) (element, rest []byte) {
	for len(list) > 0 {
		end := 0
		for end < len(list) && list[end] != ',' {
			end++
		}
		element, list = trim(list[:end]), list[min(end+1, len(list)):]
		if len(element) > 0 {
			return element, list
		}
	}
	return nil, nil
}
