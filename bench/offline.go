package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// offline is serverless-offline, a local emulator of Lambda, with the handler that is measured.
type offline struct {
	cmd *exec.Cmd
	url string
}

// offlineStart is how long the emulator may take to answer for the first time.
const offlineStart = time.Minute

// startOffline installs the emulator, from npm, and starts it. The caller stops it.
func (b bench) startOffline(ctx context.Context) (*offline, error) {
	say("installing serverless-offline")
	dir := filepath.Join(b.dir, "offline")
	for _, from := range []string{"offline", "function"} {
		if err := os.CopyFS(dir, os.DirFS(filepath.Join(filepath.Dir(appDir()), from))); err != nil {
			return nil, err
		}
	}
	install := exec.CommandContext(ctx, "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts")
	install.Dir = dir
	if out, err := install.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("install serverless-offline: npm ci: %w\n%s", err, out)
	}
	ports, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	o := &offline{url: fmt.Sprintf("http://127.0.0.1:%d/", ports[0]),
		cmd: exec.Command("node", "node_modules/serverless/bin/serverless.js", "offline", "start")}
	o.cmd.Dir = dir
	o.cmd.Env = append(os.Environ(), fmt.Sprintf("HTTP_PORT=%d", ports[0]), fmt.Sprintf("LAMBDA_PORT=%d", ports[1]),
		"SLS_TELEMETRY_DISABLED=1", "SLS_NOTIFICATIONS_MODE=off", "CI=1")
	o.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := o.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start serverless-offline: %w", err)
	}
	if err := o.await(ctx); err != nil {
		o.stop()
		return nil, err
	}
	return o, nil
}

func (o *offline) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, offlineStart)
	defer cancel()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for {
		_, err := ask(ctx, http.DefaultClient, o.url)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("serverless-offline does not answer: %w", err)
		case <-again.C:
		}
	}
}

// stop ends the emulator and all that it has started.
func (o *offline) stop() {
	_ = syscall.Kill(-o.cmd.Process.Pid, syscall.SIGKILL)
	_ = o.cmd.Wait()
}

// freePorts returns ports that nobody listens on at the moment.
func freePorts(n int) (ports []int, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // at the end, so that they differ
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
