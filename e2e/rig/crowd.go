package rig

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"
)

// CrowdReport is what the crowd program prints; it documents the fields.
type CrowdReport struct {
	Clients     int            `json:"clients"`
	Open        int            `json:"open"`
	Reconnects  int            `json:"reconnects"`
	Closes      map[string]int `json:"closes"`
	Messages    int64          `json:"messages"`
	Pings       int64          `json:"pings"`
	Pongs       int64          `json:"pongs"`
	Late        int64          `json:"late"`
	SlowestMs   float64        `json:"slowestMs"`
	ServerPings int64          `json:"serverPings"`
	Seconds     float64        `json:"seconds"`
	SinceMark   struct {
		Messages int64 `json:"messages"`
		Heard    int   `json:"heard"`
		HeardOne int   `json:"heardOne"`
		Ponged   int   `json:"ponged"`
	} `json:"sinceMark"`
	Error string `json:"error"`
}

// Crowd is a running crowd program under control. The caller ends it with Stop.
type Crowd struct {
	cmd    *exec.Cmd
	stderr strings.Builder
	orders io.WriteCloser

	mu      sync.Mutex // an order and its answer belong together
	reports *json.Decoder
}

// BuildCrowd builds the crowd program into a directory.
func BuildCrowd(ctx context.Context, dir string) (binary string, err error) {
	binary = dir + "/crowd"
	return binary, GoBuild(ctx, "github.com/lull-dev/lull/e2e/crowd", "", binary)
}

// Gather starts a crowd of clients of an app, each of which sends a ping once an interval, and waits until all are
// connected, or ctx ends.
func (n *Node) Gather(ctx context.Context, binary string, clients int, ping time.Duration, app, path string) (*Crowd, error) {
	c := &Crowd{cmd: exec.Command(binary, "-control", "-clients", strconv.Itoa(clients), "-ping", ping.String(),
		"-dial", n.HTTP, n.URL(app, path))}
	c.cmd.Stderr = &c.stderr
	orders, err := c.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	answers, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the crowd: %w", err)
	}
	c.orders, c.reports = orders, json.NewDecoder(answers)
	if _, err := c.read(ctx); err != nil {
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait()
		return nil, fmt.Errorf("gather %d clients of %s: %w\n%s", clients, app, err, c.stderr.String())
	}
	return c, nil
}

// Order gives an order, such as "say hello", and returns the report that answers it.
func (c *Crowd) Order(ctx context.Context, order string) (CrowdReport, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := io.WriteString(c.orders, order+"\n"); err != nil {
		return CrowdReport{}, fmt.Errorf("order the crowd to %q: %w", order, err)
	}
	r, err := c.read(ctx)
	if err == nil && r.Error != "" {
		err = errors.New(r.Error)
	}
	if err != nil {
		err = fmt.Errorf("order the crowd to %q: %w", order, err)
	}
	return r, err
}

// read reads a report; when ctx ends first it kills the crowd, which ends the reading.
func (c *Crowd) read(ctx context.Context) (r CrowdReport, err error) {
	stop := context.AfterFunc(ctx, func() { _ = c.cmd.Process.Kill() })
	defer stop()
	if err := c.reports.Decode(&r); err != nil {
		return r, errors.Join(fmt.Errorf("read what the crowd says: %w", err), ctx.Err())
	}
	return r, nil
}

// Stop lets the crowd leave: without a close frame, as clients do that lose their network.
func (c *Crowd) Stop() {
	c.orders.Close()
	stop := time.AfterFunc(20*time.Second, func() { _ = c.cmd.Process.Kill() })
	defer stop.Stop()
	_ = c.cmd.Wait() // how it ends has no meaning any more
}
