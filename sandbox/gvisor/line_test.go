package gvisor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"github.com/lull-dev/lull/sandbox"
)

func addrs(texts ...string) (listeners []sandbox.Listener) {
	for _, text := range texts {
		listeners = append(listeners, sandbox.Listener{Addr: netip.MustParseAddrPort(text)})
	}
	return listeners
}

func TestParseListeners(t *testing.T) {
	for text, want := range map[string][]sandbox.Listener{
		"":                               nil,
		"0.0.0.0:80":                     addrs("0.0.0.0:80"),
		"[::]:90 127.0.0.1:80 [::1]:80":  addrs("127.0.0.1:80", "[::1]:80", "[::]:90"),
		"0.0.0.0:80 nonsense 0.0.0.0:80": addrs("0.0.0.0:80"),
	} {
		if diff := cmp.Diff(want, parseListeners(text), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%q: (-want +got)\n%s", text, diff)
		}
	}
}

// A sentry that has been taken over says what it likes.
func FuzzParseListeners(f *testing.F) {
	f.Add("0.0.0.0:80 [::1]:90")
	f.Fuzz(func(t *testing.T, text string) {
		listeners := parseListeners(text)
		for i := 1; i < len(listeners); i++ {
			if listeners[i].Addr.Port() < listeners[i-1].Addr.Port() {
				t.Errorf("%v is not in order of port", listeners)
			}
		}
	})
}

// call connects the other end of a line.
func call(t *testing.T) (*line, int) {
	t.Helper()
	dir := t.TempDir() + strings.Repeat("/long", 30)
	writeFiles(t, dir, map[string]string{"file": ""})
	l, err := newLine(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.close() })
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := withShortPath(dir, lineFile, func(addr unix.Sockaddr) error { return unix.Connect(fd, addr) }); err != nil {
		t.Fatal(err)
	}
	if err := l.accept(); err != nil {
		t.Fatal(err)
	}
	return l, fd
}

func TestLine(t *testing.T) {
	l, fd := call(t)
	done := make(chan struct{})
	go func() { // the sentry's end: answers three questions, the test waits for it
		defer close(done)
		question := make([]byte, 1)
		for i := range 3 {
			if n, err := unix.Read(fd, question); n != 1 || err != nil || question[0] != askListeners {
				t.Errorf("read %d, %v, %q", n, err, question)
			}
			_, _ = unix.Write(fd, fmt.Appendf(nil, "nonsense\n%s 0.0.0.0:%d\n", tellAnswer, 80+i))
		}
		_, _ = unix.Write(fd, []byte(tellRefused+"\n"))
	}()
	late, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.listeners(late); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	for i := 1; i < 3; i++ { // the answer to the question that was called off is not taken for another's
		got, err := l.listeners(t.Context())
		if diff := cmp.Diff(addrs(fmt.Sprintf("0.0.0.0:%d", 80+i)), got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); err != nil || diff != "" {
			t.Errorf("%v (-want +got)\n%s", err, diff)
		}
	}
	<-done
	unix.Close(fd)
	if _, err := l.listeners(t.Context()); !errors.Is(err, sandbox.ErrExited) {
		t.Errorf("after the end: error is %v", err)
	}
	l.reader.Wait()
	if at := l.refused.Load(); at == nil || time.Since(*at) > time.Minute {
		t.Errorf("refused at %v", at)
	}
}

func TestLineWithoutCall(t *testing.T) {
	l, err := newLine(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.accept(); err == nil {
		t.Error("accepted a call that did not come")
	}
	if err := l.close(); err != nil {
		t.Error(err)
	}
}
