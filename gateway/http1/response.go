package http1

// Response is the head of a response. The zero value is ready for Parse, which may be called again and again.
type Response struct {
	Status   int
	Reason   []byte
	Minor    int // HTTP/1.Minor
	Fields   []Field
	Declared int64 // Content-Length, Chunked, or UntilClose if neither is there; what that means depends on the request

	Close   bool   // the connection cannot be used again
	Upgrade []byte // the Upgrade header; nil if there is none
}

// Parse reads a whole head, with the empty line that ends it. The error is an *Error.
func (r *Response) Parse(head []byte) error {
	*r = Response{Fields: r.Fields[:0], Declared: UntilClose}
	line, rest, err := cutLine(head)
	if err != nil {
		return err
	}
	if err := r.parseLine(line); err != nil {
		return err
	}
	if r.Fields, err = parseFields(r.Fields, rest); err != nil {
		return err
	}
	length, declared, err := framing(r.Fields, r.Minor)
	if err != nil {
		return err
	}
	if declared {
		r.Declared = length
	}
	said, err := hops(r.Fields)
	r.Close = said.close || r.Minor == 0 && !said.keepAlive
	for i := range r.Fields {
		if f := &r.Fields[i]; f.Name == Upgrade {
			r.Upgrade = f.Value
		}
	}
	return err
}

// parseLine reads "HTTP/1.1 200 OK"; the reason, and the space before it, may be missing.
func (r *Response) parseLine(line []byte) (err error) {
	if len(line) < 12 || line[8] != ' ' || len(line) > 12 && line[12] != ' ' {
		return ErrStatusLine
	}
	if r.Minor, err = parseVersion(line[:8]); err != nil {
		return ErrStatusLine
	}
	for _, c := range line[9:12] {
		if !isDigit(c) {
			return ErrStatusLine
		}
		r.Status = r.Status*10 + int(c-'0')
	}
	if r.Status < 100 {
		return ErrStatusLine
	}
	if len(line) > 13 {
		r.Reason = line[13:]
	}
	if !all(r.Reason, valueChar) {
		return ErrControl
	}
	return nil
}

// Bodyless reports whether a response with this status, to this kind of request, ends with its head whatever it declares.
func (r *Response) Bodyless(head bool) bool {
	return head || r.Status < 200 || r.Status == 204 || r.Status == 304
}

// Value returns the value of the first field with that name, nil if there is none.
func Value(fields []Field, name Name) []byte {
	for i := range fields {
		if fields[i].Name == name {
			return fields[i].Value
		}
	}
	return nil
}
