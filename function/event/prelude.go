package event

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
)

// PreludeType is the content type of a streamed answer that begins with a prelude: an object with statusCode, headers and
// cookies, eight NUL bytes, and then the body.
const PreludeType = "application/vnd.awslambda.http-integration-response"

// maxPrelude bounds a prelude. The headers of an answer that a gateway carries are far below.
const maxPrelude = 128 << 10

var preludeEnd = make([]byte, 8)

// Prelude reads the beginning of a streamed answer, however it is cut into pieces.
type Prelude struct{ seen []byte }

// Take adds the next piece. Once the prelude is complete it returns the head of the answer, and what of the piece belongs to
// the body; before that a nil answer.
func (p *Prelude) Take(piece []byte) (answer *Answer, body []byte, err error) {
	before := len(p.seen)
	p.seen = append(p.seen, piece[:min(len(piece), maxPrelude+len(preludeEnd)-before)]...)
	from := max(before-len(preludeEnd)+1, 0) // the end may have begun in the piece before
	end := bytes.Index(p.seen[from:], preludeEnd)
	switch {
	case end < 0 && len(p.seen) > maxPrelude:
		return nil, nil, fmt.Errorf("its prelude has no end within %d bytes", maxPrelude)
	case end < 0:
		return nil, nil, nil
	}
	end += from
	if answer, err = decodePrelude(p.seen[:end]); err != nil {
		return nil, nil, err
	}
	return answer, piece[end+len(preludeEnd)-before:], nil
}

func decodePrelude(text []byte) (*Answer, error) {
	text = bytes.TrimSpace(text)
	var s shape
	if len(text) == 0 {
		text = []byte("{}")
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, fmt.Errorf("its prelude is not what it should be: %w", err)
	}
	answer := &Answer{Status: http.StatusOK, Header: http.Header{}}
	if len(s.StatusCode) > 0 {
		var err error
		if answer.Status, err = status(s.StatusCode); err != nil {
			return nil, err
		}
	}
	return answer, s.fill(answer.Header, true)
}
