package cli

import (
	"context"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/lull-dev/lull/control"
	"github.com/lull-dev/lull/host"
)

// version is set by the linker; a build without it falls back on what Go knows of the module.
var version = ""

// noVersion is the version of a build that does not know its own.
const noVersion = "dev"

// System is the Env of this process. It is the only place that reads the process's environment.
func System(serve ServeFunc) Env {
	dir, err := os.Getwd()
	if err != nil {
		dir = "." // the working directory is gone; what needs it says so itself
	}
	configDir, err := os.UserConfigDir()
	if err != nil {
		configDir = "" // no HOME: nobody is told where the node is
	}
	isTerminal := func(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }
	return Env{
		Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		StdinTerminal: isTerminal(os.Stdin), StdoutTerminal: isTerminal(os.Stdout), StderrTerminal: isTerminal(os.Stderr),
		Getenv: os.Getenv, Dir: dir, UserConfigDir: configDir, Root: os.Geteuid() == 0,
		Version: buildVersion(), Now: time.Now, Signals: signals(),
		Connect: func(url, token string) control.Node { return &control.Client{URL: url, Token: token} },
		Serve:   serve,
		Check:   checkHost,
	}
}

// signals delivers what asks the process to end. A SIGHUP counts too, unless nohup has switched it off.
func signals() <-chan os.Signal {
	received := make(chan os.Signal, 2)
	signal.Notify(received, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) {
		signal.Notify(received, syscall.SIGHUP)
	}
	return received
}

func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return strings.TrimPrefix(info.Main.Version, "v")
	}
	return noVersion
}

func checkHost(ctx context.Context) []Finding {
	var findings []Finding
	for _, f := range host.Check(ctx) {
		findings = append(findings, Finding(f))
	}
	return findings
}
