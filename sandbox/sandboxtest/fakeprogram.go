package sandboxtest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lull-dev/lull/sandbox"
)

// HTTP is a program that serves handler on the port in $PORT.
func HTTP(handler http.Handler) Program {
	return func(p *Process) int { return serveHTTP(p, ":"+p.Getenv("PORT"), handler) }
}

// HTTPOn is a program that serves handler on an address of its own choice.
func HTTPOn(address string, handler http.Handler) Program {
	return func(p *Process) int { return serveHTTP(p, address, handler) }
}

func serveHTTP(p *Process, address string, handler http.Handler) int {
	l, err := p.Listen(address)
	if err != nil {
		fmt.Fprintln(p.Stderr, err)
		return 1
	}
	server := &http.Server{Handler: handler, ErrorLog: log.New(p.Stderr, "", 0)}
	ended := make(chan struct{})
	go func() { // ends when the process does; the program waits for it
		defer close(ended)
		<-p.Done()
		server.Close()
	}()
	server.Serve(l)
	<-ended
	return 0
}

// Exits is a program that says something on stderr and ends after a while.
func Exits(code int, after time.Duration, says string) Program {
	return func(p *Process) int {
		if says != "" {
			fmt.Fprintln(p.Stderr, says)
		}
		select {
		case <-time.After(after):
		case <-p.Done():
		}
		return code
	}
}

// Silent is a program that runs and listens nowhere.
func Silent(says string) Program {
	return func(p *Process) int {
		if says != "" {
			fmt.Fprintln(p.Stdout, says)
		}
		<-p.Done()
		return 0
	}
}

// play plays the suite's program in one of its modes.
func play(mode string, args []string) Program {
	return func(p *Process) int {
		switch mode {
		case "serve":
			return (&player{process: p}).serve(args, nil)
		case "term":
			return (&player{process: p}).serve(args[1:], p.Term()) | number(args[0])
		case "deaf":
			p.Term()
			return (&player{process: p}).serve(args, nil)
		case "die":
			names := map[int]string{6: "SIGABRT", 9: "SIGKILL", 15: "SIGTERM"}
			p.Exit(sandbox.Exit{Code: -1, Signal: names[number(args[0])]})
		case "exit":
			return number(args[0])
		case "orphan":
			return 4
		case "print":
			for out, last := range map[io.Writer]string{p.Stdout: "last out", p.Stderr: "last err"} {
				fmt.Fprintf(out, "%s\n%s\n", strings.Repeat("x", number(args[0])), last)
			}
			return number(args[1])
		case "flood":
			for line := strings.Repeat("flood ", 1000) + "\n"; ; {
				if _, err := io.WriteString(p.Stdout, line); err != nil {
					return 0
				}
			}
		case "info":
			json.NewEncoder(p.Stdout).Encode(describe(p, args))
		}
		return 0
	}
}

func number(text string) int {
	n, _ := strconv.Atoi(text)
	return n
}

func describe(p *Process, args []string) given {
	env := map[string]string{}
	for _, pair := range p.Environ() {
		key, value, _ := strings.Cut(pair, "=")
		env[key] = value
	}
	return given{Args: args, Env: env, Dir: p.Dir}
}

// player is the suite's program while it serves.
type player struct {
	process *Process
	talks   sync.WaitGroup // listeners and connections
	kept    sync.Map       // string by string
	talking atomic.Int64   // connections
}

// serve answers on all addresses until the process is ended, or asked to by term.
func (pl *player) serve(addrs []string, term <-chan struct{}) int {
	defer pl.talks.Wait()
	var listeners []net.Listener
	defer func() {
		for _, l := range listeners {
			l.Close()
		}
	}()
	for _, addr := range addrs {
		l, err := pl.process.Listen(addr)
		if err != nil {
			fmt.Fprintln(pl.process.Stderr, err)
			return 1
		}
		listeners = append(listeners, l)
		pl.talks.Go(func() { pl.accept(l) })
	}
	fmt.Fprintln(pl.process.Stdout, "ready")
	select {
	case <-pl.process.Done():
	case <-term:
	}
	return 0
}

func (pl *player) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go pl.talk(conn) // ends with the connection, which the client or the end of the process ends
	}
}

func (pl *player) talk(conn net.Conn) {
	defer conn.Close()
	pl.talking.Add(1)
	defer pl.talking.Add(-1)
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		words := strings.Fields(lines.Text())
		if len(words) == 0 {
			continue
		}
		ok, err := pl.answer(words[0], words[1:])
		reply := map[string]any{"ok": ok}
		if err != nil {
			reply = map[string]any{"error": err.Error()}
		}
		if json.NewEncoder(conn).Encode(reply) != nil {
			return
		}
	}
}

func (pl *player) answer(verb string, args []string) (any, error) {
	switch verb {
	case "echo":
		return strings.Join(args, " "), nil
	case "keep":
		pl.kept.Store(args[0], args[1])
		return "", nil
	case "kept":
		value, _ := pl.kept.Load(args[0])
		return value, nil
	case "talking":
		return pl.talking.Load(), nil
	case "clocks":
		now := float64(time.Now().UnixNano()) / 1e9
		return []float64{now, now}, nil
	case "print":
		fmt.Fprintln(pl.process.Stdout, strings.Join(args, " "))
		fmt.Fprintln(pl.process.Stderr, strings.Join(args, " "))
		return "", nil
	case "ticks":
		return int(pl.process.Awake() / (10 * time.Millisecond)), nil
	case "info":
		return describe(pl.process, nil), nil
	case "exit":
		pl.process.Exit(sandbox.Exit{Code: number(args[0])})
		return nil, nil
	case "spin":
		for range number(args[0]) {
			pl.process.Spin()
		}
		return "", nil
	}
	return nil, fmt.Errorf("unknown verb %s", verb)
}
