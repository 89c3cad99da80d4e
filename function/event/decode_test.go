package event

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-lambda-go/events"
	"github.com/google/go-cmp/cmp"
)

func TestDecode(t *testing.T) {
	text, object := "text/plain", "application/json"
	for _, c := range []struct {
		name, payload string
		format        Format
		status        int
		header        http.Header
		body          string
	}{
		{"everything", `{"statusCode": 201, "headers": {"content-type": "text/plain", "X-Number": 5, "x-yes": true}, "cookies": ["a=1; HttpOnly", "b=2"], "body": "hi", "isBase64Encoded": false}`, V2,
			201, http.Header{"Content-Type": {text}, "X-Number": {"5"}, "X-Yes": {"true"}, "Set-Cookie": {"a=1; HttpOnly", "b=2"}}, "hi"},
		{"base64", `{"statusCode": 200, "headers": {"Content-Type": "text/plain"}, "body": "AP8=", "isBase64Encoded": true}`, V2, 200, http.Header{"Content-Type": {text}}, "\x00\xff"},
		{"no body", `{"statusCode": 204}`, V2, 204, http.Header{}, ""},
		{"status as text", `{"statusCode": "302", "headers": {"Location": "/x"}}`, V2, 302, http.Header{"Location": {"/x"}}, ""},
		{"body that is an object", `{"statusCode": 200, "body": {"a": 1}}`, V2, 200, http.Header{"Content-Type": {object}}, `{"a": 1}`},
		{"object without status", `{"message": "hi"}`, V2, 200, http.Header{"Content-Type": {object}}, `{"message": "hi"}`},
		{"object that has parts of other types, without status", `{"headers": 5, "body": []}`, V2, 200, http.Header{"Content-Type": {object}}, `{"headers": 5, "body": []}`},
		{"text", `"hi \u00e4"`, V2, 200, http.Header{"Content-Type": {object}}, "hi ä"},
		{"number", `42`, V2, 200, http.Header{"Content-Type": {object}}, "42"},
		{"list", `[1]`, V2, 200, http.Header{"Content-Type": {object}}, "[1]"},
		{"null", ` null `, V2, 200, http.Header{}, ""},
		{"nothing", ``, V2, 200, http.Header{}, ""},
		{"framing is ours", `{"statusCode": 200, "headers": {"Content-Length": "5", "transfer-encoding": "chunked", "connection": "x", "lull-environment": "x"}, "body": ""}`, V2, 200, http.Header{}, ""},
		{"several values", `{"statusCode": 200, "headers": {"x-a": "0"}, "multiValueHeaders": {"X-A": ["1", "2"]}, "body": ""}`, V1, 200, http.Header{"X-A": {"1", "2"}}, ""},
		{"load balancer", `{"statusCode": 200, "statusDescription": "200 OK", "isBase64Encoded": false, "headers": {"Content-Type": "text/plain"}, "body": "x"}`, ALB, 200, http.Header{"Content-Type": {text}}, "x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Decode(c.format, []byte(c.payload))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.header, got.Header); got.Status != c.status || string(got.Body) != c.body || diff != "" {
				t.Errorf("%d %q %s", got.Status, got.Body, diff)
			}
		})
	}
}

func TestDecodeSaysWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		format        Format
		payload, want string
	}{
		{V2, `{"statusCode": `, "not JSON"},
		{V2, "\xff\xfe", "not JSON"},
		{V2, `{"statusCode": 99}`, "not from 100 to 599"},
		{V2, `{"statusCode": 200.5}`, "not from 100 to 599"},
		{V2, `{"statusCode": 1e99}`, "not from 100 to 599"},
		{V2, `{"statusCode": 101}`, "no final answer"},
		{V2, `{"statusCode": "ok"}`, "no number"},
		{V2, `{"statusCode": null}`, "no number"},
		{V2, `{"statusCode": 200, "headers": {"a b": "x"}}`, "cannot be the name"},
		{V2, `{"statusCode": 200, "headers": {"": "x"}}`, "cannot be the name"},
		{V2, `{"statusCode": 200, "headers": {"x": "a\r\nSet-Cookie: b"}}`, "no header may have"},
		{V2, `{"statusCode": 200, "cookies": ["a\u0000"]}`, "no header may have"},
		{V2, `{"statusCode": 200, "headers": {"x": ["a"]}}`, "no text"},
		{V2, `{"statusCode": 200, "headers": ["x"]}`, "not what they should be"},
		{V2, `{"statusCode": 200, "body": "%%%", "isBase64Encoded": true}`, "not base64"},
		{V1, `"text"`, "no object"},
		{V1, ``, "no object"},
		{V1, `{"body": "x"}`, "not given"},
		{ALB, `{"statusCode": 200, "multiValueHeaders": {"x": "y"}}`, "not a list"},
	} {
		if got, err := Decode(c.format, []byte(c.payload)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %+v, %v; want %q", c.payload, got, err, c.want)
		}
	}
}

// What AWS's own types are written as is understood.
func TestDecodeAWSTypes(t *testing.T) {
	for _, c := range []struct {
		format Format
		value  any
	}{
		{V2, events.LambdaFunctionURLResponse{StatusCode: 418, Headers: map[string]string{"X-A": "b"}, Body: "hi", Cookies: []string{"c=d"}}},
		{V2, events.APIGatewayV2HTTPResponse{StatusCode: 418, Headers: map[string]string{"X-A": "b"}, Body: "aGk=", IsBase64Encoded: true, Cookies: []string{"c=d"}}},
		{V1, events.APIGatewayProxyResponse{StatusCode: 418, Headers: map[string]string{"X-A": "b"}, MultiValueHeaders: map[string][]string{"Set-Cookie": {"c=d"}}, Body: "hi"}},
		{ALB, events.ALBTargetGroupResponse{StatusCode: 418, StatusDescription: "418 teapot", Headers: map[string]string{"X-A": "b", "Set-Cookie": "c=d"}, Body: "hi"}},
	} {
		payload, err := json.Marshal(c.value)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(c.format, payload)
		if err != nil {
			t.Errorf("%T: %v", c.value, err)
			continue
		}
		if got.Status != 418 || got.Header.Get("X-A") != "b" || got.Header.Get("Set-Cookie") != "c=d" || string(got.Body) != "hi" {
			t.Errorf("%T: %+v", c.value, got)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"statusCode": 200, "headers": {"a": "b"}, "cookies": ["c"], "body": "AA==", "isBase64Encoded": true, "multiValueHeaders": {"a": ["b"]}}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		for _, format := range []Format{V2, V1, ALB} {
			answer, err := Decode(format, payload)
			if err == nil {
				sound(t, answer)
			}
		}
	})
}

// sound checks that an answer can be sent as it is.
func sound(t *testing.T, answer *Answer) {
	t.Helper()
	if answer.Status < 200 || answer.Status > 599 {
		t.Errorf("status %d", answer.Status)
	}
	for name, values := range answer.Header {
		for _, value := range values {
			if !validName(name) || strings.ContainsAny(value, "\r\n\x00") {
				t.Errorf("header %q: %q", name, value)
			}
		}
	}
}

func TestPrelude(t *testing.T) {
	whole := []byte(`{"statusCode": 202, "headers": {"Content-Type": "text/plain"}, "cookies": ["a=b"]}` + "\x00\x00\x00\x00\x00\x00\x00\x00the body\x00\x00")
	for size := 1; size <= len(whole); size++ {
		var p Prelude
		var answer *Answer
		var body []byte
		for rest := whole; len(rest) > 0; {
			piece := rest[:min(size, len(rest))]
			rest = rest[len(piece):]
			if answer != nil {
				body = append(body, piece...)
				continue
			}
			var err error
			var more []byte
			if answer, more, err = p.Take(piece); err != nil {
				t.Fatal(err)
			}
			body = append(body, more...)
		}
		if answer == nil || answer.Status != 202 || answer.Header.Get("Set-Cookie") != "a=b" || string(body) != "the body\x00\x00" {
			t.Fatalf("in pieces of %d: %+v, %q", size, answer, body)
		}
	}
}

func TestPreludeIsBounded(t *testing.T) {
	var p Prelude
	piece := bytes.Repeat([]byte{'{'}, 1000)
	for i := range 1000 {
		if _, _, err := p.Take(piece); err != nil {
			if i < 100 || len(p.seen) > maxPrelude+len(preludeEnd) {
				t.Errorf("refused after %d kB, %d kept", i, len(p.seen))
			}
			return
		}
	}
	t.Error("a prelude of 1 MB was not refused")
}

func FuzzPrelude(f *testing.F) {
	f.Add([]byte("{}\x00\x00\x00\x00\x00\x00\x00\x00x"), 3)
	f.Fuzz(func(t *testing.T, text []byte, at int) {
		var whole, parts Prelude
		one, oneBody, oneErr := whole.Take(text)
		cut := min(max(at, 0), len(text))
		two, twoBody, twoErr := parts.Take(text[:cut])
		if two == nil && twoErr == nil {
			two, twoBody, twoErr = parts.Take(text[cut:])
		} else {
			twoBody = append(bytes.Clone(twoBody), text[cut:]...)
		}
		if (oneErr == nil) != (twoErr == nil) || oneErr == nil && (!cmp.Equal(one, two) || one != nil && !bytes.Equal(oneBody, twoBody)) {
			t.Errorf("whole: %v %q %v; cut at %d: %v %q %v", one, oneBody, oneErr, cut, two, twoBody, twoErr)
		}
		if one != nil {
			sound(t, one)
		}
	})
}
