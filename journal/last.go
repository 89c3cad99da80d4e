package journal

// last keeps the newest entries that were added: at most so many lines and bytes of text. A limit of 0 is none, but at
// least one entry is kept.
type last struct {
	lines, bytes int
	entries      []Entry
	size         int
	dropped      bool // entries have been left out
}

func (l *last) add(entry Entry) {
	l.entries = append(l.entries, entry)
	l.size += len(entry.Text)
	for len(l.entries) > 1 && (l.lines > 0 && len(l.entries) > l.lines || l.bytes > 0 && l.size > l.bytes) {
		l.size -= len(l.entries[0].Text)
		l.entries[0] = Entry{} // so that its text can be collected
		l.entries = l.entries[1:]
		l.dropped = true
	}
}

// list returns the entries, oldest first. They are valid until the next add.
func (l *last) list() []Entry { return l.entries }
