package event

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Answer is an answer of a function as HTTP.
type Answer struct {
	Status int
	Header http.Header // without what frames the message, which is for who sends it
	Body   []byte
}

// shape is an object that a function answers with.
type shape struct {
	StatusCode        json.RawMessage            `json:"statusCode"`
	StatusDescription json.RawMessage            `json:"statusDescription"` // of a load balancer's target; has no meaning here
	Headers           map[string]json.RawMessage `json:"headers"`
	MultiValueHeaders map[string]json.RawMessage `json:"multiValueHeaders"`
	Cookies           []string                   `json:"cookies"`
	Body              json.RawMessage            `json:"body"`
	IsBase64Encoded   json.RawMessage            `json:"isBase64Encoded"`
}

// Decode reads an answer. In format 2.0 nearly everything is one: an object with a statusCode says it all; anything else is
// the body of a 200, as JSON, or as it is if it is text. The other formats want an object with a statusCode. The error says what is
// wrong, for the log: the client gets a 502.
func Decode(format Format, payload []byte) (*Answer, error) {
	payload = bytes.TrimSpace(payload)
	if format == V1 || format == ALB {
		if len(payload) == 0 || payload[0] != '{' {
			return nil, fmt.Errorf("it is no object with a statusCode, which format %s wants", format)
		}
	}
	if len(payload) == 0 || string(payload) == "null" {
		return &Answer{Status: http.StatusOK, Header: http.Header{}}, nil
	}
	if !json.Valid(payload) {
		return nil, fmt.Errorf("it is not JSON: %.40q", payload)
	}
	if payload[0] == '{' {
		var s shape
		err := json.Unmarshal(payload, &s)
		if len(s.StatusCode) > 0 || format != V2 {
			if err != nil {
				return nil, fmt.Errorf("its parts are not what they should be: %w", err)
			}
			return s.answer(format != V2)
		}
	}
	return bare(payload)
}

// bare is the answer to a function that returns a value.
func bare(payload []byte) (*Answer, error) {
	answer := &Answer{Status: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: payload}
	if payload[0] == '"' {
		var text string
		if err := json.Unmarshal(payload, &text); err != nil {
			return nil, fmt.Errorf("it is not a string: %w", err)
		}
		answer.Body = []byte(text)
	}
	return answer, nil
}

func (s *shape) answer(several bool) (*Answer, error) {
	answer := &Answer{Header: http.Header{}}
	var err error
	if answer.Status, err = status(s.StatusCode); err != nil {
		return nil, err
	}
	if err := s.fill(answer.Header, several); err != nil {
		return nil, err
	}
	if answer.Body, err = s.body(answer.Header); err != nil {
		return nil, err
	}
	if _, typed := answer.Header["Content-Type"]; !typed && len(answer.Body) > 0 {
		answer.Header.Set("Content-Type", "application/json")
	}
	return answer, nil
}

// status reads a status code. Some frameworks write it as text.
func status(raw json.RawMessage) (int, error) {
	text := strings.Trim(string(raw), `"`)
	var code json.Number
	if err := json.Unmarshal([]byte(text), &code); err != nil || text == "null" {
		return 0, fmt.Errorf("its statusCode is %.40s, which is no number", orNone(raw))
	}
	value, err := code.Float64()
	if err != nil || value != float64(int(value)) || value < 100 || value > 599 {
		return 0, fmt.Errorf("its statusCode is %.40s, which is not from 100 to 599", raw)
	}
	if value < 200 {
		return 0, fmt.Errorf("its statusCode is %s, which is no final answer", raw)
	}
	return int(value), nil
}

func orNone(raw json.RawMessage) string {
	if len(raw) == 0 {
		return "not given"
	}
	return string(raw)
}

// fill reads the headers. Where both forms are given, the list of values wins, as on AWS.
func (s *shape) fill(header http.Header, several bool) error {
	for _, name := range sortedKeys(s.Headers) {
		value, err := scalar(s.Headers[name])
		if err != nil {
			return fmt.Errorf("its header %.40q: %w", name, err)
		}
		if err := addHeader(header, name, value); err != nil {
			return err
		}
	}
	if several {
		for _, name := range sortedKeys(s.MultiValueHeaders) {
			var values []json.RawMessage
			if err := json.Unmarshal(s.MultiValueHeaders[name], &values); err != nil {
				return fmt.Errorf("its multiValueHeaders: %.40q is not a list", name)
			}
			header.Del(name)
			for _, raw := range values {
				value, err := scalar(raw)
				if err != nil {
					return fmt.Errorf("its header %.40q: %w", name, err)
				}
				if err := addHeader(header, name, value); err != nil {
					return err
				}
			}
		}
	}
	for _, cookie := range s.Cookies {
		if err := addHeader(header, "Set-Cookie", cookie); err != nil {
			return err
		}
	}
	return nil
}

func sortedKeys(m map[string]json.RawMessage) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// scalar is the text of a header's value: text, number, true or false; null is empty.
func scalar(raw json.RawMessage) (string, error) {
	switch {
	case len(raw) == 0 || string(raw) == "null":
		return "", nil
	case raw[0] == '"':
		var text string
		err := json.Unmarshal(raw, &text)
		return text, err
	case raw[0] == '{' || raw[0] == '[':
		return "", fmt.Errorf("its value is %.40s, which is no text", raw)
	}
	return string(raw), nil
}

// framing are headers that belong to a connection, or to the message as it is sent. Who sends it writes them.
var framing = []string{"Connection", "Content-Length", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}

func addHeader(header http.Header, name, value string) error {
	if !validName(name) {
		return fmt.Errorf("%.40q cannot be the name of a header", name)
	}
	if !validValue(value) {
		return fmt.Errorf("its header %.40q has a value with characters that no header may have", name)
	}
	name = http.CanonicalHeaderKey(name)
	if slices.Contains(framing, name) || strings.HasPrefix(name, "Lull-") {
		return nil
	}
	header.Add(name, value)
	return nil
}

// validName reports whether name is a token (RFC 9110, section 5.6.2).
func validName(name string) bool {
	for i := range len(name) {
		c := name[i]
		if c <= ' ' || c >= 0x7f || strings.IndexByte("\"(),/:;<=>?@[\\]{}", c) >= 0 {
			return false
		}
	}
	return name != "" && len(name) <= 256
}

// validValue reports whether value has no control characters but tabs (RFC 9110, section 5.5).
func validValue(value string) bool {
	for i := range len(value) {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

func (s *shape) body(header http.Header) ([]byte, error) {
	encoded := string(s.IsBase64Encoded) == "true"
	switch {
	case len(s.Body) == 0 || string(s.Body) == "null":
		return nil, nil
	case s.Body[0] != '"': // an object, which becomes JSON; AWS has text only
		return s.Body, nil
	}
	var text string
	if err := json.Unmarshal(s.Body, &text); err != nil {
		return nil, fmt.Errorf("its body is not a string: %w", err)
	}
	if !encoded {
		return []byte(text), nil
	}
	body, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("its body is not base64, as isBase64Encoded says: %w", err)
	}
	return body, nil
}
