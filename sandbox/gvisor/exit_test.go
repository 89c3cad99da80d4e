package gvisor

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/lull-dev/lull/sandbox"
)

func TestJudge(t *testing.T) {
	exited := func(code int) unix.WaitStatus { return unix.WaitStatus(code << 8) }
	by := func(signal unix.Signal) unix.WaitStatus { return unix.WaitStatus(signal) }
	words, silence := func() string { return "panic: why" }, func() string { return "" }
	for name, c := range map[string]struct {
		evidence evidence
		status   unix.WaitStatus
		ofSentry bool
		want     sandbox.Exit
	}{
		"exits":                               {status: exited(0), want: sandbox.Exit{}},
		"fails":                               {status: exited(3), want: sandbox.Exit{Code: 3}},
		"ends by a signal":                    {status: by(unix.SIGSEGV), want: sandbox.Exit{Code: -1, Signal: "SIGSEGV"}},
		"sandbox is killed":                   {status: by(unix.SIGKILL), ofSentry: true, want: sandbox.Exit{Code: -1, Signal: "SIGKILL"}},
		"sentry breaks":                       {status: exited(2), ofSentry: true, want: sandbox.Exit{Code: 2, Err: errors.New("gVisor ended: panic: why")}},
		"sentry hangs":                        {evidence{hung: true}, by(unix.SIGKILL), true, sandbox.Exit{Code: -1, Signal: "SIGKILL", Err: errors.New("gVisor no longer answered")}},
		"over memory":                         {evidence{starved: true}, by(unix.SIGKILL), true, sandbox.Exit{Code: -1, Signal: "SIGKILL", Limit: sandbox.LimitMemory}},
		"child was over memory, app ok":       {evidence{starved: true}, exited(0), false, sandbox.Exit{}},
		"was refused a process":               {evidence{refused: true}, exited(1), false, sandbox.Exit{Code: 1, Limit: sandbox.LimitProcesses}},
		"had no room to write":                {evidence{full: true}, exited(1), false, sandbox.Exit{Code: 1, Limit: sandbox.LimitDisk}},
		"was refused, and stopped":            {evidence{refused: true, killed: true}, by(unix.SIGKILL), true, sandbox.Exit{Code: -1, Signal: "SIGKILL"}},
		"sentry was refused a thread":         {evidence{crowded: true}, exited(2), true, sandbox.Exit{Code: 2, Limit: sandbox.LimitProcesses}},
		"memory before processes":             {evidence{starved: true, refused: true}, by(unix.SIGKILL), true, sandbox.Exit{Code: -1, Signal: "SIGKILL", Limit: sandbox.LimitMemory}},
		"sentry is gone before it is asked":   {evidence{lastWord: silence}, exited(4), true, sandbox.Exit{Code: 4}},
		"sentry ends by a signal, in silence": {evidence{lastWord: silence}, by(unix.SIGSEGV), true, sandbox.Exit{Code: -1, Signal: "SIGSEGV", Err: errors.New("gVisor ended: it did not say why")}},
	} {
		if c.evidence.lastWord == nil {
			c.evidence.lastWord = words
		}
		got := c.evidence.judge(c.status, !c.ofSentry)
		if diff := cmp.Diff(c.want, got, cmp.Comparer(func(a, b error) bool { return a == b || a != nil && b != nil && a.Error() == b.Error() })); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", name, diff)
		}
	}
}
