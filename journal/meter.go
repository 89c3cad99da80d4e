package journal

import "time"

// An environment may write this much, and at first or after a while as much as burst seconds of it at once.
const (
	linesPerSecond = 1000
	bytesPerSecond = 1 << 20
	burstSeconds   = 4
	// resumeSeconds is how much must be allowed again before a flood is let through again: whole stretches of it are worth
	// more than every tenth line.
	resumeSeconds = 0.5
)

// meter bounds how much of one environment's output is kept. It is guarded by the mu of its book.
type meter struct {
	writers  int
	last     time.Time
	lines    float64 // that may come at once
	bytes    float64
	dropping bool
	dropped  int // lines, since the last that was let through
}

// allow reports whether a line of so many bytes is let through now, and how many before it were not.
func (m *meter) allow(now time.Time, size int) (ok bool, dropped int) {
	m.refill(now)
	if m.dropping && !m.recovered() || m.lines < 1 || m.bytes < float64(size) {
		m.dropping = true
		m.dropped++
		return false, 0
	}
	m.lines--
	m.bytes -= float64(size)
	return true, m.resume()
}

func (m *meter) refill(now time.Time) {
	seconds := now.Sub(m.last).Seconds()
	if m.last.IsZero() {
		seconds = burstSeconds
	}
	m.last = now
	m.lines = min(m.lines+max(seconds, 0)*linesPerSecond, burstSeconds*linesPerSecond)
	m.bytes = min(m.bytes+max(seconds, 0)*bytesPerSecond, burstSeconds*bytesPerSecond)
}

func (m *meter) recovered() bool {
	return m.lines >= resumeSeconds*linesPerSecond && m.bytes >= resumeSeconds*bytesPerSecond
}

// resume ends a time of dropping and returns how many lines it took.
func (m *meter) resume() int {
	dropped := m.dropped
	m.dropping, m.dropped = false, 0
	return dropped
}

// openMeter returns the meter of an environment, shared by its writers.
func (b *book) openMeter(env string) *meter {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := b.meters[env]
	if m == nil {
		m = &meter{}
		b.meters[env] = m
	}
	m.writers++
	return m
}

// closeMeter gives the meter back; with its last writer it goes, and says what it has dropped.
func (b *book) closeMeter(env string) {
	b.mu.Lock()
	m := b.meters[env]
	if m.writers--; m.writers > 0 {
		b.mu.Unlock()
		return
	}
	delete(b.meters, env)
	dropped := m.resume()
	b.mu.Unlock()
	if dropped > 0 {
		b.add(note(env, droppedText(dropped)))
	}
}

func (b *book) allow(m *meter, now time.Time, size int) (ok bool, dropped int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	ok, dropped = m.allow(now, size)
	if !ok {
		b.wake() // for noteDropped
	}
	return ok, dropped
}

// noteDropped says what has been dropped of floods that are over. It is called by flush, again and again until they are.
func (b *book) noteDropped(now time.Time) {
	var notes []Entry
	b.mu.Lock()
	for env, m := range b.meters {
		if m.dropped == 0 {
			continue
		}
		if m.refill(now); m.recovered() {
			notes = append(notes, note(env, droppedText(m.resume())))
		} else {
			b.wake()
		}
	}
	b.mu.Unlock()
	for _, entry := range notes {
		b.add(entry)
	}
}
