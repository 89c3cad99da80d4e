package http1

import "bytes"

// Name tells the headers apart that a front door has to know.
type Name uint8

// The headers that are known; Other is all the rest.
const (
	Other Name = iota
	Accept
	Connection
	ContentLength
	ContentType
	Expect
	Forwarded
	Host
	HTTP2Settings
	KeepAlive
	LullEnvironment
	LullError
	Proxy // Proxy-Connection, Proxy-Authenticate, Proxy-Authorization
	TE
	Trailer
	TransferEncoding
	Upgrade
	XForwardedFor
	XForwardedHost
	XForwardedProto
)

// nameOf classifies a header name. An underscore counts as a hyphen in the names of the Forwarded family, because CGI and
// WSGI servers show both to the app as the same variable.
func nameOf(text []byte) Name {
	switch len(text) {
	case 2:
		return pick(text, "te", TE)
	case 4:
		return pick(text, "host", Host)
	case 6:
		return pick(text, "accept", Accept) | pick(text, "expect", Expect)
	case 7:
		return pick(text, "upgrade", Upgrade) | pick(text, "trailer", Trailer)
	case 9:
		return pick(text, "forwarded", Forwarded)
	case 10:
		return pick(text, "connection", Connection) | pick(text, "keep-alive", KeepAlive) | pick(text, "lull-error", LullError)
	case 12:
		return pick(text, "content-type", ContentType)
	case 14:
		return pick(text, "content-length", ContentLength) | pick(text, "http2-settings", HTTP2Settings)
	case 15:
		return pickLoose(text, "x-forwarded-for", XForwardedFor)
	case 16:
		return pickLoose(text, "x-forwarded-host", XForwardedHost) | pick(text, "proxy-connection", Proxy) |
			pick(text, "lull-environment", LullEnvironment)
	case 17:
		return pickLoose(text, "x-forwarded-proto", XForwardedProto) | pick(text, "transfer-encoding", TransferEncoding)
	case 18:
		return pick(text, "proxy-authenticate", Proxy)
	case 19:
		return pick(text, "proxy-authorization", Proxy)
	}
	return Other
}

func pick(text []byte, want string, name Name) Name {
	if lower(text[0]) == want[0] && EqualFold(text, want) {
		return name
	}
	return Other
}

func pickLoose(text []byte, want string, name Name) Name {
	for i := range len(want) {
		if c := lower(text[i]); c != want[i] && (c != '_' || want[i] != '-') {
			return Other
		}
	}
	return name
}

// Field is one header or trailer line. Its bytes belong to the buffer it was parsed from.
type Field struct {
	Name  Name
	Hop   bool // it is for this connection only and must not be forwarded
	Key   []byte
	Value []byte
}

// MaxFields is the most headers of one head, and the most trailers.
const MaxFields = 256

// HeadEnd looks for the end of the head at the start of buf. It returns the length of the head, its empty line included,
// or 0 if there is more to come, and from where to look then. A bare LF is refused as soon as it is there.
func HeadEnd(buf []byte, from int) (end, next int, err error) {
	for {
		i := bytes.IndexByte(buf[from:], '\n')
		switch {
		case i < 0:
			return 0, from, nil
		case i == 0 || buf[from+i-1] != '\r':
			return 0, from, ErrBareLF
		case i == 1:
			return from + 2, from + 2, nil
		}
		from += i + 1
	}
}

// cutLine cuts the first line off a head, without its CR LF. A CR or LF anywhere else is refused later, as a character
// that nothing may hold.
func cutLine(head []byte) (line, rest []byte, err error) {
	i := bytes.IndexByte(head, '\n')
	if i < 1 || head[i-1] != '\r' {
		return nil, nil, ErrBareLF
	}
	return head[:i-1], head[i+1:], nil
}

// parseFields appends the header lines up to the empty line that must end head.
func parseFields(fields []Field, head []byte) ([]Field, error) {
	for {
		line, rest, err := cutLine(head)
		if err != nil {
			return fields, err
		}
		if len(line) == 0 {
			if len(rest) > 0 {
				return fields, ErrField
			}
			return fields, nil
		}
		if len(fields) == MaxFields {
			return fields, ErrFieldCount
		}
		field, err := parseField(line)
		if err != nil {
			return fields, err
		}
		fields, head = append(fields, field), rest
	}
}

func parseField(line []byte) (Field, error) {
	if isSpace(line[0]) {
		return Field{}, ErrFold
	}
	colon := bytes.IndexByte(line, ':')
	if colon < 0 {
		return Field{}, ErrField
	}
	key, value := line[:colon], line[colon+1:]
	if !isToken(key) { // which also refuses a space before the colon
		return Field{}, ErrFieldName
	}
	if !all(value, valueChar) {
		return Field{}, ErrControl
	}
	return Field{Name: nameOf(key), Key: key, Value: trim(value)}, nil
}

// options are what the Connection header says.
type options struct {
	close, keepAlive, upgrade bool
}

// hops marks the fields that end at this connection: those every proxy removes, and those Connection lists. What frames
// the message and what it is for cannot be listed away.
func hops(fields []Field) (options, error) {
	var said options
	for i := range fields {
		switch fields[i].Name {
		case Connection:
			if err := said.read(fields[i].Value, fields); err != nil {
				return said, err
			}
			fields[i].Hop = true
		case KeepAlive, Proxy, TE, Upgrade, TransferEncoding, HTTP2Settings:
			fields[i].Hop = true
		}
	}
	return said, nil
}

func (o *options) read(list []byte, fields []Field) error {
	for {
		var option []byte
		option, list = nextElement(list)
		switch {
		case option == nil:
			return nil
		case !isToken(option):
			return ErrConnection
		case EqualFold(option, "close"):
			o.close = true
		case EqualFold(option, "keep-alive"):
			o.keepAlive = true
		case EqualFold(option, "upgrade"):
			o.upgrade = true
		default:
			drop(fields, option)
		}
	}
}

func drop(fields []Field, key []byte) {
	for i := range fields {
		if f := &fields[i]; f.Name != Host && f.Name != ContentLength && equalFold(f.Key, key) {
			f.Hop = true
		}
	}
}

// Lengths of a body that are not a number of bytes.
const (
	Chunked    int64 = -1 // its chunks tell
	UntilClose int64 = -2 // the end of the connection tells
)

// framing finds the one length a message declares: Content-Length, Chunked, or none (ok is false).
func framing(fields []Field, minor int) (length int64, ok bool, err error) {
	var lengths, codings int
	for i := range fields {
		switch f := &fields[i]; f.Name {
		case ContentLength:
			lengths++
			if length, err = parseLength(f.Value); err != nil {
				return 0, false, err
			}
		case TransferEncoding:
			codings++
			if err := checkCoding(f.Value); err != nil {
				return 0, false, err
			}
		}
	}
	switch {
	case lengths > 0 && codings > 0:
		return 0, false, ErrLengthAndTE
	case lengths > 1:
		return 0, false, ErrLengthTwice
	case codings > 1:
		return 0, false, ErrTE
	case codings == 1 && minor == 0:
		return 0, false, ErrTEVersion
	case codings == 1:
		return Chunked, true, nil
	}
	return length, lengths == 1, nil
}

func parseLength(text []byte) (int64, error) {
	if len(text) == 0 || len(text) > 18 { // 10^18 bytes are enough, and fit
		return 0, ErrLength
	}
	var n int64
	for _, c := range text {
		if !isDigit(c) {
			return 0, ErrLength
		}
		n = n*10 + int64(c-'0')
	}
	return n, nil
}

func checkCoding(value []byte) error {
	if EqualFold(value, "chunked") {
		return nil
	}
	last := bytes.LastIndexByte(value, ',')
	if last > 0 && EqualFold(trim(value[last+1:]), "chunked") && isToken(trim(value[:last])) {
		return ErrTEUnsupported
	}
	return ErrTE
}
