// Package control is how a node is controlled from outside: the HTTP API, the Go client for it, and the token that says
// who may call it.
//
// Handler serves a Node over HTTP and Client is a Node that lives on another machine (or in another process): both ends
// have the same methods. Errors keep their kind, hint and problems on the way. Long work (a deploy, logs) is answered with
// a stream of JSON lines.
package control

import (
	"context"
	"io"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/journal"
)

// Node is what the API can ask of a node. Its methods may be called concurrently. Errors are or wrap a *lull.Error
// wherever the caller can do something about them; one that does not counts as lull.KindInternal.
type Node interface {
	// Deploy turns an archive into the current release of an app. It calls emit, never concurrently, for each thing worth
	// telling, and returns when the release has the traffic. When ctx ends it gives up and leaves nothing behind, unless
	// the switch to the new release has already begun: then it finishes.
	Deploy(ctx context.Context, req DeployRequest, emit func(Event)) (Deployed, error)

	// Rollback makes an earlier release current; 0 is the one before the current one. ctx and emit are as in Deploy.
	Rollback(ctx context.Context, app string, release int, emit func(Event)) (Deployed, error)

	// Remove stops an app and deletes everything that is kept of it.
	Remove(ctx context.Context, app string) error

	Apps(ctx context.Context) ([]AppInfo, error)
	Releases(ctx context.Context, app string) ([]ReleaseInfo, error)

	// Environments lists the environments of one app, or of all for "".
	Environments(ctx context.Context, app string) ([]Environment, error)

	// Schedules lists the schedules of one app, or of all for "".
	Schedules(ctx context.Context, app string) ([]Schedule, error)

	// Events lists the asynchronous invocations of one function, or of all for "": dead letters, and those that are not done.
	Events(ctx context.Context, app string) ([]QueuedEvent, error)
	// EventPayload returns what an event carries.
	EventPayload(ctx context.Context, app, id string) (EventPayload, error)
	// RetryEvent delivers an event now, a dead letter as if it were new.
	RetryEvent(ctx context.Context, app, id string) error
	// RemoveEvent deletes a dead letter, or an event that waits.
	RemoveEvent(ctx context.Context, app, id string) error

	// Logs calls fn, never concurrently, for each entry the query asks for, oldest first. It returns when there are no
	// more, when ctx ends, or with the first error of fn.
	Logs(ctx context.Context, app string, query LogQuery, fn func(LogEntry) error) error

	NodeInfo(ctx context.Context) (NodeInfo, error)
}

// DeployRequest is what is deployed.
type DeployRequest struct {
	App string // its name; "": what the manifest says

	// Manifest says what the app is; nil: what the lull.yaml in the archive says. It is complete, and the node checks it.
	Manifest *lull.Manifest

	// Archive holds the app's directory, as package build/archive packs it. Read it to its end: only then does a caller
	// who goes away cancel the context of the deploy.
	Archive io.Reader
}

// The phases of a deploy, in their order.
const (
	PhaseUpload = "upload" // the archive is being received
	PhaseBuild  = "build"  // the build runs; Text is what it prints
	PhaseStore  = "store"  // the release is being stored
	PhaseStart  = "start"  // an environment of it is being started
	PhaseSwitch = "switch" // it is getting the traffic
)

// Event is something that happened during a deploy or rollback.
type Event struct {
	Phase string `json:"phase"`
	Text  string `json:"text,omitempty"` // for people; may be several lines; empty where a phase just begins
}

// LogQuery says which log entries are wanted.
type LogQuery struct {
	Last        int    // only the last so many of what is kept; 0 is everything, less than 0 nothing
	Environment string // only this environment's; "" is all
	Follow      bool   // and then those to come
}

// LogEntry is one line of an environment's output.
type LogEntry = journal.Entry
