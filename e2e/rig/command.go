package rig

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// Deployed is what "lull deploy --json" and "lull rollback --json" print.
type Deployed struct {
	App     string `json:"app"`
	Release int    `json:"release"`
	URL     string `json:"url"`
}

// Environment is a row of "lull ps --json".
type Environment struct {
	ID          string    `json:"id"`
	App         string    `json:"app"`
	Release     int       `json:"release"`
	State       string    `json:"state"`
	Exchanges   int       `json:"exchanges"`
	Streams     int       `json:"streams"`
	Held        int       `json:"held"`
	MemoryBytes int64     `json:"memoryBytes"`
	CPUSeconds  float64   `json:"cpuSeconds"`
	Since       time.Time `json:"since"`
	Reason      string    `json:"reason"`
	Moves       []Move    `json:"moves"` // the last ones, oldest first
}

// Move is a step of an environment on the ladder.
type Move struct {
	At    time.Time `json:"at"`
	State string    `json:"state"`
	Why   string    `json:"why"`
}

// Up reports whether the environment is there: not stopped, not failed.
func (e Environment) Up() bool { return e.State != "stopped" && e.State != "failed" }

// App is a row of "lull apps --json".
type App struct {
	Name    string `json:"name"`
	Release int    `json:"release"`
	URL     string `json:"url"`
}

// Release is a row of "lull releases --json".
type Release struct {
	Release int  `json:"release"`
	Current bool `json:"current"`
}

// Deploy deploys a directory under a name.
func (n *Node) Deploy(ctx context.Context, dir, name string) (Deployed, error) {
	var deployed Deployed
	return deployed, n.query(ctx, &deployed, "deploy", dir, "--name", name, "--json")
}

// Rollback goes back to a release; 0 is the one before the current one.
func (n *Node) Rollback(ctx context.Context, app string, release int) (Deployed, error) {
	args := []string{"rollback", app, "--json"}
	if release != 0 {
		args = append(args, fmt.Sprint(release))
	}
	var deployed Deployed
	return deployed, n.query(ctx, &deployed, args...)
}

// Environments lists the environments of an app that are up.
func (n *Node) Environments(ctx context.Context, app string) ([]Environment, error) {
	var all, up []Environment
	if err := n.query(ctx, &all, "ps", app, "--json"); err != nil {
		return nil, err
	}
	for _, e := range all {
		if e.Up() {
			up = append(up, e)
		}
	}
	return up, nil
}

// Apps lists the apps.
func (n *Node) Apps(ctx context.Context) ([]App, error) {
	var apps []App
	return apps, n.query(ctx, &apps, "apps", "--json")
}

// Releases lists the releases of an app.
func (n *Node) Releases(ctx context.Context, app string) ([]Release, error) {
	var releases []Release
	return releases, n.query(ctx, &releases, "releases", app, "--json")
}

// query runs a command that must succeed and reads the JSON it prints.
func (n *Node) query(ctx context.Context, into any, args ...string) error {
	result, err := n.Run(ctx, args...)
	if err != nil {
		return err
	}
	if result.Code != 0 {
		return fmt.Errorf("lull %v: %s", args, result)
	}
	if err := json.Unmarshal([]byte(result.Stdout), into); err != nil {
		return fmt.Errorf("read what lull %v printed: %w\n%s", args, err, result)
	}
	return nil
}
