package site

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/lull-dev/lull"
)

var script = strings.Repeat("console.log('hello');\n", 500)

var files = map[string]string{
	"index.html": "home", "about.html": "about", "docs/index.html": "docs", "docs/a b.html": "a b", "empty/x.txt": "x",
	"app.js": script, "app.deadbee1.js": script, "assets/main-Dx91_kQz.js": script, "assets/logo-original.png": "png",
	"_next/static/chunks/1.js": script, "small.css": "a{}", "data.bin": "\x00\x01", "packed.css": script, "packed.css.br": "brotli",
	".env": "secret", ".git/config": "secret", ".well-known/security.txt": "contact", "lull.yaml": "secret", "genezio.yaml": "secret",
	"sub/.hidden/x": "secret", "v1.2/index.html": "version", "report-20240131.js": script, "weird.unknown": "?",
}

// tree writes files into a directory and returns it.
func tree(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		full := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func newSite(t testing.TB, dir string, static lull.Static) http.Handler {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	handler, err := New(root, static)
	if err != nil {
		t.Fatal(err)
	}
	return handler
}

// far is a site behind a socket.
type far struct {
	t   testing.TB
	url string
	*http.Client
}

func serve(t testing.TB, dir string, static lull.Static) far {
	t.Helper()
	server := httptest.NewServer(newSite(t, dir, static))
	t.Cleanup(server.Close)
	client := &http.Client{Transport: &http.Transport{DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	t.Cleanup(client.CloseIdleConnections)
	return far{t, server.URL, client}
}

// ask sends a request whose target is sent as it is written; fields are pairs.
func (f far) ask(method, target string, fields ...string) (*http.Response, string) {
	f.t.Helper()
	request, err := http.NewRequest(method, f.url, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	p, query, _ := strings.Cut(target, "?")
	request.URL.Opaque, request.URL.RawQuery = "//"+request.URL.Host+p, query
	for i := 0; i+1 < len(fields); i += 2 {
		request.Header.Set(fields[i], fields[i+1])
	}
	answer, err := f.Do(request)
	if err != nil {
		f.t.Fatalf("%s %s: %v", method, target, err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return answer, string(body)
}

func TestWhatIsServed(t *testing.T) {
	dir := tree(t, files)
	outside := tree(t, map[string]string{"secret": "secret"})
	os.Symlink(filepath.Join(outside, "secret"), filepath.Join(dir, "link"))
	os.Symlink(outside, filepath.Join(dir, "linkdir"))
	os.Symlink("about.html", filepath.Join(dir, "inside.html"))
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	f := serve(t, dir, lull.Static{})
	for _, test := range []struct {
		target string
		status int
		want   string // the body, or Location
	}{
		{"/", 200, "home"}, {"/index.html", 200, "home"}, {"/about", 200, "about"}, {"/about.html", 200, "about"},
		{"/about/", 301, "/about"}, {"/docs", 301, "/docs/"}, {"/docs?x=1", 301, "/docs/?x=1"}, {"/docs/", 200, "docs"},
		{"/docs/a%20b", 200, "a b"}, {"/docs//", 301, "/docs/"}, {"//docs/", 301, "/docs/"}, {"//evil.test/%2e%2e", 301, "/"},
		{"/empty", 404, ""}, {"/empty/", 404, ""}, {"/small.css", 200, "a{}"}, {"/small.css/", 301, "/small.css"},
		{"/inside", 200, "about"}, {"/v1.2", 301, "/v1.2/"}, {"/nothing", 404, ""}, {"/About", 404, ""},
		{"/.env", 404, ""}, {"/.git/config", 404, ""}, {"/sub/.hidden/x", 404, ""}, {"/.well-known/security.txt", 200, "contact"},
		{"/lull.yaml", 404, ""}, {"/genezio.yaml", 404, ""}, {"/link", 404, ""}, {"/linkdir/secret", 404, ""}, {"/pipe", 404, ""},
		{"/../../etc/passwd", 301, "/etc/passwd"}, {"/..%2f..%2fetc%2fpasswd", 301, "/etc/passwd"}, {"/%2e%2e/%2e%2e/etc/passwd", 301, "/etc/passwd"},
		{"/%00", 404, ""}, {"/a%00/../index.html", 404, ""}, {"/docs%2findex.html", 200, "docs"}, {"/..%5c..%5cetc", 404, ""},
		{"/" + strings.Repeat("a", 5000), 414, ""}, {"/" + strings.Repeat("a", 300), 404, ""}, {"/%ff%fe", 404, ""},
	} {
		answer, body := f.ask("GET", test.target)
		if answer.StatusCode != test.status {
			t.Errorf("%.60s: status %d, want %d", test.target, answer.StatusCode, test.status)
		}
		if test.status == 200 && body != test.want || test.status == 301 && answer.Header.Get("Location") != test.want {
			t.Errorf("%s: %q, location %q, want %q", test.target, body, answer.Header.Get("Location"), test.want)
		}
		if strings.Contains(body, "secret") || answer.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %q %v", test.target, body, answer.Header)
		}
		head, nothing := f.ask("HEAD", test.target)
		if head.StatusCode != answer.StatusCode || nothing != "" || head.Header.Get("Etag") != answer.Header.Get("Etag") ||
			test.status == 200 && head.ContentLength != int64(len(body)) {
			t.Errorf("HEAD %.60s: %v", test.target, head)
		}
	}
}

func TestMethods(t *testing.T) {
	f := serve(t, tree(t, files), lull.Static{Fallback: "/index.html"})
	for method, status := range map[string]int{"POST": 405, "DELETE": 405, "OPTIONS": 204} {
		answer, _ := f.ask(method, "/")
		if answer.StatusCode != status || answer.Header.Get("Allow") != allowed {
			t.Errorf("%s: %v", method, answer)
		}
	}
}

func TestKindsAndCaching(t *testing.T) {
	f := serve(t, tree(t, files), lull.Static{})
	for name, want := range map[string][2]string{
		"index.html": {html, "no-cache"}, "app.js": {"text/javascript; charset=utf-8", "no-cache"},
		"app.deadbee1.js":          {"text/javascript; charset=utf-8", "immutable"},
		"assets/main-Dx91_kQz.js":  {"text/javascript; charset=utf-8", "immutable"},
		"assets/logo-original.png": {"image/png", "no-cache"}, "_next/static/chunks/1.js": {"text/javascript; charset=utf-8", "immutable"},
		"small.css": {"text/css; charset=utf-8", "no-cache"}, "data.bin": {"application/octet-stream", "no-cache"},
		"report-20240131.js": {"text/javascript; charset=utf-8", "no-cache"}, "weird.unknown": {"application/octet-stream", "no-cache"},
	} {
		answer, _ := f.ask("GET", "/"+name)
		if answer.Header.Get("Content-Type") != want[0] || !strings.HasSuffix(answer.Header.Get("Cache-Control"), want[1]) {
			t.Errorf("%s: %v", name, answer.Header)
		}
	}
}

func TestConditionsAndRanges(t *testing.T) {
	f := serve(t, tree(t, files), lull.Static{})
	first, _ := f.ask("GET", "/app.js")
	tag := first.Header.Get("Etag")
	for _, test := range []struct {
		fields []string
		status int
		length int
	}{
		{[]string{"If-None-Match", tag}, 304, 0}, {[]string{"If-None-Match", `W/` + tag}, 304, 0}, {[]string{"If-None-Match", `"other"`}, 200, len(script)},
		{[]string{"If-Modified-Since", first.Header.Get("Last-Modified")}, 304, 0}, {[]string{"Range", "bytes=0-9"}, 206, 10},
		{[]string{"Range", "bytes=0-9", "Accept-Encoding", "gzip"}, 206, 10}, {[]string{"Range", "bytes=0-9", "If-Range", `"x"`}, 200, len(script)},
		{[]string{"Range", "bytes=0-9", "If-Range", tag}, 206, 10}, {[]string{"Range", "bytes=999999-"}, 416, -1},
	} {
		answer, body := f.ask("GET", "/app.js", test.fields...)
		if answer.StatusCode != test.status || test.length >= 0 && len(body) != test.length || answer.Header.Get("Content-Encoding") != "" {
			t.Errorf("%v: %v, %d bytes", test.fields, answer, len(body))
		}
	}
}

// TestConditionsOfPacked: an answer without a body says nothing of one, which a client would wait for.
func TestConditionsOfPacked(t *testing.T) {
	f := serve(t, tree(t, files), lull.Static{})
	for _, target := range []string{"/app.js", "/packed.css"} { // packed here, and packed beside it
		first, _ := f.ask("GET", target, "Accept-Encoding", "gzip, br")
		encoding, changed := first.Header.Get("Content-Encoding"), first.Header.Get("Last-Modified")
		if encoding == "" {
			t.Errorf("%s is not packed", target)
		}
		for _, test := range []struct {
			name, value string
			status      int
		}{
			{"If-Match", `"x"`, 412}, {"If-Unmodified-Since", "Mon, 01 Jan 2001 00:00:00 GMT", 412}, {"If-None-Match", first.Header.Get("Etag"), 304},
			{"If-Modified-Since", changed, 304}, {"If-Match", first.Header.Get("Etag"), 200}, {"If-None-Match", `"x"`, 200},
		} {
			answer, body := f.ask("GET", target, "Accept-Encoding", "gzip, br", test.name, test.value)
			want := ""
			if test.status == 200 {
				want = encoding
			}
			if answer.StatusCode != test.status || answer.Header.Get("Content-Encoding") != want || (body != "") != (test.status == 200) {
				t.Errorf("%s with %s: %s: %v, %d bytes", target, test.name, test.value, answer, len(body))
			}
		}
	}
}

// TestPackingIsNotForNothing: what the client has is not packed for it.
func TestPackingIsNotForNothing(t *testing.T) {
	handler := newSite(t, tree(t, files), lull.Static{})
	ask := func(method string, fields ...string) *httptest.ResponseRecorder {
		request := httptest.NewRequest(method, "/app.js", nil)
		for i := 0; i < len(fields); i += 2 {
			request.Header.Set(fields[i], fields[i+1])
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, request)
		return w
	}
	plain := ask("GET")
	tag, changed := plain.Header().Get("Etag"), plain.Header().Get("Last-Modified")
	for _, method := range []string{"GET", "HEAD"} {
		for _, condition := range [][2]string{{"If-None-Match", `"x", ` + strings.TrimSuffix(tag, `"`) + `-gzip"`}, {"If-None-Match", "*"}, {"If-Modified-Since", changed}} {
			answer := ask(method, "Accept-Encoding", "gzip", condition[0], condition[1])
			if answer.Code != http.StatusNotModified || answer.Header().Get("Etag") != strings.TrimSuffix(tag, `"`)+`-gzip"` {
				t.Errorf("%s with %v: %d %v", method, condition, answer.Code, answer.Header())
			}
		}
	}
	if n := len(handler.(*site).packed.bodies); n != 0 {
		t.Errorf("%d files were packed", n)
	}
}

// TestPackersAreFew: where no more may be packed at once, a file is served as it is.
func TestPackersAreFew(t *testing.T) {
	f := serve(t, tree(t, files), lull.Static{})
	packs := func(target, want string) {
		t.Helper()
		answer, body := f.ask("GET", target, "Accept-Encoding", "gzip")
		if got := answer.Header.Get("Content-Encoding"); got != want || want == "" && body != script || answer.Header.Get("Vary") == "" {
			t.Errorf("%s: %v, %d bytes", target, answer, len(body))
		}
	}
	packs("/app.js", "gzip")
	for range cap(packers) {
		packers <- struct{}{}
	}
	packs("/app.js", "gzip") // was packed before
	packs("/app.deadbee1.js", "")
	for range cap(packers) {
		<-packers
	}
	packs("/app.deadbee1.js", "gzip")
	if len(packers) != 0 {
		t.Errorf("%d places are not given back", len(packers))
	}
}

func TestPacking(t *testing.T) {
	f := serve(t, tree(t, files), lull.Static{})
	tags := map[string]string{}
	for _, test := range []struct{ target, accept, encoding string }{
		{"/app.js", "gzip, deflate, br, zstd", "zstd"}, {"/app.js", "gzip, br", "gzip"}, {"/app.js", "br", ""}, {"/app.js", "", ""},
		{"/app.js", "gzip;q=0", ""}, {"/app.js", "*", "gzip"}, {"/app.js", "*, gzip;q=0", ""}, {"/app.js", "GZIP;Q=0.5", "gzip"},
		{"/packed.css", "gzip, br", "br"}, {"/packed.css", "gzip", "gzip"}, {"/small.css", "gzip", ""}, {"/assets/logo-original.png", "gzip", ""},
	} {
		answer, body := f.ask("GET", test.target, "Accept-Encoding", test.accept)
		if got := answer.Header.Get("Content-Encoding"); got != test.encoding || answer.ContentLength != int64(len(body)) {
			t.Errorf("%s for %q: %v", test.target, test.accept, answer.Header)
			continue
		}
		plain := body
		switch test.encoding {
		case "gzip":
			r, err := gzip.NewReader(strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			all, _ := io.ReadAll(r)
			plain = string(all)
		case "zstd":
			r, _ := zstd.NewReader(strings.NewReader(body))
			all, _ := io.ReadAll(r)
			r.Close()
			plain = string(all)
		case "br":
			plain = strings.Replace(plain, "brotli", script, 1)
		}
		if plain != files[test.target[1:]] {
			t.Errorf("%s for %q: %d bytes", test.target, test.accept, len(plain))
		}
		packs := test.target == "/app.js" || test.target == "/packed.css"
		if vary := answer.Header.Get("Vary"); (vary == "Accept-Encoding") != packs {
			t.Errorf("%s for %q: vary %q", test.target, test.accept, vary)
		}
		key := test.target + test.encoding
		if tag := answer.Header.Get("Etag"); tags[key] != "" && tags[key] != tag {
			t.Errorf("%s: tags %s and %s", key, tags[key], tag)
		} else {
			tags[key] = tag
		}
		if again, _ := f.ask("GET", test.target, "Accept-Encoding", test.accept, "If-None-Match", tags[key]); again.StatusCode != 304 {
			t.Errorf("%s again: %v", key, again)
		}
	}
	if tags["/app.js"] == tags["/app.jsgzip"] {
		t.Error("a packed body has the tag of the plain one")
	}
}

func TestRules(t *testing.T) {
	f := serve(t, tree(t, files), lull.Static{
		Redirects: []lull.Redirect{
			{From: "/old/:id/:part", To: "/new/:part?id=:id", Status: 301}, {From: "/blog/*", To: "/news/:splat"},
			{From: "/out/*", To: "https://example.com/x/:splat", Status: 308}, {From: "/all/*", To: "/:splat", Status: 307},
			{From: "/same/*", To: "/same/:splat"}, {From: "/about2", To: "/about", Status: 200},
		},
		Rewrites: []lull.Redirect{{From: "/users/:id", To: "/missing-:id.html"}, {From: "/users/*", To: "/docs/index.html"}, {From: "/small.css", To: "/about"}},
		Fallback: "/index.html",
	})
	for _, test := range []struct {
		target string
		status int
		want   string
	}{
		{"/old/7/a%20b", 301, "/new/a%20b?id=7"}, {"/old/a&b=c/x", 301, "/new/x?id=a%26b%3Dc"}, {"/old/7", 200, "home"}, {"/blog/2024/a?q=1", 302, "/news/2024/a?q=1"},
		{"/blog", 302, "/news/"}, {"/out/y%0d%0aSet-Cookie:%20a/z", 308, "https://example.com/x/y%0D%0ASet-Cookie:%20a/z"},
		{"/all//evil.test/", 307, "/evil.test/"}, {"/all/%5cevil.test", 307, "/%5Cevil.test"}, {"/all/%2f%2fevil.test", 307, "/evil.test"},
		{"/same/x", 200, "home"}, {"/about2", 200, "about"}, {"/users/7", 200, "docs"}, {"/users/7/edit", 200, "docs"}, {"/small.css", 200, "a{}"},
		{"/user/john.doe", 200, "home"}, {"/missing.js", 404, ""}, {"/missing.html", 200, "home"}, {"/.env", 404, ""}, {"/deep/link", 200, "home"},
	} {
		answer, body := f.ask("GET", test.target)
		got := body
		if answer.StatusCode/100 == 3 {
			got = answer.Header.Get("Location")
		}
		if answer.StatusCode != test.status || test.status != 404 && got != test.want {
			t.Errorf("%s: %d %q, want %d %q", test.target, answer.StatusCode, got, test.status, test.want)
		}
	}
	if answer, _ := f.ask("GET", "/deep/link", "Accept", "application/json"); answer.StatusCode != 404 {
		t.Errorf("a client of JSON gets %v", answer)
	}
	if answer, _ := f.ask("GET", "/deep/link", "Accept", "text/html,*/*;q=0.8"); answer.StatusCode != 200 || answer.Header.Get("Cache-Control") != "no-cache" {
		t.Errorf("a browser gets %v", answer)
	}
}

// TestRewriteToAnotherHost: the site's own files and the rules before it come first.
func TestRewriteToAnotherHost(t *testing.T) {
	f := serve(t, tree(t, files), lull.Static{
		Redirects: []lull.Redirect{{From: "/blog/*", To: "/docs/"}},
		Rewrites:  []lull.Redirect{{From: "/users/*", To: "/about"}, {From: "/*", To: "https://old.example.com/:splat", Status: 301}},
		Fallback:  "/index.html",
	})
	for _, test := range []struct {
		target string
		status int
		want   string
	}{
		{"/", 200, "home"}, {"/small.css", 200, "a{}"}, {"/docs", 301, "/docs/"}, {"/blog/x", 302, "/docs/"}, {"/users/7", 200, "about"},
		{"/shop/a%20b?q=1", 307, "https://old.example.com/shop/a%20b?q=1"}, {"/missing.js", 307, "https://old.example.com/missing.js"},
		{"/%2f%2fevil.test", 301, "/evil.test"},
	} {
		answer, got := f.ask("GET", test.target)
		if answer.StatusCode/100 == 3 {
			got = answer.Header.Get("Location")
		}
		if answer.StatusCode != test.status || got != test.want {
			t.Errorf("%s: %d %q, want %d %q", test.target, answer.StatusCode, got, test.status, test.want)
		}
	}
	for target, want := range map[string]string{"/api/x?q=1": "307 https://old.example.com/api/x?q=1", "/small.css": "405 ", "/users/7": "405 ",
		"/blog/x": "302 /docs/", "/docs": "405 "} {
		answer, _ := f.ask("POST", target)
		if got := fmt.Sprint(answer.StatusCode, " ", answer.Header.Get("Location")); got != want {
			t.Errorf("POST %s: %s, want %s", target, got, want)
		}
	}
}

// TestRulesAboutTheFinalSlash: the files decide on it, so that no client is sent in a circle.
func TestRulesAboutTheFinalSlash(t *testing.T) {
	f := serve(t, tree(t, files), lull.Static{Fallback: "/index.html", Redirects: []lull.Redirect{
		{From: "/docs/", To: "/docs"}, {From: "/about", To: "/about/"}, {From: "/v1.2", To: "/v1.2/."}, {From: "/app/:page/", To: "/app/:page?x=1"},
		{From: "/moved", To: "/docs/"},
	}})
	for _, test := range []struct {
		target string
		status int
		want   string
	}{
		{"/docs", 301, "/docs/"}, {"/docs/", 200, "docs"}, {"/docs//", 301, "/docs/"}, {"/about", 200, "about"}, {"/about/", 301, "/about"},
		{"/v1.2", 301, "/v1.2/"}, {"/v1.2/.", 301, "/v1.2/"}, {"/v1.2/", 200, "version"}, {"/app/x/", 200, "home"}, {"/app/x", 200, "home"},
		{"/moved/", 302, "/docs/"},
	} {
		answer, body := f.ask("GET", test.target)
		if answer.StatusCode/100 == 3 {
			body = answer.Header.Get("Location")
		}
		if answer.StatusCode != test.status || body != test.want {
			t.Errorf("%s: %d %q, want %d %q", test.target, answer.StatusCode, body, test.status, test.want)
		}
	}
}

func TestItsOwnPageForWhatIsMissing(t *testing.T) {
	page := strings.Repeat("nothing here ", 200)
	f := serve(t, tree(t, map[string]string{"404.html": page}), lull.Static{})
	for _, fields := range [][]string{nil, {"Range", "bytes=0-3"}, {"If-None-Match", "*"}, {"Accept-Encoding", "gzip"}} {
		answer, body := f.ask("GET", "/x.abcdef12.js", fields...)
		if answer.StatusCode != 404 || answer.Header.Get("Etag") != "" || answer.Header.Get("Cache-Control") != "no-cache" ||
			answer.Header.Get("Content-Encoding") == "" && body != page {
			t.Errorf("%v: %v %q", fields, answer, body)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for _, static := range []lull.Static{
		{Rewrites: []lull.Redirect{{From: "/api/*", To: "https://:splat"}}}, {Fallback: "index.html"}, {Fallback: "/../x"},
		{Redirects: []lull.Redirect{{From: "/a", To: "https://example.com", Status: 200}}}, {Redirects: []lull.Redirect{{From: "/a", To: "/b/:id"}}},
		{Redirects: []lull.Redirect{{From: "/*/a", To: "/b"}}}, {Redirects: []lull.Redirect{{From: "/:a/*", To: "https://:a/x"}}},
		{Redirects: []lull.Redirect{{From: "/a", To: "//evil.test"}}}, {Redirects: []lull.Redirect{{From: "/a", To: "/b", Status: 404}}},
		{Redirects: []lull.Redirect{{From: "/:a/:a", To: "/b"}}}, {Redirects: []lull.Redirect{{From: "a", To: "/b"}}}, {Redirects: []lull.Redirect{{From: "/a", To: "/a"}}},
		{Redirects: []lull.Redirect{{From: "/a?b", To: "/c"}}}, {Redirects: []lull.Redirect{{From: "/a", To: "javascript:alert(1)"}}},
	} {
		if _, err := New(root, static); lull.KindOf(err) != lull.KindInvalid {
			t.Errorf("%v: %v", static, err)
		}
	}
}

func TestManyAtOnce(t *testing.T) {
	f := serve(t, tree(t, files), lull.Static{})
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			for name := range files {
				f.ask("GET", "/"+url.PathEscape(name), "Accept-Encoding", []string{"gzip", "zstd", "br", ""}[i%4])
			}
		})
	}
	all.Wait()
}

func TestPackedIsBounded(t *testing.T) {
	var p packed
	for i := range 50 {
		k := packedKey{key{name: fmt.Sprint(i)}, "gzip"}
		body := &packedBody{data: make([]byte, 1<<20), used: uint64(i)}
		p.mu.Lock()
		if p.bodies == nil {
			p.bodies = map[packedKey]*packedBody{}
		}
		p.bodies[k] = body
		p.mu.Unlock()
		p.account(k, body)
	}
	if p.size > maxKept || len(p.bodies) < 25 || p.bodies[packedKey{key{name: "49"}, "gzip"}] == nil {
		t.Errorf("%d bytes in %d bodies", p.size, len(p.bodies))
	}
}

// FuzzPath: whatever is asked for, no secret comes and nothing panics.
func FuzzPath(f *testing.F) {
	dir := tree(f, files)
	handler := newSite(f, dir, lull.Static{Fallback: "/index.html",
		Redirects: []lull.Redirect{{From: "/r/*", To: "/:splat"}, {From: "/q/:a", To: "/:a?x=:a", Status: 301}},
		Rewrites:  []lull.Redirect{{From: "/w/*", To: "/:splat"}}})
	for _, seed := range []string{"/", "/../.env", "/w/.env", "/w/%2e%65nv", "/r//evil", "/q/%2f", "/\x00", "/w/../lull.yaml"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, p string) {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, &http.Request{Method: "GET", URL: &url.URL{Path: p}, Header: http.Header{}})
		if bytes.Contains(w.Body.Bytes(), []byte("secret")) {
			t.Errorf("%q: %q", p, w.Body)
		}
		if to := w.Header().Get("Location"); to != "" && (!strings.HasPrefix(to, "/") || strings.HasPrefix(to, "//") || strings.HasPrefix(to, `/\`) || strings.ContainsAny(to, "\r\n")) {
			t.Errorf("%q leads to %q", p, to)
		}
	})
}

// FuzzRule: what is found valid matches and leads somewhere without panicking, and never to another host.
func FuzzRule(f *testing.F) {
	f.Add("/a/:b/*", "/c/:b/:splat", "/a/x/y/z")
	f.Add("/*", "/:splat", "//evil.test")
	f.Fuzz(func(t *testing.T, from, to, p string) {
		static := lull.Static{Root: ".", Redirects: []lull.Redirect{{From: from, To: to}}}
		if len(static.Problems()) > 0 {
			return
		}
		r := newRule(static.Redirects[0])
		values, ok := r.match(cleaned(p))
		if !ok {
			return
		}
		got := r.target(values)
		u, err := url.Parse(got)
		if err != nil {
			return
		}
		want, err := url.Parse(to)
		if err == nil && u.Host != want.Host {
			t.Errorf("%q to %q for %q leads to %q", from, to, p, got)
		}
	})
}

func BenchmarkSite(b *testing.B) {
	dir := tree(b, files)
	for _, target := range []string{"/small.css", "/app.js"} {
		for _, one := range []struct {
			name    string
			handler http.Handler
		}{{"site", newSite(b, dir, lull.Static{})}, {"FileServer", http.FileServerFS(os.DirFS(dir))}} {
			for _, accept := range []string{"", "gzip"} {
				b.Run(one.name+target+"/"+accept, func(b *testing.B) {
					request := httptest.NewRequest("GET", target, nil)
					request.Header.Set("Accept-Encoding", accept)
					b.ReportAllocs()
					for b.Loop() {
						one.handler.ServeHTTP(httptest.NewRecorder(), request)
					}
				})
			}
		}
	}
}
