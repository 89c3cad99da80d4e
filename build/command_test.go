package build

import (
	"context"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCommandArgs(t *testing.T) {
	for text, want := range map[string][]string{
		"node server.js":                     {"node", "server.js"},
		"  node  'a b' \"c d\" e\\ f ":       {"node", "a b", "c d", "e f"},
		`node ''`:                            {"node", ""},
		`node "a\"b" 'a\b'`:                  {"node", `a"b`, `a\b`},
		"NODE_ENV=production node server.js": {"env", "NODE_ENV=production", "node", "server.js"},
		"node a && node b":                   {"sh", "-c", "node a && node b"},
		"node a; node b":                     {"sh", "-c", "node a; node b"},
		"cd web":                             {"sh", "-c", "cd web"},
		"exec node a":                        {"sh", "-c", "exec node a"},
		"node a > log":                       {"sh", "-c", "exec node a > log"},
		"gunicorn app -b 0.0.0.0:$PORT":      {"sh", "-c", "exec gunicorn app -b 0.0.0.0:$PORT"},
		"A=1 node $PORT":                     {"sh", "-c", "exec env A=1 node $PORT"},
		"node *.js":                          {"sh", "-c", "exec node *.js"},
		"node 'unfinished":                   {"sh", "-c", "node 'unfinished"},
		"node a\nnode b":                     {"sh", "-c", "node a\nnode b"},
		"":                                   {"sh", "-c", ""},
	} {
		if diff := cmp.Diff(want, commandArgs(text)); diff != "" {
			t.Errorf("%q: %s", text, diff)
		}
	}
}

// FuzzCommandArgs checks that arguments found without a shell are those that a shell would find.
func FuzzCommandArgs(f *testing.F) {
	for _, seed := range []string{`a 'b c' "d\"e" f\ g`, `a "\$x" '\'`, `a""b ''`, "a\tb"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		words, how := splitWords(text)
		if how != plainWords || strings.ContainsRune(text, 0) || isAssignment(words[0]) {
			return
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		out, err := exec.CommandContext(ctx, "sh", "-c", `printf '%s\0' `+text).Output()
		if got := strings.Join(words, "\x00") + "\x00"; err != nil || got != string(out) {
			t.Errorf("%q: got %q, a shell %q, %v", text, got, out, err)
		}
		if again, how := splitWords(joinWords(words)); how != plainWords && how != script || how == plainWords && !cmp.Equal(again, words) {
			t.Errorf("%q: written as %q, read back as %q", words, joinWords(words), again)
		}
	})
}
