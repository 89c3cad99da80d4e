package gvisor

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lull-dev/lull/sandbox"
)

// The line is a socket between the node and a sandbox's sentry, besides gVisor's control socket. Over it the node asks
// for what gVisor does not tell, the sentry says what the node should know, and each notices the end of the other.
const (
	lineFile = "line" // in the bundle

	askListeners = 'l' // from the node, one byte: what the app listens on
	askWider     = 'w' // what of that the app wanted narrower
	askCut       = 'c' // to cut the app's connections with the outside
	askUnread    = 'u' // on how many of those something has come in that the app has not read
	askAdopt     = 'o' // of a spare, with an errand after it: what it is to be

	tellAnswer  = "answer"  // from the sentry, a line each, words divided by spaces: to the oldest question
	tellRefused = "refused" // the app was refused a process
	tellFull    = "full"    // the app was refused room to write
)

// lineMax bounds what a sentry may say in one go: a sandbox that listens on all its ports says 2 MB.
const lineMax = 4 << 20

// line is the node's end.
type line struct {
	limited  atomic.Pointer[func(sandbox.Limit)] // told what the app was refused
	listener int                                 // until the sentry has come
	conn     *os.File                            // then
	refused  atomic.Pointer[time.Time]           // when the app was last refused a process; nil if never
	full     atomic.Pointer[time.Time]           // when it was last refused room to write
	reader   sync.WaitGroup                      // runReader

	mu      sync.Mutex // guards what follows
	waiting []chan string
	ended   bool
}

// withShortPath calls fn with a name for a file in dir that is short enough for the address of a socket.
func withShortPath(dir, file string, fn func(unix.Sockaddr) error) error {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", dir, err)
	}
	defer unix.Close(fd)
	return fn(&unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/%s", fd, file)})
}

// newLine makes the socket. The caller must close the line. limited is called by runReader.
func newLine(bundle string, limited func(sandbox.Limit)) (*line, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("make line: %w", err)
	}
	err = withShortPath(bundle, lineFile, func(addr unix.Sockaddr) error { return unix.Bind(fd, addr) })
	if err == nil {
		err = unix.Listen(fd, 1)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("make line: %w", err)
	}
	l := &line{listener: fd}
	l.tellOf(limited)
	return l, nil
}

// tellOf sets what is told of refusals.
func (l *line) tellOf(limited func(sandbox.Limit)) {
	if limited == nil {
		limited = func(sandbox.Limit) {}
	}
	l.limited.Store(&limited)
}

// accept takes the sentry's call, which has come by the time its sandbox is created, and starts runReader, which ends
// when the sentry does or the line is closed. close waits for it.
func (l *line) accept() error {
	fd, _, err := unix.Accept4(l.listener, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	if err != nil {
		return fmt.Errorf("wait for the sentry's call: %w", err)
	}
	l.conn = os.NewFile(uintptr(fd), lineFile)
	l.reader.Go(l.runReader)
	return nil
}

func (l *line) close() error {
	err := unix.Close(l.listener)
	if l.conn != nil {
		_ = l.conn.Close()
	}
	l.reader.Wait()
	return err
}

func (l *line) runReader() {
	defer l.end()
	lines := bufio.NewScanner(l.conn)
	lines.Buffer(nil, lineMax)
	for lines.Scan() {
		now := time.Now()
		switch word, rest, _ := strings.Cut(lines.Text(), " "); word {
		case tellRefused:
			l.refused.Store(&now)
			(*l.limited.Load())(sandbox.LimitProcesses)
		case tellFull:
			l.full.Store(&now)
			(*l.limited.Load())(sandbox.LimitDisk)
		case tellAnswer:
			l.answer(rest)
		}
	}
}

func (l *line) answer(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) > 0 {
		l.waiting[0] <- text // has room
		l.waiting = l.waiting[1:]
	}
}

// end tells everybody who waits that there will be no answer.
func (l *line) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	for _, w := range l.waiting {
		close(w)
	}
	l.waiting = nil
}

// ask asks the sentry and waits for the answer.
func (l *line) ask(ctx context.Context, question byte) (string, error) {
	return l.request(ctx, []byte{question})
}

// request is ask for a question of more than one byte.
func (l *line) request(ctx context.Context, question []byte) (string, error) {
	answer, err := l.send(question)
	if err != nil {
		return "", err
	}
	select {
	case text, ok := <-answer:
		if !ok {
			return "", sandbox.ErrExited
		}
		return text, nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// send sends a question; the answers come in the same order.
func (l *line) send(question []byte) (<-chan string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return nil, sandbox.ErrExited
	}
	if _, err := l.conn.Write(question); err != nil { // one byte, which does not block, or to a sentry that has nothing else to do
		return nil, sandbox.ErrExited // nobody at the other end
	}
	answer := make(chan string, 1)
	l.waiting = append(l.waiting, answer)
	return answer, nil
}

// listeners asks the sentry what the app listens on.
func (l *line) listeners(ctx context.Context) ([]sandbox.Listener, error) {
	text, err := l.ask(ctx, askListeners)
	return parseListeners(text), err
}

// parseListeners reads the answer to askListeners. What is no address is left out.
func parseListeners(text string) (listeners []sandbox.Listener) {
	for word := range strings.FieldsSeq(text) {
		if addr, err := netip.ParseAddrPort(word); err == nil {
			listeners = append(listeners, sandbox.Listener{Addr: addr})
		}
	}
	slices.SortFunc(listeners, func(a, b sandbox.Listener) int {
		return cmp.Or(cmp.Compare(a.Addr.Port(), b.Addr.Port()), a.Addr.Addr().Compare(b.Addr.Addr()))
	})
	return slices.Compact(listeners)
}
