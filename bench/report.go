package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// sample is what was measured, in no order.
type sample []time.Duration

func (s sample) median() time.Duration { return s.quantile(0.5) }

// quantile returns the value that a share q of the sample does not exceed; 0 of an empty sample.
func (s sample) quantile(q float64) time.Duration {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// String shows the median and how far the sample spreads.
func (s sample) String() string {
	return fmt.Sprintf("%s [%s–%s]", short(s.median()), short(s.quantile(0.1)), short(s.quantile(0.9)))
}

// short prints three digits of a duration.
func short(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + short(-d)
	case d >= time.Second:
		return fmt.Sprintf("%.2f s", d.Seconds())
	case d >= 100*time.Millisecond:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d >= time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
	}
	return fmt.Sprintf("%d µs", d.Microseconds())
}

// row is one measurement.
type row struct {
	what  string
	with  string // Lull's
	bare  string // what it is compared with
	value string // how they compare
	limit string // and may at most
	over  bool
}

// fact is something about the machine.
type fact struct{ name, value string }

// machine says where this was measured.
func machine(ctx context.Context) []fact {
	version := func(name, flag string) string {
		out, err := exec.CommandContext(ctx, name, flag).Output()
		if err != nil {
			return "none"
		}
		return strings.TrimSpace(string(out))
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return []fact{
		{"Processor", fmt.Sprintf("%s, %d cores", processor(), runtime.NumCPU())},
		{"Kernel", "Linux " + strings.TrimSpace(string(kernel))},
		{"Go", strings.TrimPrefix(runtime.Version(), "go")},
		{"Node", version("node", "--version")},
		{"Caddy", version("caddy", "version")},
	}
}

func processor() string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// report is what a run has found.
type report struct {
	rows    []row
	machine []fact
}

// write prints the report and returns whether something is over its limit.
func (r report) write(w io.Writer, markdown bool) (over bool) {
	lines := [][]string{{"What", "Lull", "Beside it", "Compared", "Limit", ""}}
	for _, row := range r.rows {
		verdict := "ok"
		if row.over {
			verdict, over = "OVER", true
		}
		lines = append(lines, []string{row.what, row.with, row.bare, row.value, row.limit, verdict})
	}
	if markdown {
		writeMarkdown(w, lines, r.machine)
	} else {
		writeText(w, lines, r.machine)
	}
	return over
}

func writeMarkdown(w io.Writer, lines [][]string, machine []fact) {
	for i, line := range lines {
		fmt.Fprintf(w, "| %s |\n", strings.Join(line, " | "))
		if i == 0 {
			fmt.Fprintf(w, "|%s\n", strings.Repeat(" --- |", len(line)))
		}
	}
	fmt.Fprint(w, "\nMedian [10th–90th percentile]. Measured on:\n\n")
	for _, f := range machine {
		fmt.Fprintf(w, "- %s: %s\n", f.name, f.value)
	}
}

func writeText(w io.Writer, lines [][]string, machine []fact) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, line := range lines {
		fmt.Fprintln(table, strings.Join(line, "\t"))
	}
	table.Flush()
	fmt.Fprint(w, "\nmedian [10th–90th percentile]\n")
	for _, f := range machine {
		fmt.Fprintf(w, "%s: %s\n", f.name, f.value)
	}
}
