package sandboxtest

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/lull-dev/lull/sandbox"
)

// Program plays a process: it runs until it returns its exit code. It must return soon after Process.Done is closed.
type Program func(p *Process) int

// Process is what a Program has in its hands.
type Process struct {
	Args           []string
	Dir            string
	Stdout, Stderr io.Writer
	sandbox        *fakeBody
}

// Getenv returns the value of an environment variable, "" if there is none.
func (p *Process) Getenv(key string) string {
	for _, pair := range p.sandbox.spec.Env {
		if value, ok := strings.CutPrefix(pair, key+"="); ok {
			return value
		}
	}
	return ""
}

// Environ returns the environment.
func (p *Process) Environ() []string { return p.sandbox.spec.Env }

// Done is closed when the process must end: the program then returns, and its exit code does not matter.
func (p *Process) Done() <-chan struct{} { return p.sandbox.killed }

// Term is closed when the process is asked to end. Without having called Term it ends by SIGTERM.
func (p *Process) Term() <-chan struct{} {
	p.sandbox.mu.Lock()
	defer p.sandbox.mu.Unlock()
	p.sandbox.handles = true
	return p.sandbox.term
}

// Exit ends the process; the caller goes on, as do the program's other goroutines until they notice.
func (p *Process) Exit(exit sandbox.Exit) { p.sandbox.die(exit) }

// Awake returns how long the process has run, without the time it was paused.
func (p *Process) Awake() time.Duration {
	p.sandbox.mu.Lock()
	defer p.sandbox.mu.Unlock()
	return p.sandbox.ran + p.sandbox.sinceWoke()
}

// Spin counts another processor as busy from the start of the process.
func (p *Process) Spin() {
	p.sandbox.mu.Lock()
	defer p.sandbox.mu.Unlock()
	p.sandbox.spinning++
}

// Listen listens on an address such as 127.0.0.1:3000, [::]:5000 or :8080.
func (p *Process) Listen(address string) (net.Listener, error) {
	if strings.HasPrefix(address, ":") {
		address = "0.0.0.0" + address
	}
	addr, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	s := p.sandbox
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.dead:
		return nil, sandbox.ErrExited
	case s.listeners[int(addr.Port())] != nil:
		return nil, fmt.Errorf("listen on %s: address already in use", addr)
	}
	l := &fakeListener{sandbox: s, addr: addr, backlog: make(chan *fakeConn, 4096), stopped: make(chan struct{})}
	s.listeners[int(addr.Port())] = l
	return l, nil
}

// output is a descriptor of the process: it cannot be written to while the process is paused, or when it is dead.
type output struct {
	sandbox *fakeBody
	of      func(sandbox.Spec) io.Writer
}

func (o *output) Write(p []byte) (int, error) {
	if err := o.sandbox.waitAwake(); err != nil {
		return 0, err
	}
	o.sandbox.mu.Lock()
	to := o.of(o.sandbox.spec)
	o.sandbox.mu.Unlock()
	if to == nil {
		return len(p), nil
	}
	return to.Write(p)
}
