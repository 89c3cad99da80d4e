package http1

import "bytes"

// Request is the head of a request. The zero value is ready for Parse, which may be called again and again.
type Request struct {
	Method []byte
	Target []byte // in origin form ("/rooms?id=1"), or "*"
	Host   []byte // as it came; empty only in HTTP/1.0
	Minor  int    // HTTP/1.Minor
	Fields []Field
	Length int64 // of the body, or Chunked

	Close    bool   // the client wants the connection closed afterwards
	Upgrade  []byte // what to change to, if the client asks for it properly; nil otherwise
	Continue bool   // Expect: 100-continue
	Trailers bool   // TE: trailers
}

// Parse reads a whole head, with the empty line that ends it. The error is an *Error.
func (r *Request) Parse(head []byte) error {
	*r = Request{Fields: r.Fields[:0]}
	line, rest, err := cutLine(head)
	if err != nil {
		return err
	}
	target, err := r.parseLine(line)
	if err != nil {
		return err
	}
	if r.Fields, err = parseFields(r.Fields, rest); err != nil {
		return err
	}
	if err := r.parseHost(); err != nil {
		return err
	}
	if err := r.parseTarget(target); err != nil {
		return err
	}
	if r.Length, _, err = framing(r.Fields, r.Minor); err != nil {
		return err
	}
	return r.parseOptions()
}

const maxMethod = 32

func (r *Request) parseLine(line []byte) (target []byte, err error) {
	space := bytes.IndexByte(line, ' ')
	if space < 0 {
		return nil, ErrRequestLine
	}
	r.Method = line[:space]
	if !isToken(r.Method) || len(r.Method) > maxMethod {
		return nil, ErrMethod
	}
	line = line[space+1:]
	if space = bytes.IndexByte(line, ' '); space < 0 {
		return nil, ErrRequestLine // HTTP/0.9, among others
	}
	target, version := line[:space], line[space+1:]
	if len(target) == 0 || !all(target, targetChar) {
		return nil, ErrTarget
	}
	r.Minor, err = parseVersion(version)
	if string(r.Method) == "CONNECT" && err == nil {
		err = ErrConnect
	}
	return target, err
}

func parseVersion(text []byte) (minor int, err error) {
	switch string(text) {
	case "HTTP/1.1":
		return 1, nil
	case "HTTP/1.0":
		return 0, nil
	}
	if len(text) == 8 && string(text[:5]) == "HTTP/" && isDigit(text[5]) && text[6] == '.' && isDigit(text[7]) {
		return 0, ErrVersion
	}
	return 0, ErrRequestLine
}

func (r *Request) parseHost() error {
	found := false
	for i := range r.Fields {
		if f := &r.Fields[i]; f.Name == Host {
			if found {
				return ErrHostRepeated
			}
			found, r.Host = true, f.Value
		}
	}
	switch {
	case !found && r.Minor > 0:
		return ErrHostMissing
	case found && !validAuthority(r.Host):
		return ErrHost
	}
	return nil
}

// validAuthority reports whether text is host or host:port.
func validAuthority(text []byte) bool {
	host, port := text, []byte(nil)
	end := bytes.LastIndexByte(text, ':')
	if bracket := bytes.IndexByte(text, ']'); end > bracket {
		host, port = text[:end], text[end+1:]
		if len(port) == 0 || len(port) > 5 {
			return false
		}
	}
	for _, c := range port {
		if !isDigit(c) {
			return false
		}
	}
	switch {
	case len(host) == 0 || len(host) > 255:
		return false
	case host[0] == '[':
		return len(host) > 3 && host[len(host)-1] == ']' && validLiteral(host[1:len(host)-1])
	}
	return all(host, hostChar)
}

func validLiteral(address []byte) bool {
	for _, c := range address {
		if _, hex := hexValue(c); !hex && c != ':' && c != '.' {
			return false
		}
	}
	return true
}

func (r *Request) parseTarget(target []byte) error {
	switch {
	case target[0] == '/':
		r.Target = target
	case len(target) == 1 && target[0] == '*':
		if string(r.Method) != "OPTIONS" {
			return ErrTarget
		}
		r.Target = target
		return nil
	default:
		if err := r.parseAbsolute(target); err != nil {
			return err
		}
	}
	return checkEscapes(r.Target)
}

// parseAbsolute reads the form that is meant for proxies, which every server must accept. Two names for the host would
// be two ways to route it, so they must be the same.
func (r *Request) parseAbsolute(target []byte) error {
	colon := bytes.IndexByte(target, ':')
	if colon < 0 || !EqualFold(target[:colon], "http") && !EqualFold(target[:colon], "https") {
		return ErrTarget
	}
	rest, ok := bytes.CutPrefix(target[colon+1:], []byte("//"))
	if !ok {
		return ErrTarget
	}
	end := bytes.IndexByte(rest, '/')
	if end < 0 {
		return ErrTarget // also of the form http://host?query: nobody sends it, and an origin form of it must be made up
	}
	if !equalFold(rest[:end], r.Host) {
		return ErrTargetHost
	}
	r.Target = rest[end:]
	return nil
}

// checkEscapes refuses a path with a broken percent-escape, which some servers cannot read. A query may hold anything.
func checkEscapes(target []byte) error {
	for i := 0; i < len(target) && target[i] != '?'; i++ {
		if target[i] != '%' {
			continue
		}
		if i+2 >= len(target) {
			return ErrTarget
		}
		_, high := hexValue(target[i+1])
		_, low := hexValue(target[i+2])
		if !high || !low {
			return ErrTarget
		}
	}
	return nil
}

func (r *Request) parseOptions() error {
	said, err := hops(r.Fields)
	if err != nil {
		return err
	}
	r.Close = said.close || r.Minor == 0
	for i := range r.Fields {
		switch f := &r.Fields[i]; f.Name {
		case Upgrade:
			if said.upgrade && r.Minor > 0 && r.Upgrade == nil && validUpgrade(f.Value) {
				r.Upgrade = f.Value
			}
		case TE:
			r.Trailers = r.Trailers || r.Minor > 0 && hasElement(f.Value, "trailers")
		case Expect:
			switch {
			case !EqualFold(f.Value, "100-continue"):
				return ErrExpect
			case r.Minor == 0 || r.Length == 0:
				f.Hop = true // means nothing here
			default:
				r.Continue = true
			}
		}
	}
	return nil
}

// validUpgrade refuses a change to HTTP/2: inside it nobody would look at the headers any more. The client is answered in
// HTTP/1.1 instead, as it has to expect.
func validUpgrade(value []byte) bool {
	return len(value) > 0 && !hasElement(value, "h2c")
}

func hasElement(list []byte, want string) bool {
	for {
		var element []byte
		if element, list = nextElement(list); element == nil {
			return false
		}
		if EqualFold(element, want) {
			return true
		}
	}
}
