package lull

import (
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"
)

var (
	placeholderForm = form(`:([A-Za-z_][A-Za-z0-9_]*)`)
	externalForm    = form(`^https?://`)
	staticNameForm  = form(`^:[A-Za-z_][A-Za-z0-9_]*$`)
)

// redirectStatuses are those a redirect may have; 200 makes a rewrite of it that comes before the files.
var redirectStatuses = []int{0, 200, 301, 302, 303, 307, 308}

// Problems returns what is wrong with the patterns of a static app. Whether its root is there is the build's to find out.
func (s Static) Problems() []Problem {
	var problems []Problem
	check := func(ok bool, key, format string, args ...any) {
		if !ok {
			problems = append(problems, Problem{"static." + key, fmt.Sprintf(format, args...)})
		}
	}
	if s.Root == "" {
		check(s.Fallback == "" && len(s.Redirects) == 0 && len(s.Rewrites) == 0, "root", "is missing: name the directory with the files, such as dist")
		return problems
	}
	inside := !strings.HasPrefix(s.Root, "/") && !slices.Contains(strings.Split(s.Root, "/"), "..") && !hasControl(s.Root)
	check(inside, "root", "is %q: it must be a directory inside the app's, such as dist", s.Root)
	check(s.Fallback == "" || plainPath(s.Fallback), "fallback", "is %q: it must be the path of a file, such as /index.html", s.Fallback)
	for _, list := range []struct {
		key   string
		rules []Redirect
	}{{"redirects", s.Redirects}, {"rewrites", s.Rewrites}} {
		for i, rule := range list.rules {
			key := fmt.Sprintf("%s[%d]", list.key, i)
			names, wrong := fromNames(rule.From)
			check(wrong == "", key+".from", "is %q: %s", rule.From, wrong)
			redirects := list.key == "redirects"
			check(!redirects || slices.Contains(redirectStatuses, rule.Status), key+".status",
				"is %d: it must be 301, 302, 303, 307, 308, or 200 to serve the other file", rule.Status)
			wrong = wrongTo(rule.To, names, !redirects || rule.Status != 200)
			check(wrong == "", key+".to", "is %q: %s", rule.To, wrong)
			check(rule.From != rule.To || rule.From == "", key+".to", "is where it comes from: %q", rule.To)
		}
	}
	return problems
}

func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f })
}

func plainPath(p string) bool {
	return strings.HasPrefix(p, "/") && path.Clean(p) == p && p != "/" && !strings.ContainsAny(p, "?#*") && !hasControl(p)
}

// fromNames returns what To may use of a From, splat for a final *, and what is wrong with it.
func fromNames(from string) (names []string, wrong string) {
	switch {
	case !strings.HasPrefix(from, "/"):
		return nil, "it must be a path that begins with /"
	case strings.ContainsAny(from, "?#\\ ") || hasControl(from):
		return nil, "it must be a path without query, fragment, backslashes and spaces"
	}
	segments := strings.Split(strings.TrimSuffix(from[1:], "/"), "/")
	for i, segment := range segments {
		last := i == len(segments)-1
		switch {
		case segment == "" && len(segments) > 1, segment == ".", segment == "..":
			return nil, "it has empty segments or dots"
		case segment == "*" && last:
			names = append(names, "splat")
		case strings.Contains(segment, "*"):
			return nil, "* stands for all that follows: it can only come last, as in /docs/*"
		case strings.HasPrefix(segment, ":"):
			if !staticNameForm().MatchString(segment) || slices.Contains(names, segment[1:]) || segment == ":splat" {
				return nil, fmt.Sprintf("%s is not a name, or given twice; :splat is what * stands for", segment)
			}
			names = append(names, segment[1:])
		}
	}
	return names, ""
}

// wrongTo says what is wrong with where a rule leads to, which may use names, and leave the site or not.
func wrongTo(to string, names []string, leaves bool) string {
	external := externalForm().MatchString(to)
	switch {
	case strings.ContainsAny(to, "\\ *") || hasControl(to):
		return "it must be without spaces, backslashes and * (:splat is what * stood for)"
	case external && !leaves:
		return "files of another host cannot be served: make it a redirect, or call the other host from the page"
	case strings.HasPrefix(to, "//"), !external && !strings.HasPrefix(to, "/"):
		return "it must be a path that begins with /, or a URL that begins with http:// or https://"
	}
	rest := to
	if external {
		host, after, _ := strings.Cut(to[strings.Index(to, "//")+2:], "/")
		host, query, _ := strings.Cut(host, "?")
		if host == "" || strings.ContainsAny(host, "@#") || placeholderForm().MatchString(host) {
			return "its host must be given in full"
		}
		rest = "/" + after + "?" + query
	}
	if _, err := url.Parse(to); err != nil {
		return "it is not a URL"
	}
	for _, match := range placeholderForm().FindAllStringSubmatch(rest, -1) {
		if !slices.Contains(names, match[1]) {
			return fmt.Sprintf(":%s is not in from", match[1])
		}
	}
	if !external && slices.Contains(strings.Split(to, "/"), "..") {
		return "it must be without .."
	}
	return ""
}
