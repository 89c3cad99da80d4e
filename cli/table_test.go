package cli

import (
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"
)

func TestTableLinesUp(t *testing.T) {
	table := newTable("NAME", ">SIZE", "NOTE")
	table.row("a", "1KB", "first")
	table.row("größer", "1024MB", "")
	table.row("c\x1b[2J\n", 3, "tab\there")
	var out strings.Builder
	if err := table.write(&out); err != nil {
		t.Fatal(err)
	}
	want := "" +
		"NAME            SIZE  NOTE\n" +
		"a                1KB  first\n" +
		"größer        1024MB\n" +
		`c\x1b[2J\x0a       3  tab\x09here` + "\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}

func TestAge(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 0: "0s", 900 * time.Millisecond: "0s", 119 * time.Second: "119s", 2 * time.Minute: "2m",
		119 * time.Minute: "119m", 2 * time.Hour: "2h", 47 * time.Hour: "47h", 48 * time.Hour: "2d", 400 * 24 * time.Hour: "400d",
	} {
		if got := age(d); got != want {
			t.Errorf("age(%v) = %s, want %s", d, got, want)
		}
	}
}

func TestCPUTime(t *testing.T) {
	for seconds, want := range map[float64]string{0: "0.00s", 1.234: "1.23s", 99.9: "99.90s", 100.4: "1m40s", 7200: "2h"} {
		if got := cpuTime(seconds); got != want {
			t.Errorf("cpuTime(%g) = %s, want %s", seconds, got, want)
		}
	}
}

func TestVisible(t *testing.T) {
	for text, want := range map[string]string{
		"plain, grün, 日本, 🙂":    "plain, grün, 日本, 🙂",
		"\x1b[31mred\x1b[0m":    `\x1b[31mred\x1b[0m`,
		"bell\a back\b del\x7f": `bell\x07 back\x08 del\x7f`,
		"c1 \u009b2J":           `c1 \x9b2J`,
		"no text: \xff\xfe":     `no text: \xff\xfe`,
		"the real \ufffd":       "the real \ufffd",
		"turned \u202eround":    `turned \u202eround`,
		"line\nline":            `line\x0aline`,
	} {
		if got := visible(text); got != want {
			t.Errorf("visible(%q) = %q, want %q", text, got, want)
		}
	}
	if got := visibleLines("one\ntwo\r"); got != "one\ntwo\\x0d" {
		t.Errorf("visibleLines = %q", got)
	}
}

// FuzzVisible checks that nothing gets through that a terminal would act on.
func FuzzVisible(f *testing.F) {
	f.Add("a\x1b]0;title\x07\xff\u009b\u2028\u202e")
	f.Fuzz(func(t *testing.T, text string) {
		for _, r := range visible(text) {
			if unicode.IsControl(r) && r != '\t' || reorders(r) {
				t.Errorf("visible(%q) holds %U", text, r)
			}
		}
	})
}
