// Package site serves a release that is files: a site that was built, or a single-page app.
//
//	request ─▶ redirects ─▶ file, directory's index.html, name.html ─▶ rewrites ─▶ fallback ─▶ 404.html
//
// Nothing outside the directory is served, symbolic links or not, and no hidden files. What a browser may keep is said by
// the file's name; everything else it asks for again, and learns by the ETag that it has it.
package site

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"

	"github.com/lull-dev/lull"
)

// maxPath bounds a request's path; the file system has no longer names.
const maxPath = 4096

// site is a directory that is served.
type site struct {
	root      *os.Root
	fallback  string // without the leading slash; "" if there is none
	redirects []rule
	rewrites  []rule
	tags      tags
	packed    packed
}

// New returns a handler that serves the files of root, which it uses until the last request has ended and does not close.
// The handler may be called concurrently. Patterns that are wrong are a *lull.Error of kind invalid.
func New(root *os.Root, static lull.Static) (http.Handler, error) {
	static.Root = "." // where the directory was is of no interest here
	for _, problem := range static.Problems() {
		return nil, &lull.Error{Kind: lull.KindInvalid, Message: fmt.Sprintf("%s %s.", problem.Path, problem.Message)}
	}
	s := &site{root: root, fallback: strings.TrimPrefix(static.Fallback, "/")}
	for _, r := range static.Redirects {
		s.redirects = append(s.redirects, newRule(r))
	}
	for _, r := range static.Rewrites {
		r.Status = http.StatusOK
		if !strings.HasPrefix(r.To, "/") {
			r.Status = http.StatusTemporaryRedirect // to another host, whose files cannot be served
		}
		s.rewrites = append(s.rewrites, newRule(r))
	}
	return s, nil
}

const allowed = "GET, HEAD, OPTIONS"

// ServeHTTP implements http.Handler.
func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		s.answer(w, r)
	case http.MethodOptions:
		w.Header().Set("Allow", allowed)
		w.WriteHeader(http.StatusNoContent)
	default:
		if s.leadAway(w, r) {
			return
		}
		w.Header().Set("Allow", allowed)
		plain(w, http.StatusMethodNotAllowed)
	}
}

// leadAway sends a request that is none for a file where a rule says, as /api/* may lead to another host. It reports
// whether one does.
func (s *site) leadAway(w http.ResponseWriter, r *http.Request) bool {
	p := r.URL.Path
	if len(p) > maxPath || strings.ContainsRune(p, 0) {
		return false
	}
	clean := cleaned(p)
	away := func(rules []rule) bool {
		for i := range rules {
			if rules[i].status == http.StatusOK {
				if _, ok := rules[i].match(clean); ok { // a file's place
					return false
				}
			} else if s.redirect(w, r, &rules[i], clean) {
				return true
			}
		}
		return false
	}
	if away(s.redirects) {
		return true
	}
	if f, moved := s.find(clean); f != nil || moved != "" {
		if f != nil {
			f.Close()
		}
		return false
	}
	return away(s.rewrites)
}

func (s *site) answer(w http.ResponseWriter, r *http.Request) {
	p := r.URL.Path
	if len(p) > maxPath {
		plain(w, http.StatusRequestURITooLong)
		return
	}
	if strings.ContainsRune(p, 0) {
		s.missing(w, r)
		return
	}
	clean := cleaned(p)
	for i := range s.redirects {
		if s.redirect(w, r, &s.redirects[i], clean) {
			return
		}
	}
	if clean != p {
		redirectTo(w, r, clean)
		return
	}
	f, moved := s.find(clean)
	switch {
	case moved != "":
		redirectTo(w, r, moved)
		return
	case f == nil:
		for i := range s.rewrites {
			if s.redirect(w, r, &s.rewrites[i], clean) {
				return
			}
		}
		f = s.instead(r, clean)
	}
	if f == nil {
		s.missing(w, r)
		return
	}
	defer f.Close()
	s.serve(w, r, f)
}

// cleaned is path.Clean, but for the final slash that a directory has.
func cleaned(p string) string {
	clean := path.Clean("/" + p)
	if clean != "/" && (strings.HasSuffix(p, "/") || strings.HasSuffix(p, "/.")) {
		clean += "/"
	}
	return clean
}

// redirectTo sends the client to another path of the site, with its query.
func redirectTo(w http.ResponseWriter, r *http.Request, p string) {
	to := (&url.URL{Path: p, RawQuery: r.URL.RawQuery}).String()
	redirectWith(w, to, http.StatusMovedPermanently)
}

func redirectWith(w http.ResponseWriter, to string, status int) {
	w.Header().Set("Location", to)
	w.Header().Set("Cache-Control", "no-cache") // a redeploy may change its mind
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(status)
}

// redirect reports whether a rule has answered. One that leads where the client is already does not, and whether a path has
// a slash at its end is for the files to say: a rule that wants it otherwise would send the client back and forth.
func (s *site) redirect(w http.ResponseWriter, r *http.Request, rule *rule, p string) bool {
	values, ok := rule.match(p)
	if !ok {
		return false
	}
	to := rule.target(values)
	if rule.status == http.StatusOK {
		f := s.findTarget(to)
		if f == nil {
			return false
		}
		defer f.Close()
		s.serve(w, r, f)
		return true
	}
	target, err := url.Parse(to)
	if err != nil || target.Host == "" && strings.Trim(cleaned(target.Path), "/") == strings.Trim(p, "/") {
		return false
	}
	if target.RawQuery == "" {
		target.RawQuery = r.URL.RawQuery
	}
	redirectWith(w, target.String(), rule.status)
	return true
}

// instead finds what is served where there is neither a file nor a rewrite.
func (s *site) instead(r *http.Request, p string) *file {
	if s.fallback == "" || hidden(p) || isAsset(p) || !acceptsPage(r) {
		return nil
	}
	return s.open(s.fallback)
}

// isAsset reports whether a path is that of a script, an image or the like: a page in its place would be a riddle.
func isAsset(p string) bool {
	extension := strings.ToLower(path.Ext(p))
	kind, known := kinds[extension]
	return known && kind != html
}

// acceptsPage reports whether the client takes HTML, as all do that do not care.
func acceptsPage(r *http.Request) bool {
	accept := r.Header.Values("Accept")
	if len(accept) == 0 {
		return true
	}
	for _, line := range accept {
		for part := range strings.SplitSeq(line, ",") {
			kind, _, _ := strings.Cut(part, ";")
			switch strings.ToLower(strings.TrimSpace(kind)) {
			case "text/html", "application/xhtml+xml", "text/*", "*/*":
				return true
			}
		}
	}
	return false
}

// missing answers with the site's own page, if it has one.
func (s *site) missing(w http.ResponseWriter, r *http.Request) {
	f := s.open("404.html")
	if f == nil {
		plain(w, http.StatusNotFound)
		return
	}
	defer f.Close()
	// Nothing of the request is about this page: neither its ETag nor a range of it.
	bare := &http.Request{Method: r.Method, URL: r.URL, Header: http.Header{"Accept-Encoding": r.Header["Accept-Encoding"]}}
	s.serve(statusWriter{w, http.StatusNotFound}, bare, f)
}

// statusWriter answers with a status of its own.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w statusWriter) WriteHeader(int) {
	w.Header().Del("ETag")
	w.Header().Del("Last-Modified")
	w.Header().Del("Accept-Ranges")
	w.ResponseWriter.WriteHeader(w.status)
}

func plain(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-cache")
	w.WriteHeader(status)
	fmt.Fprintln(w, http.StatusText(status))
}
