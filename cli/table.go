package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// table writes rows in columns that line up. Columns whose head begins with ">" are aligned to the right.
type table struct {
	heads []string
	rows  [][]string
}

func newTable(heads ...string) *table { return &table{heads: heads} }

func (t *table) row(cells ...any) {
	row := make([]string, len(cells))
	for i, cell := range cells {
		row[i] = escape(fmt.Sprint(cell), "") // a tab would push the columns apart
	}
	t.rows = append(t.rows, row)
}

func (t *table) write(w io.Writer) error {
	widths := make([]int, len(t.heads))
	heads := make([]string, len(t.heads))
	for i, head := range t.heads {
		heads[i] = strings.TrimPrefix(head, ">")
		widths[i] = len(heads[i])
		for _, row := range t.rows {
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
		}
	}
	var out strings.Builder
	for _, row := range append([][]string{heads}, t.rows...) {
		out.WriteString(t.line(row, widths) + "\n")
	}
	_, err := io.WriteString(w, out.String())
	return err
}

func (t *table) line(row []string, widths []int) string {
	cells := make([]string, len(row))
	for i, cell := range row {
		pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
		if strings.HasPrefix(t.heads[i], ">") {
			cells[i] = pad + cell
		} else {
			cells[i] = cell + pad
		}
	}
	return strings.TrimRight(strings.Join(cells, "  "), " ")
}

// writeJSON prints a value for programs: two spaces of indentation, a line end.
func writeJSON(w io.Writer, value any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(value)
}

// age says how long d is in one unit, as much as a reader of a table wants to know: 12s, 4m, 3h, 2d.
func age(d time.Duration) string {
	switch {
	case d < time.Second:
		return "0s"
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// visible writes control characters, and bytes that are no text, so that they can be seen and cannot move a terminal's
// cursor, change its colours or answer for its user.
func visible(text string) string { return escape(text, "\t") }

// visibleLines is visible for text of several lines.
func visibleLines(text string) string { return escape(text, "\t\n") }

// escape escapes all control characters but those in allowed.
func escape(text, allowed string) string {
	plain := func(r rune) bool {
		return strings.ContainsRune(allowed, r) || !unicode.IsControl(r) && !reorders(r) && r != utf8.RuneError
	}
	if strings.IndexFunc(text, func(r rune) bool { return !plain(r) }) < 0 {
		return text
	}
	var out strings.Builder
	for len(text) > 0 {
		r, n := utf8.DecodeRuneInString(text)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&out, `\x%02x`, text[0])
		case r == utf8.RuneError || plain(r):
			out.WriteRune(r)
		case r < 0x100:
			fmt.Fprintf(&out, `\x%02x`, r)
		default:
			fmt.Fprintf(&out, `\u%04x`, r)
		}
		text = text[n:]
	}
	return out.String()
}

// reorders reports whether a terminal shows what follows r in another order than it was written.
func reorders(r rune) bool { return unicode.Is(unicode.Bidi_Control, r) }
