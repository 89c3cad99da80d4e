package process

import (
	"errors"
	"fmt"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// launch starts cmd with a mark, as the leader of a session, and thereby process group, of its own.
func (d *Driver) launch(cmd *exec.Cmd, m mark) error {
	result := make(chan error)
	select {
	case d.launches <- func() { result <- d.startMarked(cmd, m) }:
		return <-result
	case <-d.ended:
		return errors.New("driver is closed")
	}
}

// startMarked lets the process stop before its first instruction, as a debugger would, so that it has its mark before it
// can start another one. Where the host does not allow tracing, the mark comes a moment after the start. It runs on
// runLaunches' thread: only the thread that has started a process traces it.
func (d *Driver) startMarked(cmd *exec.Cmd, m mark) error {
	err := startTraced(cmd)
	traced := err == nil
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) {
		again := exec.Cmd{Path: cmd.Path, Args: cmd.Args, Env: cmd.Env, Dir: cmd.Dir, Stdout: cmd.Stdout, Stderr: cmd.Stderr}
		*cmd = again
		cmd.SysProcAttr = attributes()
		err = cmd.Start()
	}
	if err != nil {
		return err
	}
	if err := m.put(cmd.Process.Pid); err != nil {
		d.log.Debug("process tree is followed by session only", "error", err)
	}
	if traced {
		if err := unix.PtraceDetach(cmd.Process.Pid); err != nil && !errors.Is(err, unix.ESRCH) { // somebody has killed it
			return errors.Join(fmt.Errorf("let the process go: %w", err), cmd.Process.Kill(), cmd.Wait())
		}
	}
	return nil
}

func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
}

// startTraced starts cmd and returns when it has stopped.
func startTraced(cmd *exec.Cmd) error {
	cmd.SysProcAttr = attributes()
	cmd.SysProcAttr.Ptrace = true
	if err := cmd.Start(); err != nil {
		return err
	}
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(cmd.Process.Pid, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return errors.Join(fmt.Errorf("wait for the process to stop: %w", err), cmd.Process.Kill(), cmd.Wait())
		case !status.Stopped(): // and is reaped
			return errors.Join(errors.New("process was killed before its first instruction"), cmd.Process.Release())
		}
		return nil
	}
}
