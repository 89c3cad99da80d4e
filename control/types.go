package control

import (
	"time"

	"github.com/lull-dev/lull"
)

// Deployed is the outcome of a deploy or rollback.
type Deployed struct {
	App     string `json:"app"`
	Release int    `json:"release"`
	URL     string `json:"url"`
}

// AppInfo is a row of "lull apps".
type AppInfo struct {
	Name         string    `json:"name"`
	Release      int       `json:"release"`
	URL          string    `json:"url"`
	Environments int       `json:"environments"` // that are not stopped
	Created      time.Time `json:"created"`
	Deployed     time.Time `json:"deployed"` // when the current release was made
}

// ReleaseInfo is a row of "lull releases".
type ReleaseInfo struct {
	Release int       `json:"release"`
	Current bool      `json:"current"`
	Created time.Time `json:"created"`
	Run     string    `json:"run"`
	Size    lull.Size `json:"sizeBytes"`
}

// Environment is a row of "lull ps". Fields are only ever added.
type Environment struct {
	ID          string       `json:"id"`
	App         string       `json:"app"`
	Release     int          `json:"release"`
	State       lull.State   `json:"state"`
	Exchanges   int          `json:"exchanges"` // in flight
	Streams     int          `json:"streams"`   // open
	Held        int          `json:"held"`      // open while the environment is asleep
	MemoryBytes lull.Size    `json:"memoryBytes"`
	DiskBytes   lull.Size    `json:"diskBytes"`  // of its snapshot, while it is hibernated
	CPUSeconds  float64      `json:"cpuSeconds"` // used since it started
	Since       time.Time    `json:"since"`      // when it came into this state
	Reason      string       `json:"reason"`     // why
	Moves       []Transition `json:"moves,omitempty"`
}

// Transition is one step of an environment on the ladder.
type Transition struct {
	At    time.Time  `json:"at"`
	State lull.State `json:"state"`
	Why   string     `json:"why"`
}

// Schedule is a row of "lull ps --schedules".
type Schedule struct {
	App    string     `json:"app"`
	Name   string     `json:"name"` // or its place in the manifest
	Cron   string     `json:"cron"`
	Zone   string     `json:"zone"`             // of the times in cron
	Next   *time.Time `json:"next,omitempty"`   // due time; nil: never
	Last   *time.Time `json:"last,omitempty"`   // due time that was served last; nil: none yet
	TookMS int64      `json:"tookMs,omitempty"` // the last call
	Result string     `json:"result,omitempty"` // of the last call: ok, or what went wrong; "" if there was none since the node's start
}

// QueuedEvent is a row of "lull events": an asynchronous invocation of a function.
type QueuedEvent struct {
	App       string     `json:"app"`
	ID        string     `json:"id"`
	State     string     `json:"state"` // EventWaiting, EventDelivering or EventDead
	Accepted  time.Time  `json:"accepted"`
	Due       *time.Time `json:"due,omitempty"`  // when it is tried next; nil of one that is being delivered or dead
	Dead      *time.Time `json:"dead,omitempty"` // when it was given up
	Attempts  int        `json:"attempts"`       // that the function has failed
	LastError string     `json:"lastError,omitempty"`
}

// States of a QueuedEvent.
const (
	EventWaiting    = "waiting"
	EventDelivering = "delivering"
	EventDead       = "dead" // given up: a dead letter
)

// EventPayload is what an asynchronous invocation carries: JSON, as it was sent.
type EventPayload struct {
	Event         string `json:"event"`
	ClientContext string `json:"clientContext,omitempty"`
}

// NodeInfo describes a node.
type NodeInfo struct {
	Version  string   `json:"version"`
	Domain   string   `json:"domain"`
	HTTP     string   `json:"http"` // address of the front door
	URL      string   `json:"url"`  // of an app, with <app> for its name: http://<app>.localhost:8080/
	Sandbox  string   `json:"sandbox"`
	Warnings []string `json:"warnings,omitempty"`
}
