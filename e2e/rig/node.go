package rig

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Options say how a node is started.
type Options struct {
	Binary  string // from Build
	Dir     string // of everything the node keeps, and where commands find it; may be one a node has used before
	Sandbox string // gvisor or process
	Args    []string
	Booted  time.Duration // how long ago the machine seems to have booted; 0: when it did
}

// Node is a running "lull serve". The caller ends it with Stop or Kill.
type Node struct {
	HTTP string // address of the front door, host:port
	API  string // URL of the API
	Data string
	Slot string // lull<N>: what the names of everything it makes on this machine begin with; "" if it holds none

	binary string
	env    []string
	cmd    *exec.Cmd
	log    *log
	ended  chan struct{} // closed when the process has ended
	err    error         // how; valid once ended is closed
}

// Start starts a node and waits until it says where it can be reached, or ctx ends.
func Start(ctx context.Context, opts Options) (*Node, error) {
	n := &Node{
		Data: filepath.Join(opts.Dir, "data"), binary: opts.Binary, log: &log{}, ended: make(chan struct{}),
		env: append(os.Environ(), "XDG_CONFIG_HOME="+filepath.Join(opts.Dir, "config"), "LULL_API=", "LULL_TOKEN="),
	}
	args := append([]string{"serve", "--data", n.Data, "--http", "127.0.0.1:0", "--api", "127.0.0.1:0",
		"--domain", "localhost", "--sandbox", opts.Sandbox}, opts.Args...)
	n.cmd = exec.Command(opts.Binary, args...)
	if opts.Booted > 0 {
		var err error
		if n.cmd, err = booted(opts.Booted, n.cmd.Args); err != nil {
			return nil, err
		}
	}
	n.cmd.Env = n.env
	// A group of its own: a Ctrl-C for the tests is not one for the node.
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// A pipe of our own, not a buffer: with a buffer Wait would wait for every process that has inherited the descriptor.
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	n.cmd.Stdout, n.cmd.Stderr = write, write
	err = n.cmd.Start()
	write.Close()
	if err != nil {
		read.Close()
		return nil, fmt.Errorf("start the node: %w", err)
	}
	up := make(chan struct{})
	go n.read(read, up)
	go n.wait()
	return n, n.await(ctx, up)
}

// booted returns a command for which the clocks that begin with the machine's start say that this was so long ago
// (time_namespaces(7)). It is the process of the command itself.
func booted(ago time.Duration, args []string) (*exec.Cmd, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return nil, err
	}
	back := int64((ago - time.Duration(now.Nano())) / time.Second)
	return exec.Command("unshare", slices.Concat([]string{"--time", fmt.Sprintf("--monotonic=%d", back), fmt.Sprintf("--boottime=%d", back), "--"}, args)...), nil
}

var (
	frontLine = regexp.MustCompile(`^ +apps +\S+ +\(listening on (\S+)\)`)
	apiLine   = regexp.MustCompile(`^ +API +(\S+)`)
)

// read takes the node's talk to the log, and closes up once both addresses have been seen. Start starts it; it ends with
// the last process that holds the pipe, and nobody waits for it.
func (n *Node) read(from io.ReadCloser, up chan<- struct{}) {
	defer from.Close()
	lines := bufio.NewReader(from)
	for {
		line, err := lines.ReadString('\n')
		n.log.add(line)
		if up != nil {
			if match := frontLine.FindStringSubmatch(line); match != nil {
				n.HTTP = match[1]
			}
			if match := apiLine.FindStringSubmatch(line); match != nil {
				n.API = match[1]
			}
			if n.HTTP != "" && n.API != "" {
				close(up)
				up = nil
			}
		}
		if err != nil {
			return
		}
	}
}

// wait notes the end of the process. Start starts it; Stop and Kill wait for it, by ended.
func (n *Node) wait() {
	n.err = n.cmd.Wait()
	close(n.ended)
}

func (n *Node) await(ctx context.Context, up <-chan struct{}) error {
	select {
	case <-up:
		n.Slot = slotOf(n.PID())
		return nil
	case <-n.ended:
		return fmt.Errorf("the node ended at its start: %v\n%s", n.err, n.Log())
	case <-ctx.Done():
		n.Kill()
		return fmt.Errorf("the node did not say where it is: %w\n%s", ctx.Err(), n.Log())
	}
}

// PID returns the process id of the node.
func (n *Node) PID() int { return n.cmd.Process.Pid }

// Log returns what the node has said so far.
func (n *Node) Log() string { return n.log.String() }

// Stop asks the node to end (SIGTERM) and waits until it has, or ctx ends.
func (n *Node) Stop(ctx context.Context) error {
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop the node: %w", err)
	}
	select {
	case <-n.ended:
	case <-ctx.Done():
		n.Kill()
		return fmt.Errorf("the node did not end: %w\n%s", ctx.Err(), n.Log())
	}
	if n.err != nil {
		return fmt.Errorf("the node ended with %w\n%s", n.err, n.Log())
	}
	return nil
}

// Kill ends the node as a crash would (SIGKILL) and waits for its process; what it had started is left alone.
func (n *Node) Kill() {
	_ = n.cmd.Process.Kill()
	<-n.ended
}

// Command prepares a command, which finds the node by itself, as a user's would on the same machine.
func (n *Node) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, n.binary, args...)
	cmd.Env = slices.Clone(n.env)
	return cmd
}

// Run runs a command to its end. The error is about running it; that the command failed is in the Result.
func (n *Node) Run(ctx context.Context, args ...string) (Result, error) {
	return run(ctx, n.Command(ctx, args...))
}

// RunWith is Run with more environment variables.
func (n *Node) RunWith(ctx context.Context, env []string, args ...string) (Result, error) {
	cmd := n.Command(ctx, args...)
	cmd.Env = append(cmd.Env, env...)
	return run(ctx, cmd)
}

// Token returns the node's own token, from where it keeps it.
func (n *Node) Token() (string, error) {
	token, err := os.ReadFile(filepath.Join(n.Data, "token"))
	return strings.TrimSpace(string(token)), err
}

// log keeps what a process has said, up to a bound.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

const maxLog = 4 << 20

func (l *log) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.text.Len() < maxLog {
		l.text.WriteString(line)
	}
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
