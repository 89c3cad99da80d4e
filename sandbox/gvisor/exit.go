package gvisor

import (
	"cmp"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/runsc/boot"

	"github.com/lull-dev/lull/sandbox"
)

// watch starts the goroutine that notices the end, says how it came and closes done.
func (b *box) watch() {
	go func() {
		status, ofApp := b.await()
		b.exit = b.evidence(time.Now()).judge(status, ofApp)
		b.output.wait()
		close(b.done)
	}()
}

// await blocks until the sandbox has ended. It returns the exit status of the app, or if the sentry took that along,
// the sentry's own.
func (b *box) await() (status unix.WaitStatus, ofApp bool) {
	app, appErr := b.awaitApp()
	// The sentry ends by itself when the app has. Wait reaps it, and without the socket does not ask it anything first.
	_ = os.Remove(b.sentry.ControlSocketPath)
	sentry, err := b.sentry.Wait(b.sentry.ID)
	if err != nil {
		b.driver.log.Error("waiting for a sandbox failed", "sandbox", b.spec.ID, "error", err)
	}
	b.endGofer()
	if appErr == nil {
		return app, true
	}
	return sentry, false
}

// endGofer ends the gofer, which has nobody left to serve, and reaps it. Nobody may send signals to its number afterwards.
func (b *box) endGofer() {
	pid := b.container.GoferPid.Load()
	if pid == 0 {
		return
	}
	_ = unix.Kill(pid, unix.SIGKILL)
	if _, err := unix.Wait4(pid, nil, 0, nil); err != nil {
		b.driver.log.Error("waiting for a gofer failed", "sandbox", b.spec.ID, "error", err)
	}
	b.container.GoferPid.Store(0)
}

// awaitApp asks the sentry for the app's exit status, which it answers when there is one.
func (b *box) awaitApp() (status unix.WaitStatus, err error) {
	conn, err := b.connect()
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	err = conn.Call(boot.ContMgrWait, &b.sentry.ID, &status)
	return status, err
}

// evidence is what is known about a sandbox when it ends, besides the exit status.
type evidence struct {
	killed   bool // by the node
	hung     bool // the sentry did not answer the node
	starved  bool // the kernel killed a process for want of memory
	refused  bool // the app was refused a process just before
	full     bool // the app was refused room to write just before
	crowded  bool // the sentry was
	lastWord func() string
}

// refusalCounts is how long after it was refused something an app may end for the refusal to be the likely reason.
const refusalCounts = 10 * time.Second

func (b *box) evidence(now time.Time) evidence {
	justBefore := func(at *time.Time) bool { return at != nil && now.Sub(*at) < refusalCounts }
	return evidence{
		killed:   b.killed.Load(),
		hung:     b.hung.Load(),
		starved:  b.cgroup.starved() > 0,
		refused:  justBefore(b.line.refused.Load()),
		full:     justBefore(b.line.full.Load()),
		crowded:  b.cgroup.crowded() > 0,
		lastWord: b.lastWords,
	}
}

// judge turns the exit status of the app, or else of the sentry, into words.
func (e evidence) judge(status unix.WaitStatus, ofApp bool) sandbox.Exit {
	exit := sandbox.Exit{Code: status.ExitStatus()}
	if status.Signaled() {
		exit = sandbox.Exit{Code: -1, Signal: unix.SignalName(status.Signal())}
	}
	switch {
	case exit.Code == 0 || e.killed:
	case e.hung:
		exit.Err = errors.New("gVisor no longer answered")
	case e.starved:
		exit.Limit = sandbox.LimitMemory
	case e.refused || !ofApp && e.crowded:
		exit.Limit = sandbox.LimitProcesses
	case e.full:
		exit.Limit = sandbox.LimitDisk
	case !ofApp && exit.Signal != "SIGKILL":
		// A sentry whose app has failed exits with the app's code, at times before it could be asked for that. One that
		// breaks says something.
		if word := e.lastWord(); word != "" || status.Signaled() {
			exit.Err = errors.New("gVisor ended: " + cmp.Or(word, "it did not say why"))
		}
	}
	return exit
}

// lastWords returns the first line of what the Go runtime said when the sentry died; "" if it said nothing.
func (b *box) lastWords() string {
	for _, file := range []string{gvisorDump, gvisorLog} {
		data, _ := os.ReadFile(filepath.Join(b.dir, file))
		if line, _, _ := strings.Cut(strings.TrimSpace(string(data)), "\n"); line != "" {
			return line
		}
	}
	return ""
}
