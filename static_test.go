package lull

import "testing"

func TestStaticProblems(t *testing.T) {
	for _, test := range []struct {
		static Static
		want   string // the path of the first problem; "" if there is none
	}{
		{Static{}, ""},
		{Static{Root: "dist", Fallback: "/index.html"}, ""},
		{Static{Root: "."}, ""},
		{Static{Fallback: "/index.html"}, "static.root"},
		{Static{Root: "../x"}, "static.root"},
		{Static{Root: "/srv"}, "static.root"},
		{Static{Root: ".", Fallback: "index.html"}, "static.fallback"},
		{Static{Root: ".", Redirects: []Redirect{{From: "/a/:id/*", To: "https://example.com:8080/:id?x=:splat", Status: 301}}}, ""},
		{Static{Root: ".", Redirects: []Redirect{{From: "/*", To: "https://:splat/"}}}, "static.redirects[0].to"},
		{Static{Root: ".", Redirects: []Redirect{{From: "/a", To: "/b", Status: 418}}}, "static.redirects[0].status"},
		{Static{Root: ".", Redirects: []Redirect{{From: "/a", To: "/b"}, {From: "/a/*/b", To: "/c"}}}, "static.redirects[1].from"},
		{Static{Root: ".", Rewrites: []Redirect{{From: "/api/*", To: "https://api.example.com/:splat"}}}, ""},
		{Static{Root: ".", Rewrites: []Redirect{{From: "/*", To: "https://:splat/"}}}, "static.rewrites[0].to"},
		{Static{Root: ".", Redirects: []Redirect{{From: "/a", To: "https://example.com/", Status: 200}}}, "static.redirects[0].to"},
		{Static{Root: ".", Rewrites: []Redirect{{From: "/users/:id", To: "/user.html"}}}, ""},
		{Static{Root: ".", Rewrites: []Redirect{{From: "/users/:id", To: "/../user.html"}}}, "static.rewrites[0].to"},
	} {
		got := ""
		if problems := test.static.Problems(); len(problems) > 0 {
			got = problems[0].Path
		}
		if got != test.want {
			t.Errorf("%+v: the first problem is at %q, want %q", test.static, got, test.want)
		}
	}
}
