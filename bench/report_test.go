package main

import (
	"strings"
	"testing"
	"time"
)

func TestQuantiles(t *testing.T) {
	s := sample{5, 1, 4, 2, 3}
	for q, want := range map[float64]time.Duration{0: 1, 0.1: 1, 0.5: 3, 0.9: 5, 1: 5} {
		if got := s.quantile(q); got != want {
			t.Errorf("quantile %g is %d, want %d", q, got, want)
		}
	}
	if got := (sample{}).median(); got != 0 {
		t.Errorf("the median of nothing is %d", got)
	}
}

func TestShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 µs", 149 * time.Microsecond: "149 µs", 2345 * time.Microsecond: "2.3 ms", 271 * time.Millisecond: "271 ms",
		1500 * time.Millisecond: "1.50 s", -30 * time.Microsecond: "-30 µs",
	} {
		if got := short(d); got != want {
			t.Errorf("%d is %q, want %q", d, got, want)
		}
	}
}

func TestReportSaysWhatIsOver(t *testing.T) {
	r := report{[]row{{what: "a", value: "1 ×"}, {what: "b", value: "9 ×", over: true}}, []fact{{"Go", "1"}}}
	for _, markdown := range []bool{false, true} {
		var text strings.Builder
		if over := r.write(&text, markdown); !over || strings.Count(text.String(), "OVER") != 1 || !strings.Contains(text.String(), "Go: 1") {
			t.Errorf("over is %t in:\n%s", over, &text)
		}
	}
	if over := (report{rows: r.rows[:1]}).write(&strings.Builder{}, false); over {
		t.Error("nothing is over its limit, but the report says so")
	}
}
