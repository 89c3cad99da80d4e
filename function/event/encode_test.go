package event

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-lambda-go/events"
	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

var now = time.Date(2020, 3, 12, 19, 3, 58, 390e6, time.UTC)

// request is a request as the function runtime gets it from the gateway.
func request(method, target string, body []byte, header http.Header) *http.Request {
	r := httptest.NewRequest(method, target, bytes.NewReader(body))
	r.Host = "shop.example.com:8080"
	r.RequestURI = target
	for name, values := range header {
		r.Header[name] = values
	}
	r.Header.Set("X-Forwarded-For", "198.51.100.7, 203.0.113.9")
	r.Header.Set("X-Forwarded-Proto", "https")
	r.Header.Set("User-Agent", "agent")
	return r
}

var requests = []struct {
	name, method, target string
	body                 []byte
	header               http.Header
}{
	{name: "get", method: "GET", target: "/my/path%20here?parameter1=value1&parameter1=value2&parameter2=v%26alue&empty&plus=a+b",
		header: http.Header{"Cookie": {"cookie1=a; cookie2=b", "cookie3=c"}, "Header1": {"value1", "value2"}, "Connection": {"close"}, "Lull-Invoke": {"secret"}}},
	{name: "post", method: "POST", target: "/", body: []byte(`{"say": "hällo \"you\"\n"}`), header: http.Header{"Content-Type": {"application/json; charset=utf-8"}}},
	{name: "binary", method: "PUT", target: "/a?", body: []byte{0, 0xff, 0x80, '\n'}, header: http.Header{"Content-Type": {"image/png"}}},
	{name: "form", method: "POST", target: "/form", body: []byte("a=1&b=2"), header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}},
}

func TestEncode(t *testing.T) {
	for _, format := range []Format{V2, V1, ALB} {
		for _, c := range requests {
			t.Run(string(format)+"/"+c.name, func(t *testing.T) {
				got := Encode(format, request(c.method, c.target, c.body, c.header), c.body, Info{App: "shop", RequestID: "id-1", Time: now})
				compareGolden(t, filepath.Join("testdata", "request-"+string(format)+"-"+c.name+".json"), got)
				fits(t, format, got)
			})
		}
	}
}

// fits reads an event strictly into AWS's own types, and compares what comes out of those again: nothing is unknown, nothing
// is of another type.
func fits(t *testing.T, format Format, got []byte) {
	t.Helper()
	var into any
	switch format {
	case V2:
		into = &events.LambdaFunctionURLRequest{}
	case V1:
		into = &events.APIGatewayProxyRequest{}
	case ALB:
		into = &events.ALBTargetGroupRequest{}
	}
	strict(t, got, into, map[string]bool{"routeKey": true, "extendedRequestId": true, "domainPrefix": true, "version": true, "stage": true})
	if format == V2 {
		strict(t, got, &events.APIGatewayV2HTTPRequest{}, nil)
	}
}

// strict decodes got into AWS's type and checks that each part of got that is not among the exceptions comes out of it again.
func strict(t *testing.T, got []byte, into any, except map[string]bool) {
	t.Helper()
	if err := json.Unmarshal(got, into); err != nil {
		t.Fatalf("%T: %v", into, err)
	}
	again, err := json.Marshal(into)
	if err != nil {
		t.Fatal(err)
	}
	var ours, theirs any
	if err := json.Unmarshal(got, &ours); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(again, &theirs); err != nil {
		t.Fatal(err)
	}
	contained(t, "", ours, theirs, except)
}

// contained checks that all that ours has is in theirs, too. Zero values may be left out there.
func contained(t *testing.T, path string, ours, theirs any, except map[string]bool) {
	t.Helper()
	object, ok := ours.(map[string]any)
	if !ok {
		if !cmp.Equal(ours, theirs) && ours != nil && ours != "" && ours != false {
			t.Errorf("%s: %v is %v in AWS's type", path, ours, theirs)
		}
		return
	}
	other, ok := theirs.(map[string]any)
	if !ok {
		if len(object) > 0 {
			t.Errorf("%s: AWS's type has %v", path, theirs)
		}
		return
	}
	for key, value := range object {
		if !except[key] {
			contained(t, path+"."+key, value, other[key], except)
		}
	}
}

func compareGolden(t *testing.T, path string, got []byte) {
	t.Helper()
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, got, "", "  "); err != nil {
		t.Fatalf("%v: %s", err, got)
	}
	pretty.WriteByte('\n')
	if *update {
		if err := os.WriteFile(path, pretty.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), pretty.String()); diff != "" {
		t.Error(diff)
	}
}

func FuzzEncode(f *testing.F) {
	f.Add("/a?b=c", "text/plain", "x", "y", []byte("body"))
	f.Add("/%zz?%zz=%zz&&=", "application/json", "\xff", "\x00", []byte{0xff})
	f.Fuzz(func(t *testing.T, target, kind, name, value string, body []byte) {
		r := httptest.NewRequest("POST", "/", nil)
		r.RequestURI = target
		r.Header = http.Header{"Content-Type": {kind}, http.CanonicalHeaderKey(name): {value, value}, "Cookie": {value}}
		for _, format := range []Format{V2, V1, ALB} {
			got := Encode(format, r, body, Info{App: "a", Time: now})
			var read struct {
				Body            string `json:"body"`
				IsBase64Encoded bool   `json:"isBase64Encoded"`
			}
			if err := json.Unmarshal(got, &read); err != nil || !utf8.Valid(got) {
				t.Fatalf("%s: %v: %s", format, err, got)
			}
			back := []byte(read.Body)
			if read.IsBase64Encoded {
				var err error
				if back, err = base64.StdEncoding.DecodeString(read.Body); err != nil {
					t.Fatal(err)
				}
			}
			if !bytes.Equal(back, body) {
				t.Fatalf("%s: body %q became %q", format, body, back)
			}
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	r := request("GET", requests[0].target, nil, requests[0].header)
	b.ReportAllocs()
	for b.Loop() {
		Encode(V2, r, nil, Info{App: "shop", RequestID: "id-1", Time: now})
	}
}
