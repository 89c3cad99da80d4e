// Package rig runs Lull the way a user does: it builds the static binary, starts "lull serve", calls commands and speaks
// HTTP to apps. It knows nothing of Lull but its command line, its headers and its documented JSON, so that what holds
// here holds for a stranger too. The end-to-end tests and the benchmarks stand on it.
package rig

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Build returns the path of a static lull binary: the one that LULL_BINARY names, else one built into dir.
func Build(ctx context.Context, dir string) (string, error) {
	if binary := os.Getenv("LULL_BINARY"); binary != "" {
		return filepath.Abs(binary)
	}
	binary := filepath.Join(dir, "lull")
	if err := GoBuild(ctx, "github.com/lull-dev/lull/cmd/lull", "", binary); err != nil {
		return "", err
	}
	return binary, nil
}

// GoBuild builds a static binary from a package, as seen from dir ("" is the working directory).
func GoBuild(ctx context.Context, pkg, dir, target string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", target, pkg)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return nil
}

// Result is how a command ended.
type Result struct {
	Code   int
	Stdout string
	Stderr string
}

// String shows the result as a failed test wants to print it.
func (r Result) String() string {
	return fmt.Sprintf("exit code %d\nstdout: %s\nstderr: %s", r.Code, r.Stdout, r.Stderr)
}

// run runs a command to its end.
func run(ctx context.Context, cmd *exec.Cmd) (Result, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	result := Result{Stdout: stdout.String(), Stderr: stderr.String()}
	if cmd.ProcessState != nil {
		result.Code = cmd.ProcessState.ExitCode()
	}
	if err != nil && (result.Code <= 0 || ctx.Err() != nil) {
		return result, fmt.Errorf("run %s: %w\n%s", strings.Join(cmd.Args, " "), err, result)
	}
	return result, nil
}
