package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/lull-dev/lull/e2e/rig"
)

// exchange is one request and its answer, and how long that took.
type exchange struct {
	took   time.Duration
	body   string
	header http.Header
}

// ask sends one GET request, reads the answer and takes the time. The answer must be 200.
func ask(ctx context.Context, client *http.Client, url string) (exchange, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return exchange{}, err
	}
	start := time.Now()
	resp, err := client.Do(req)
	if err != nil {
		return exchange{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	took := time.Since(start)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s: %.300s", url, resp.Status, body)
	}
	return exchange{took, string(body), resp.Header}, err
}

// awaitEnvironments waits until an app's environments are as wanted.
func awaitEnvironments(ctx context.Context, node *rig.Node, app string, wanted func([]rig.Environment) bool) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		up, err := node.Environments(ctx, app)
		if err != nil {
			return err
		}
		if wanted(up) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("environments of %s are still %+v: %w", app, up, ctx.Err())
		case <-again.C:
		}
	}
}

// bare is the app without Lull: a plain child process.
type bare struct {
	cmd     *exec.Cmd
	address string
}

// startBare starts the app as a plain process and returns at once.
func startBare() (*bare, error) { return startBareIn(appDir()) }

// startBareIn is startBare for the server in a directory.
func startBareIn(dir string) (*bare, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("node", "server.js")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PORT="+portOf(address))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start node server.js: %w", err)
	}
	return &bare{cmd, address}, nil
}

func (s *bare) stop() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait() // it has been killed
}

// awaitAnswer asks until the server at address answers, at intervals far shorter than a start.
func awaitAnswer(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	client := rig.ClientOf(address)
	defer client.CloseIdleConnections()
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	for {
		_, err := ask(ctx, client, "http://"+address+"/")
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no answer from %s: %w", address, err)
		case <-again.C:
		}
	}
}

// waited returns what an answer says it waited for its place.
func waited(header http.Header) time.Duration {
	for _, param := range strings.Split(header.Get("Server-Timing"), ";") {
		if text, ok := strings.CutPrefix(strings.TrimSpace(param), "dur="); ok {
			ms, _ := strconv.ParseFloat(text, 64)
			return time.Duration(ms * float64(time.Millisecond))
		}
	}
	return 0
}
