package runtime

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/lull-dev/lull/function/event"
)

// A process is one run of the function's program, with a Runtime API of its own: what a process sends that has been replaced
// reaches nobody.
type process struct {
	began time.Time

	cmd    *exec.Cmd
	server *http.Server
	dir    string // of the API's socket

	http    int           // port on which it may take requests itself; 0: none
	direct  bool          // it does; set before ready is closed
	ready   chan struct{} // closed when it has asked for its first invocation
	ended   chan struct{} // closed when it is gone and its connections are closed
	how     string        // how it ended; set before ended is closed
	told    bool          // the log says so; the keeper's once ended is closed
	pid     int
	mu      sync.Mutex // guards all below
	failure *failure   // what it reported of its initialisation
	failed  chan struct{}
	waited  bool // its pid may be somebody else's
}

// stopGrace is what a process has between SIGTERM and SIGKILL.
const stopGrace = time.Second

// startProcess starts the function's program. It runs until it ends by itself, or is stopped or killed.
func startProcess(d *desk, args []string, dir string, environ func(api string) []string, stdout, stderr *os.File) (*process, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("open the runtime API: %w", err)
	}
	p := &process{began: time.Now(), http: d.config.HTTP, ready: make(chan struct{}), ended: make(chan struct{}), failed: make(chan struct{})}
	p.server = newAPI(d, p)
	socket, err := p.openSocket()
	if err != nil {
		listener.Close()
		return nil, err
	}
	p.cmd = exec.Command(args[0], args[1:]...)
	p.cmd.Dir = dir
	p.cmd.Env = append(environ(listener.Addr().String()), socketVariable+"="+socket.Addr().String())
	p.cmd.Stdout, p.cmd.Stderr = stdout, stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}

	d.begun(p)
	go p.server.Serve(listener) // both end with the process; watch closes them
	go p.server.Serve(socket)
	if err := p.cmd.Start(); err != nil {
		p.close()
		d.lost(p, "without having started")
		return nil, fmt.Errorf("start %s: %w", args[0], err)
	}
	p.pid = p.cmd.Process.Pid
	go p.watch(d) // ends with the process; whoever waits for ended waits for it
	return p, nil
}

// watch waits until the process has ended, ends what it left behind, and says so to those whose invocations it had.
func (p *process) watch(d *desk) {
	err := p.cmd.Wait()
	p.mu.Lock()
	p.waited = true
	p.mu.Unlock()
	syscall.Kill(-p.pid, syscall.SIGKILL) // the group lives on while anybody of it does
	p.how = "without providing a reason"
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		p.how = "with error: " + exit.String()
	} else if err != nil {
		p.how = "with error: " + err.Error()
	}
	p.told = d.lost(p, p.how)
	p.close()
	close(p.ended)
}

// socketVariable names the variable by which our own clients find the API at a Unix socket: in a sandbox that takes a fifth
// less time for an invocation than loopback.
const socketVariable = "LULL_RUNTIME_SOCKET"

// openSocket opens the API's socket, in a directory of its own.
func (p *process) openSocket() (net.Listener, error) {
	dir, err := os.MkdirTemp("", "lull-runtime-")
	if err != nil {
		return nil, fmt.Errorf("open the runtime API: %w", err)
	}
	p.dir = dir
	listener, err := net.Listen("unix", filepath.Join(dir, "api"))
	if err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("open the runtime API: %w", err)
	}
	return listener, nil
}

// close ends the API and every connection to it.
func (p *process) close() {
	p.server.Close()
	os.RemoveAll(p.dir)
}

// asked says that the process has asked for an invocation: it has initialised itself.
func (p *process) asked() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.isReady() {
		p.direct = listens(p.http)
		close(p.ready)
	}
}

// listens reports whether somebody listens on a port; nobody does on 0.
func listens(port int) bool {
	if port == 0 {
		return false
	}
	conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err == nil {
		conn.Close()
	}
	return err == nil
}

func (p *process) isReady() bool {
	select {
	case <-p.ready:
		return true
	default:
		return false
	}
}

// fail says that the process could not initialise itself. It reports whether that is news.
func (p *process) fail(f *failure) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failure != nil || p.isReady() {
		return false
	}
	p.failure = f
	close(p.failed)
	return true
}

// signal sends the process and its children a signal.
func (p *process) signal(s syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.waited {
		syscall.Kill(-p.pid, s)
	}
}

func (p *process) kill() { p.signal(syscall.SIGKILL) }

// stop ends the process and waits until it has ended.
func (p *process) stop() {
	p.signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(stopGrace):
		p.kill()
		<-p.ended
	}
}

// settled waits for what a process that reported a failed initialisation does next, which is to exit, and sees to it.
func (p *process) settled() {
	select {
	case <-p.ended:
	case <-time.After(stopGrace):
		p.stop()
	}
}

// why says why the process did not initialise itself. It has ended.
func (p *process) why() *failure {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failure != nil {
		return p.failure
	}
	return fail(http.StatusBadGateway, event.ExitError, "Runtime exited %s before it asked for its first invocation", p.how)
}
