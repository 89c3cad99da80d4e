package cli

import (
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/lull-dev/lull"
)

// progress tells a person how far long work has come: on a terminal one moving line below what has been printed, elsewhere
// plain lines. One goroutine owns the writer; Close ends it and waits.
type progress struct {
	w        io.Writer
	terminal bool
	now      func() time.Time
	acts     chan func() // run by the owner of the writer; closed by Close
	ended    chan struct{}

	// Used by the goroutine only.
	phase string
	began time.Time
	frame int
	shown bool // the moving line is on the screen

	bytes atomic.Int64 // moved in this phase
}

var frames = []rune("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")

func startProgress(w io.Writer, terminal bool, now func() time.Time) *progress {
	p := &progress{w: w, terminal: terminal, now: now, acts: make(chan func()), ended: make(chan struct{})}
	go p.run()
	return p
}

func (p *progress) run() {
	defer close(p.ended)
	var ticks <-chan time.Time
	if p.terminal {
		ticker := time.NewTicker(100 * time.Millisecond)
		defer ticker.Stop()
		ticks = ticker.C
	}
	for {
		select {
		case act, ok := <-p.acts:
			if !ok {
				p.clear()
				return
			}
			act()
		case <-ticks:
			p.draw()
		}
	}
}

// Close takes the moving line away.
func (p *progress) Close() {
	close(p.acts)
	<-p.ended
}

// Begin starts a phase, such as "building". Elsewhere than on a terminal it prints a line.
func (p *progress) Begin(phase string) {
	p.bytes.Store(0)
	p.acts <- func() {
		p.phase, p.began = phase, p.now()
		if !p.terminal {
			fmt.Fprintln(p.w, visible(phase))
		}
		p.draw()
	}
}

// Line prints a line that stays, such as one of a build's output.
func (p *progress) Line(text string) {
	p.acts <- func() {
		p.clear()
		fmt.Fprintln(p.w, visible(text))
		p.draw()
	}
}

// Count wraps r so that what is read through it shows up in the moving line.
func (p *progress) Count(r io.Reader) io.Reader { return &countingReader{r: r, n: &p.bytes} }

func (p *progress) clear() {
	if p.shown {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.shown = false
	}
}

func (p *progress) draw() {
	if !p.terminal || p.phase == "" {
		return
	}
	p.frame = (p.frame + 1) % len(frames)
	line := fmt.Sprintf("%c %s", frames[p.frame], visible(p.phase))
	if n := p.bytes.Load(); n > 0 {
		line += " · " + lull.Size(n).String()
	}
	if d := p.now().Sub(p.began); d >= time.Second {
		line += " · " + age(d)
	}
	p.clear()
	fmt.Fprint(p.w, line)
	p.shown = true
}

type countingReader struct {
	r io.Reader
	n *atomic.Int64
}

func (c *countingReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n.Add(int64(n))
	return n, err
}
