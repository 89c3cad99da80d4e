package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/lull-dev/lull/e2e/rig"
)

// connections carry the load; each sends at its share of the rate.
const connections = 50

// forwarding compares the processor time that Lull and Caddy use to forward the same load to the same server.
func (b bench) forwarding(ctx context.Context) (rows []row, err error) {
	if _, err := exec.LookPath("caddy"); err != nil {
		return []row{{what: cpuRow, with: "-", bare: "caddy is not installed", value: "not measured", limit: cpuLimit}}, nil
	}
	node, err := b.start(ctx, "process")
	if err != nil {
		return nil, err
	}
	defer func() { err = stop(ctx, node, err) }()
	if err := b.deploy(ctx, node, "load", "idle: {pause: 1m}\nscale: {max: 1}\n"); err != nil {
		return nil, err
	}
	server, err := startBare()
	if err != nil {
		return nil, err
	}
	defer server.stop()
	proxy, err := b.startCaddy(ctx, server.address)
	if err != nil {
		return nil, err
	}
	defer proxy.stop()
	return b.compare(ctx, target{node.PID(), node.HTTP, node.URL("load", "/")}, proxy.target())
}

const (
	cpuRow   = "Processor time per forwarded request"
	cpuLimit = "1.00 ×"
)

// target is a proxy under load.
type target struct {
	pid     int
	address string
	url     string
}

// compare puts both proxies under load in turn.
func (b bench) compare(ctx context.Context, lull, caddy target) ([]row, error) {
	say("forwarding: %d requests/s for %s, %d times each", b.rate, b.load, b.loadRounds)
	var ours, theirs sample
	for range b.loadRounds {
		for _, t := range []struct {
			target
			into *sample
		}{{lull, &ours}, {caddy, &theirs}} {
			perRequest, err := b.cost(ctx, t.target)
			if err != nil {
				return nil, err
			}
			*t.into = append(*t.into, perRequest)
		}
	}
	ratio := float64(ours.median()) / float64(theirs.median())
	return []row{{
		what: cpuRow, with: ours.String(), bare: theirs.String() + " (Caddy)",
		value: fmt.Sprintf("%.2f ×", ratio), limit: cpuLimit, over: ratio > maxCPURatio,
	}}, nil
}

// cost puts a proxy under load and returns the processor time of its process per request.
func (b bench) cost(ctx context.Context, t target) (time.Duration, error) {
	client := rig.ClientOf(t.address)
	defer client.CloseIdleConnections()
	if _, err := b.fire(ctx, client, t.url, time.Second); err != nil { // opens the connections
		return 0, err
	}
	before, err := rig.CPU(t.pid)
	if err != nil {
		return 0, err
	}
	answered, err := b.fire(ctx, client, t.url, b.load)
	if err != nil {
		return 0, err
	}
	after, err := rig.CPU(t.pid)
	if err != nil {
		return 0, err
	}
	if wanted := int(b.load.Seconds() * float64(b.rate)); answered < wanted*9/10 {
		return 0, fmt.Errorf("%s answered %d requests of %d: this machine is too slow or too busy", t.url, answered, wanted)
	}
	return (after - before) / time.Duration(answered), nil
}

// fire sends requests at the rate for a while and returns how many were answered.
func (b bench) fire(ctx context.Context, client *http.Client, url string, d time.Duration) (answered int, err error) {
	var mu sync.Mutex // guards answered and err
	var sending sync.WaitGroup
	interval := time.Second * connections / time.Duration(b.rate)
	start := time.Now()
	for i := range connections {
		sending.Go(func() {
			first := start.Add(interval * time.Duration(i) / connections)
			n, sendErr := send(ctx, client, url, first, start.Add(d), interval)
			mu.Lock()
			defer mu.Unlock()
			answered += n
			err = errors.Join(err, sendErr)
		})
	}
	sending.Wait()
	return answered, err
}

// send sends a request at every interval, one after the other, until end.
func send(ctx context.Context, client *http.Client, url string, next, end time.Time, interval time.Duration) (int, error) {
	answered := 0
	for ; next.Before(end); next = next.Add(interval) {
		select {
		case <-ctx.Done():
			return answered, ctx.Err()
		case <-time.After(time.Until(next)):
		}
		if _, err := ask(ctx, client, url); err != nil {
			return answered, err
		}
		answered++
	}
	return answered, nil
}

// caddy is a reverse proxy to a server on loopback.
type caddy struct {
	cmd     *exec.Cmd
	address string
}

const caddyfile = `{
	admin off
	auto_https off
}
http://:%s {
	bind 127.0.0.1
	reverse_proxy %s
}
`

func (b bench) startCaddy(ctx context.Context, to string) (*caddy, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(b.dir, "Caddyfile")
	if err := os.WriteFile(file, fmt.Appendf(nil, caddyfile, portOf(address), to), 0o644); err != nil {
		return nil, err
	}
	cmd := exec.Command("caddy", "run", "--config", file, "--adapter", "caddyfile")
	cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+b.dir, "XDG_CONFIG_HOME="+b.dir)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start caddy: %w", err)
	}
	c := &caddy{cmd, address}
	for _, ready := range []string{to, address} {
		if err := awaitAnswer(ctx, ready); err != nil {
			c.stop()
			return nil, err
		}
	}
	return c, nil
}

func (c *caddy) target() target {
	return target{c.cmd.Process.Pid, c.address, "http://" + c.address + "/"}
}

func (c *caddy) stop() {
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait() // it has been killed
}

// freeAddress returns a loopback address that nobody listens on at the moment.
func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}

func portOf(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}
