// Package lull is the vocabulary of the runtime: apps, releases, manifests, the states of an execution
// environment, and errors with a kind. It imports only the standard library; every other package imports it.
//
// A word means one thing everywhere (code, logs, metrics, commands, docs):
//
//   - An App is what a user deploys, by name.
//   - A Release is one immutable version of an app: its files, its manifest, a number.
//   - An environment is one sandbox that runs one release and serves many connections in parallel.
//   - An exchange is one HTTP request and its response.
//   - A stream is an exchange whose answer has begun and stays open.
//   - A node is a machine that runs "lull serve".
package lull

import (
	"fmt"
	"time"
)

// App is what a user deploys. Its name is its address: <name>.<domain>.
type App struct {
	Name    string    `json:"name"`
	Current int       `json:"current"` // number of the release that gets new connections; 0 before the first
	Latest  int       `json:"latest"`  // highest number that was ever current; a release above it is a deploy that did not finish
	Created time.Time `json:"created"`
}

// Release is one immutable version of an app. Numbers count up from 1 and are never used again.
type Release struct {
	App      string    `json:"app"`
	Number   int       `json:"number"`
	Created  time.Time `json:"created"`
	Manifest Manifest  `json:"manifest"` // complete: what the user left out has been found out or has its default
	Process  Process   `json:"process"`
	Files    string    `json:"files"` // name of the archive in the object store that holds the release's files
	Size     Size      `json:"size"`  // of that archive
}

// String returns the release as people write it: chat@3.
func (r Release) String() string { return fmt.Sprintf("%s@%d", r.App, r.Number) }

// Process is how a release is started inside its sandbox. It is found out by the build, once.
type Process struct {
	Args []string `json:"args"`          // the command; Args[0] is looked up in PATH inside the sandbox
	Env  []string `json:"env,omitempty"` // KEY=value, without PORT
	Dir  string   `json:"dir"`           // absolute working directory inside the sandbox
	User string   `json:"user,omitempty"`
	Root Root     `json:"root"`
	Port int      `json:"port"` // told to the app as PORT and tried first; an app may listen elsewhere

	Fixed bool `json:"fixed,omitempty"` // it listens on Port; no other port is tried

	// HTTP is a port on which a function may take requests itself, without the runtime, which listens on Port and is
	// there for all that does not come in; 0: none.
	HTTP int `json:"http,omitempty"`
}

// Root says what a release's root file system is.
type Root string

const (
	// RootHost is the host's /usr, read-only, with a synthetic /etc; the release's files lie in /app.
	RootHost Root = "host"
	// RootImage is the file system of an OCI image: the release's files are the whole root.
	RootImage Root = "image"
)

// AppDir is where the files of a release with RootHost lie inside a sandbox; it is the working directory.
const AppDir = "/app"

// TaskDir is AppDir for a function, as on AWS. RuntimeDir has what Lull brings along to run functions, LayersDir their layers.
const (
	TaskDir    = "/var/task"
	LayersDir  = "/opt"
	RuntimeDir = "/var/runtime"
)

// FunctionPort is Process.HTTP where there is one.
const FunctionPort = 9002

// DefaultPort is the PORT an app is told to listen on unless its manifest says otherwise.
const DefaultPort = 8080
