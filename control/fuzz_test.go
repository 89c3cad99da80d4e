package control

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lull-dev/lull"
)

func FuzzReadEvents(f *testing.F) {
	f.Add([]byte(`{"event":{"phase":"build","text":"x"}}` + "\n{}\n" + `{"done":{"app":"a","release":1,"url":"u"}}` + "\n"))
	f.Add([]byte(`{"error":{"kind":"invalid","message":"m","file":"lull.yaml","problems":[{"line":1,"column":2,"message":"x"}]}}`))
	f.Add([]byte(`{"error":{}}`))
	f.Fuzz(func(t *testing.T, answer []byte) {
		done, err := readEvents(strings.NewReader(string(answer)), ignore)
		if err == nil && !strings.Contains(strings.ToLower(string(answer)), "done") {
			t.Errorf("%q counts as %+v", answer, done)
		}
		if err != nil && (err.Error() == "" || lull.KindOf(err) == "") {
			t.Errorf("%q is the error %#v", answer, err)
		}
		if err := readLogs(strings.NewReader(string(answer)), func(LogEntry) error { return nil }); err != nil && err.Error() == "" {
			t.Errorf("%q as logs is the error %#v", answer, err)
		}
	})
}

func FuzzOwnHost(f *testing.F) {
	for _, host := range []string{"localhost", "127.0.0.1:1", "[::1]:1", "[::1%eth0]", "evil.example", "localhost.evil.example"} {
		f.Add(host)
	}
	f.Fuzz(func(t *testing.T, host string) {
		name := hostName(host)
		if !ownHost(name, nil) || name == "localhost" {
			return
		}
		if _, err := netip.ParseAddr(name); err != nil {
			t.Errorf("%q is taken for %q", host, name)
		}
	})
}

func FuzzParseLocation(f *testing.F) {
	f.Add([]byte(`{"api":"http://127.0.0.1:7777","token":"/var/lib/lull/token"}`))
	f.Add([]byte(`{"api":"http://x\r\ny","token":"relative"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		known, err := parseLocation(data)
		if err != nil {
			return
		}
		base, err := parseURL(known.API)
		if err != nil || !filepath.IsAbs(known.Token) {
			t.Fatalf("%+v", known)
		}
		if _, err := http.NewRequest("GET", base+"/v1/apps", nil); err != nil {
			t.Errorf("%q cannot be called: %v", known.API, err)
		}
	})
}

// FuzzRequests sends requests of a caller who has the token: whatever they say, it is their mistake and not ours.
func FuzzRequests(f *testing.F) {
	for _, seed := range [][3]string{
		{"POST", "/v1/apps/chat/rollback", `{"release":3}`}, {"POST", "/v1/releases?app=chat", "x"},
		{"GET", "/v1/apps/a%2fb/logs?last=3&follow=1&environment=x", ""}, {"DELETE", "/v1/apps/%00", ""}, {"GET", "/v1//apps/../x", ""},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	node := &fakeNode{
		deploy: func(_ context.Context, req DeployRequest, _ func(Event)) (Deployed, error) {
			_, err := io.Copy(io.Discard, req.Archive)
			return Deployed{}, err
		},
		rollback: func(context.Context, string, int, func(Event)) (Deployed, error) { return Deployed{}, nil },
		logs:     func(context.Context, string, LogQuery, func(LogEntry) error) error { return nil },
	}
	h := Handler(node, []string{testToken}, nil, slog.New(slog.DiscardHandler))
	f.Fuzz(func(t *testing.T, method, target, body string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || !strings.HasPrefix(target, "/") {
			return
		}
		r, err := http.NewRequest(method, "http://localhost/", strings.NewReader(body))
		if err != nil {
			return
		}
		r.URL.Path, r.URL.RawPath, r.URL.RawQuery = u.Path, u.RawPath, u.RawQuery
		r.Header.Set("Authorization", "Bearer "+testToken)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code >= 500 {
			t.Errorf("%s %q: %d %s", method, target, w.Code, w.Body)
		}
	})
}
