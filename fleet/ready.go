package fleet

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/sandbox"
)

const (
	// An app is asked every 1 ms at first, then ever less often, so that a start is noticed to be over at most a
	// twentieth of its time too late; a ready path, which the app answers itself, is not asked as often.
	firstDelay = time.Millisecond
	mostDelay  = 25 * time.Millisecond
	readyDelay = 100 * time.Millisecond
	// attemptTime bounds one look at what the app listens on.
	attemptTime = time.Second
	// inquiryTime bounds the question whether a port speaks HTTP; within promptTime most that do have answered it.
	inquiryTime = 10 * time.Second
	promptTime  = 300 * time.Millisecond
	// readyTime bounds one request for the ready path.
	readyTime = 5 * time.Second
)

// prober finds out when an app is ready, and where it listens.
type prober struct {
	box       sandbox.Sandbox
	release   lull.Release
	ports     portChoice
	inquiries inquiries

	open   []sandbox.Listener // what it was last seen listening on
	answer string             // what the ready path last had to say
	lastly error              // why nothing could be seen, if so
}

// ready waits until the app is ready and returns the port it listens on.
func (k *keeper) ready(ctx context.Context, spec sandbox.Spec) (int, *failure) {
	began := time.Now()
	limit := k.release().Manifest.Timeout.Start.Std()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var known int
	k.change(func(_ *ledger, e *environment, _ time.Time) { known = e.generation.port })
	p := &prober{box: k.box, release: k.release(), ports: portChoice{told: toldPort(spec.Env), known: known, fixed: k.release().Process.Fixed}}
	port, err := p.await(ctx)
	switch {
	case err == nil:
		k.noteElsewhere(p, port)
		return port, nil
	case errors.Is(err, sandbox.ErrExited):
		fail := crash(k.box.Exit(), spec.Limits)
		fail.what += fmt.Sprintf(" after %s, before it was ready", round(time.Since(began)))
		return 0, fail
	}
	fail := p.explain(limit)
	fail.err = context.Cause(ctx)
	return 0, fail
}

// noteElsewhere tells the app's owner that the app does not listen where it was told to.
func (k *keeper) noteElsewhere(p *prober, port int) {
	for _, l := range p.open {
		if int(l.Addr.Port()) == port && port != p.ports.told && port != p.ports.known {
			k.fleet.config.Journal.Note(k.fleet.config.App, k.environment.id,
				fmt.Sprintf("listens on %s, not on $PORT (%d); it is served there", l.Addr, p.ports.told))
			return
		}
	}
}

// await asks again and again. It fails with sandbox.ErrExited, or the error of ctx.
func (p *prober) await(ctx context.Context) (int, error) {
	defer p.inquiries.wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p.inquiries.ask = p.speaksHTTP
	began, most := time.Now(), mostDelay
	if p.release.Manifest.Ready != "" {
		most = readyDelay
	}
	for {
		asked := time.Now()
		if port, ok := p.look(ctx); ok {
			return port, nil
		}
		// Asking may not take more of the processor than the app has left to start with.
		cost := time.Since(asked)
		timer := time.NewTimer(max(cost, firstDelay, min(time.Since(began)/20, most)))
		select {
		case <-p.box.Done():
			timer.Stop()
			return 0, sandbox.ErrExited
		case <-ctx.Done():
			timer.Stop()
			return 0, ctx.Err()
		case <-timer.C:
		}
	}
}

// speaksHTTP asks a port for its page. A server that leaves requests for pages it does not have unanswered (a Socket.IO
// server with nothing else) still refuses a request that is none, before its app sees it.
func (p *prober) speaksHTTP(ctx context.Context, port int) bool {
	if _, err := p.request(ctx, port, "GET / HTTP/1.1", promptTime); err == nil {
		return true
	}
	if status, err := p.request(ctx, port, "GET / LULL/0.0", promptTime); err == nil && status >= 400 {
		return true
	}
	_, err := p.request(ctx, port, "GET / HTTP/1.1", inquiryTime)
	return err == nil
}

// look asks once: what does the app listen on, which of that is it, and does the ready path agree.
func (p *prober) look(ctx context.Context) (int, bool) {
	attempt, cancel := context.WithTimeout(ctx, attemptTime)
	defer cancel()
	open, err := p.box.Listeners(attempt)
	if err != nil {
		p.lastly = err
		return 0, false
	}
	p.open, p.lastly = open, nil
	port, ok := p.ports.choose(time.Now(), open, func(port int) bool { return p.inquiries.speaks(ctx, port) })
	if !ok {
		return 0, false
	}
	if path := p.release.Manifest.Ready; path != "" {
		return port, p.passes(ctx, port, path)
	}
	return port, true
}

// passes reports whether the ready path answers 2xx or 3xx.
func (p *prober) passes(ctx context.Context, port int, path string) bool {
	status, err := p.request(ctx, port, "GET "+path+" HTTP/1.1", readyTime)
	switch {
	case err != nil && ctx.Err() != nil: // the answer before says more
	case err != nil:
		p.answer = fmt.Sprintf("GET %s on port %d: %s", path, port, err)
	default:
		p.answer = fmt.Sprintf("GET %s answered %d", path, status)
	}
	return err == nil && status >= 200 && status < 400
}

// request makes a request, given by its first line, on a connection of its own and returns the status of the answer.
func (p *prober) request(ctx context.Context, port int, line string, limit time.Duration) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	conn, err := p.box.Dial(ctx, port)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	_, err = fmt.Fprintf(conn, "%s\r\nHost: localhost\r\nUser-Agent: lull\r\nConnection: close\r\n\r\n", line)
	if err != nil {
		return 0, err
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, err
	}
	response.Body.Close()
	return response.StatusCode, nil
}

// explain says why the app did not become ready.
func (p *prober) explain(limit time.Duration) *failure {
	manifest := p.release.Manifest
	told := p.ports.told
	fail := &failure{class: "not-ready",
		advice: fmt.Sprintf("Let it listen on the port in $PORT (%d), or raise timeout.start if it needs longer.", told)}
	var places []string
	for _, l := range p.open {
		places = append(places, l.Addr.String())
	}
	switch {
	case p.lastly != nil:
		fail.what = fmt.Sprintf("was not ready within %s: what it listens on cannot be seen: %s", round(limit), p.lastly)
	case p.answer != "":
		fail.what = fmt.Sprintf("was not ready within %s: %s", round(limit), p.answer)
		fail.advice = fmt.Sprintf("Let %s answer 2xx or 3xx once the app can serve, or take ready out of lull.yaml.", manifest.Ready)
	case len(places) == 0:
		fail.what = fmt.Sprintf("listens on no port, %s after its start", round(limit))
	default:
		fail.what = fmt.Sprintf("listens on %s, which does not speak HTTP, and not on $PORT (%d), %s after its start",
			strings.Join(places, ", "), told, round(limit))
	}
	return fail
}
