// Package runtime is the program inside a function's sandbox. To the outside it is an ordinary HTTP server; inside it serves
// the Lambda Runtime API to the function's process, which it starts and looks after.
//
//	gateway ──▶ front ──▶ desk ◀── api ◀── the function's process
//	node    ──▶   │ (direct invocations)        │ stdout, stderr
//	              └──────────── log ◀───────────┘
//
// The front makes an event of each request (package event), the desk hands it to a poll of the process, the api takes the answer,
// the front makes HTTP of it. Nothing here does anything while no invocation is under way, so the sandbox can be paused and
// put on disk with the poll outstanding.
//
// The Runtime API is documented at https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html, and the streaming of answers at
// https://docs.aws.amazon.com/lambda/latest/dg/runtimes-custom.html#runtimes-custom-response-streaming.
package runtime

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	goruntime "runtime"
	"sync"
	"syscall"
	"time"

	"github.com/lull-dev/lull/function/event"
)

// finishTime is how long invocations may go on once the runtime has been told to end.
const finishTime = 4 * time.Second

// Main runs the function runtime if this process was started as one, and reports whether it was.
func Main() bool {
	if len(os.Args) != 2 || os.Args[1] != "function" || os.Getenv(Variable) == "" {
		return false
	}
	// What is here to do takes turns with the function's process; a second thread would only have to be woken.
	goruntime.GOMAXPROCS(1)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	config, err := Parse(os.Getenv(Variable))
	if err == nil {
		err = Run(ctx, config, os.Environ(), os.Stdout, os.Stderr)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return true
}

// Run runs a function until ctx ends. env is the environment, KEY=value, with PORT, where it listens once the function has
// initialised itself. If that fails Run returns why; later a process of the function that ends is started again.
func Run(ctx context.Context, config Config, env []string, stdout, stderr io.Writer) error {
	config = config.complete()
	e := readEnvironment(env)
	args, err := command(config, e)
	if err != nil {
		return err
	}
	l := &log{stderr: stderr}
	pumps, err := newPumps(l, stdout, stderr)
	if err != nil {
		return err
	}
	defer pumps.close()
	d := newDesk(config, e.arn(config), l)
	k := &keeper{desk: d, start: func() (*process, error) {
		return startProcess(d, args, e.task, func(api string) []string { return e.forFunction(config, api) }, pumps[0].writer, pumps[1].writer)
	}}
	p, err := k.first(ctx)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "0.0.0.0:"+e.or("PORT", "8080"))
	if err != nil {
		p.stop()
		return fmt.Errorf("open the function's port: %w", err)
	}
	server := &http.Server{
		Handler:           &front{desk: d, config: config, pumps: pumps},
		ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 1 << 20, ErrorLog: quiet,
	}
	var serving sync.WaitGroup
	serving.Go(func() { server.Serve(listener) }) // ends with Shutdown or Close below
	k.keep(ctx, p, func() {
		ending, cancel := context.WithTimeout(context.Background(), finishTime)
		defer cancel()
		if server.Shutdown(ending) != nil {
			server.Close()
		}
	})
	serving.Wait()
	return nil
}

// pumps are those of stdout and stderr.
type pumps [2]*pump

func newPumps(l *log, stdout, stderr io.Writer) (pumps, error) {
	out, err := newPump(l, stdout)
	if err != nil {
		return pumps{}, err
	}
	errs, err := newPump(l, stderr)
	if err != nil {
		out.close()
		return pumps{}, err
	}
	return pumps{out, errs}, nil
}

func (p pumps) settle() {
	for _, one := range p {
		one.settle()
	}
}

func (p pumps) close() {
	for _, one := range p {
		one.close()
	}
}

// A keeper sees to it that there is a process for those who want one.
type keeper struct {
	desk  *desk
	start func() (*process, error)
}

// first starts the function for the first time and waits until it is initialised.
func (k *keeper) first(ctx context.Context) (*process, error) {
	p, err := k.start()
	if err != nil {
		return nil, err
	}
	if err := k.await(ctx, p); err != nil {
		return nil, err
	}
	return p, nil
}

// await waits until p is initialised. If it is not going to be, it has ended when await returns.
func (k *keeper) await(ctx context.Context, p *process) error {
	select {
	case <-p.ready:
		return nil
	case <-p.failed:
		p.settled()
		return p.why()
	case <-p.ended:
		return p.why()
	case <-ctx.Done():
		p.stop()
		return errors.New("the function was stopped before it was initialised")
	}
}

const (
	firstPause = 100 * time.Millisecond // before a process is started again that did not come up
	mostPause  = 5 * time.Second
)

// keep starts the function again whenever its process has ended and something waits for it, until ctx ends. Then it calls
// finish, which waits for what is under way, and ends the process.
func (k *keeper) keep(ctx context.Context, p *process, finish func()) {
	pause := time.Duration(0)
	for {
		select {
		case <-p.ended:
			if ctx.Err() == nil && !p.told {
				p.told = true
				k.desk.log.say("%s: Runtime exited %s", event.ExitError, p.how)
			}
		case <-ctx.Done():
			finish()
			p.stop()
			return
		}
		select {
		case <-k.desk.demand:
		case <-ctx.Done():
			finish()
			return
		}
		if !wait(ctx, pause) || !k.desk.isWaiting() {
			continue // p has ended: the next round comes to the same point
		}
		next, err := k.start()
		if err == nil {
			err = k.await(ctx, next)
		}
		if err == nil {
			p, pause = next, 0
			continue
		}
		pause = min(max(2*pause, firstPause), mostPause)
		k.desk.refuse(asFailure(err))
	}
}

// wait lets d pass; it reports false if ctx ended before.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func asFailure(err error) *failure {
	var f *failure
	if errors.As(err, &f) {
		return f
	}
	return fail(http.StatusBadGateway, event.ExitError, "%v", err)
}

func randomHex(bytes int) string {
	id := make([]byte, bytes)
	rand.Read(id)
	return hex.EncodeToString(id)
}
