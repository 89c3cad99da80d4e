package lull

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// Manifest is what an app asks for: the content of lull.yaml. Package manifest reads it from text; a build completes it.
type Manifest struct {
	Name        string            `json:"name"`
	Run         string            `json:"run,omitempty"`
	Build       string            `json:"build,omitempty"`
	Port        int               `json:"port"`
	Image       string            `json:"image,omitempty"`
	Dockerfile  string            `json:"dockerfile,omitempty"` // path of one in the app's files, which an image is built from
	Dir         string            `json:"dir,omitempty"`        // where the files lie in an environment; "": AppDir, TaskDir for a function
	Function    Function          `json:"function,omitzero"`    // instead of run
	Static      Static            `json:"static,omitzero"`      // files that are served as they are, instead of run
	Env         map[string]string `json:"env,omitempty"`
	Concurrency int               `json:"concurrency"` // exchanges in parallel per environment
	Streams     int               `json:"streams"`     // open streams per environment; per node where those are the node's
	Scale       Scale             `json:"scale"`
	Idle        Idle              `json:"idle"`
	Stream      Stream            `json:"stream"`
	Affinity    string            `json:"affinity"`
	Timeout     Timeout           `json:"timeout"`
	Queue       int               `json:"queue"` // connections that may wait for a place
	Resources   Resources         `json:"resources"`
	Ready       string            `json:"ready,omitempty"` // a path that answers 2xx or 3xx once the app is ready; "": the port accepts
	Egress      Egress            `json:"egress"`
	Domains     []string          `json:"domains,omitempty"`
	Schedules   []Schedule        `json:"schedules,omitempty"`
}

// IsFunction reports whether the app is a function, and IsStatic whether it is files only: it has no environments then.
func (m Manifest) IsFunction() bool { return m.Function.Runtime != "" }
func (m Manifest) IsStatic() bool   { return m.Static.Root != "" }

// FilesDir is where the app's files lie inside an environment that has the host's runtime.
func (m Manifest) FilesDir() string {
	switch {
	case m.Dir != "":
		return m.Dir
	case m.IsFunction():
		return TaskDir
	}
	return AppDir
}

// Function makes an app of a handler that is written for AWS Lambda. It is one if Runtime is set.
type Function struct {
	Handler   string         `json:"handler,omitempty"`  // such as index.handler; what it means is the runtime's business
	Runtime   string         `json:"runtime,omitempty"`  // AWS's identifiers: nodejs22.x, python3.13, provided.al2023
	Payload   string         `json:"payload,omitempty"`  // format of HTTP events: 2.0, 1.0 (REST APIs), alb
	Layers    []string       `json:"layers,omitempty"`   // directories and zip files of the app that make up /opt, the later over the earlier
	Limits    FunctionLimits `json:"limits,omitzero"`    //
	Retries   int            `json:"retries"`            // of an asynchronous invocation that failed
	MaxAge    Duration       `json:"maxAge,omitzero"`    // of an asynchronous invocation; then it is given up
	WebSocket WebSocket      `json:"websocket,omitzero"` // routes of an API Gateway WebSocket API
}

// FunctionLimits bound what goes into a function and comes out of it.
type FunctionLimits struct {
	Request  Size `json:"request,omitzero"`  // an event
	Response Size `json:"response,omitzero"` // an answer in one piece
	Streamed Size `json:"streamed,omitzero"` // an answer that is streamed
}

// WebSocket makes a function the far side of WebSocket connections, which the node holds: it gets an event when one opens, for
// each message, and when one closes, as with an API Gateway WebSocket API. It is on if Route is set.
type WebSocket struct {
	Route   string   `json:"route,omitempty"`  // route selection expression, such as $request.body.action
	Routes  []string `json:"routes,omitempty"` // route keys besides $connect, $disconnect and $default
	Replies bool     `json:"replies,omitzero"` // what the function answers to a message is sent to the client
}

// Static makes an app of files. It is one if Root is set.
type Static struct {
	Root      string     `json:"root,omitempty"`     // directory to serve, relative to the app's
	Fallback  string     `json:"fallback,omitempty"` // what is served where there is no file, such as /index.html for a single-page app
	Redirects []Redirect `json:"redirects,omitempty"`
	Rewrites  []Redirect `json:"rewrites,omitempty"` // where there is no file; Status has no meaning: one to a URL answers 307
}

// Redirect says where a path leads. From may end in /* and hold :names; To may hold :names and :splat for what * stood for.
type Redirect struct {
	From   string `json:"from"`
	To     string `json:"to"`
	Status int    `json:"status,omitempty"` // 0 is 302
}

// Schedule is when an app is called without anybody asking.
type Schedule struct {
	Name   string `json:"name,omitempty"`   // unique within the app; "" is its place in the list
	Cron   string `json:"cron"`             // five fields, or @hourly and the like
	Zone   string `json:"zone,omitempty"`   // IANA time zone; "" is UTC
	Path   string `json:"path,omitempty"`   // is sent a request; / if neither is given
	Method string `json:"method,omitempty"` // of that request; "" is POST
	Event  string `json:"event,omitempty"`  // JSON: instead of a request, a function is invoked with this event
}

// Scale bounds the number of environments.
type Scale struct {
	Min int `json:"min"` // kept up, never paused
	Max int `json:"max"`
}

// Idle says how long an environment is idle before each step down the ladder.
type Idle struct {
	Pause     Duration `json:"pause"`
	Hibernate Duration `json:"hibernate"`
	Stop      Duration `json:"stop"`
}

// Stream says what happens to streams on which no data moves.
type Stream struct {
	Quiet   Duration `json:"quiet"`   // without data for this long a stream is quiet and does not keep its environment up
	Hold    string   `json:"hold"`    // disk | memory | off
	Tick    Duration `json:"tick"`    // how often a paused environment with held streams runs for a moment
	Timeout Duration `json:"timeout"` // a quiet stream is closed after this long; 0 is never
}

// Timeout bounds the waiting.
type Timeout struct {
	Start   Duration `json:"start"`   // from the start of the process until the app is ready
	Request Duration `json:"request"` // from the last byte of the request until the first byte of the answer
	Queue   Duration `json:"queue"`   // in the queue for a place
}

// Resources are the limits of one environment.
type Resources struct {
	Memory    Size    `json:"memory"`
	CPU       float64 `json:"cpu"` // in processors
	Disk      Size    `json:"disk"`
	Processes int     `json:"processes"`
}

// Egress is where an environment may connect to: "internet", "none", or a list of CIDRs and host:port pairs. Whatever it
// says, the configured name server can be reached unless it is "none", and the host itself, other environments, private
// ranges and the metadata address cannot, unless they are listed.
type Egress []string

const (
	EgressInternet = "internet"
	EgressNone     = "none"
)

// DefaultManifest returns the values of everything a manifest leaves out.
func DefaultManifest() Manifest {
	return Manifest{
		Port:        DefaultPort,
		Concurrency: 100,
		Streams:     10000,
		Scale:       Scale{Min: 0, Max: 10},
		Idle:        Idle{Pause: seconds(2), Hibernate: seconds(300), Stop: seconds(168 * 3600)},
		Stream:      Stream{Quiet: seconds(30), Hold: "disk", Tick: seconds(15)},
		Affinity:    "auto",
		Timeout:     Timeout{Start: seconds(60), Request: seconds(300), Queue: seconds(60)},
		Queue:       10000,
		Resources:   Resources{Memory: 256 * MB, CPU: 1, Disk: 512 * MB, Processes: 512},
		Egress:      Egress{EgressInternet},
	}
}

// DefaultFunction returns the values of what a function leaves out.
func DefaultFunction() Function {
	return Function{Payload: "2.0", Limits: FunctionLimits{Request: 6 * MB, Response: 6 * MB, Streamed: 200 * MB}, Retries: 2, MaxAge: seconds(6 * 3600)}
}

func seconds(n int64) Duration { return Duration(n * int64(time.Second)) }

// Problem is one thing that is wrong with a manifest. Path names the key, such as scale.max.
type Problem struct {
	Path    string
	Message string
}

// Compiled at their first use: this package is in every sandbox, whose start they would slow down.
var (
	nameForm   = form(`^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$`)
	envForm    = form(`^[A-Za-z_][A-Za-z0-9_]*$`)
	domainForm = form(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9-]{1,63}$`)
	dirForm    = form(`^(/[A-Za-z0-9_-][A-Za-z0-9._-]*){1,8}$`)
	// Java, Ruby and .NET have runtimes of their own on AWS, which are not here; they run with a bootstrap.
	runtimeForm = form(`^(nodejs[0-9.x]*|python[0-9.x]*|provided(\.al2|\.al2023)?|go1\.x)$`)
	methodForm  = form(`^[A-Z]{1,16}$`)
	targetForm  = form(`^[A-Za-z0-9._-]{1,253}:([0-9]{1,5})$`)
)

func form(expression string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expression) })
}

// ValidName reports whether name can be an app's name: a DNS label of at most 40 characters, in lower case.
func ValidName(name string) bool {
	return nameForm().MatchString(name) && !strings.Contains(name, "--")
}

// Validate returns everything that is wrong with the manifest, nil if nothing is.
func (m Manifest) Validate() []Problem {
	var problems []Problem
	check := func(ok bool, path, format string, args ...any) {
		if !ok {
			problems = append(problems, Problem{path, fmt.Sprintf(format, args...)})
		}
	}
	between := func(value, low, high int, path string) {
		check(value >= low && value <= high, path, "is %d: it must be from %d to %d", value, low, high)
	}

	check(m.Name == "" || ValidName(m.Name), "name",
		"%q is not a name: use up to 40 lower-case letters, digits and single hyphens, such as my-app", m.Name)
	check(m.Image == "" || m.Build == "", "build", "cannot be given together with image")
	check(m.Dockerfile == "" || m.Build == "", "build", "cannot be given together with dockerfile")
	problems = append(problems, m.oneKind()...)
	check(m.Dir == "" || dirForm().MatchString(m.Dir) && !slices.Contains(reservedDirs, m.Dir), "dir",
		"is %q: it must be an absolute path of plain names, such as /srv/app, that is not the system's", m.Dir)
	between(m.Port, 1, 65535, "port")
	between(m.Concurrency, 1, 100_000, "concurrency")
	between(m.Streams, 1, 1_000_000, "streams")
	between(m.Scale.Min, 0, 1000, "scale.min")
	between(m.Scale.Max, 1, 1000, "scale.max")
	check(m.Scale.Min <= m.Scale.Max, "scale.min", "is %d, more than scale.max (%d)", m.Scale.Min, m.Scale.Max)
	check(m.Idle.Pause > 0, "idle.pause", "must be more than 0")
	check(m.Stream.Quiet > 0, "stream.quiet", "must be more than 0")
	check(slices.Contains([]string{"disk", "memory", "off"}, m.Stream.Hold), "stream.hold",
		"is %q: it must be disk, memory or off", m.Stream.Hold)
	check(slices.Contains([]string{"auto", "cookie", "none"}, m.Affinity), "affinity",
		"is %q: it must be auto, cookie or none", m.Affinity)
	check(m.Timeout.Start > 0, "timeout.start", "must be more than 0")
	check(m.Timeout.Request > 0, "timeout.request", "must be more than 0")
	check(m.Timeout.Queue > 0, "timeout.queue", "must be more than 0")
	between(m.Queue, 0, 1_000_000, "queue")
	check(m.Resources.Memory >= 32*MB, "resources.memory", "is %s: it must be at least 32MB", m.Resources.Memory)
	check(m.Resources.CPU >= 0.05 && m.Resources.CPU <= 256, "resources.cpu", "is %g: it must be from 0.05 to 256", m.Resources.CPU)
	check(m.Resources.Disk >= MB, "resources.disk", "is %s: it must be at least 1MB", m.Resources.Disk)
	between(m.Resources.Processes, 16, 100_000, "resources.processes")
	check(m.Ready == "" || strings.HasPrefix(m.Ready, "/") && !strings.ContainsAny(m.Ready, " \r\n"), "ready",
		"is %q: it must be a path that begins with /", m.Ready)
	for key, value := range m.Env {
		check(envForm().MatchString(key), "env."+key, "is not a name for an environment variable")
		check(!strings.ContainsRune(value, 0), "env."+key, "holds a NUL byte")
	}
	for i, domain := range m.Domains {
		check(domainForm().MatchString(domain), fmt.Sprintf("domains[%d]", i), "%q is not a host name in lower case", domain)
	}
	problems = append(problems, m.Function.validate()...)
	problems = append(problems, m.Static.Problems()...)
	problems = append(problems, validateSchedules(m.Schedules, m.IsFunction())...)
	return append(problems, m.Egress.validate()...)
}

// oneKind reports keys that make different things of an app. An image may have a command of its own, so run goes with it.
func (m Manifest) oneKind() []Problem {
	first := ""
	var problems []Problem
	for _, kind := range []struct {
		key   string
		given bool
	}{
		{"image", m.Image != ""}, {"dockerfile", m.Dockerfile != ""}, {"function", m.IsFunction()}, {"static", m.IsStatic()},
		{"run", m.Run != "" && (m.IsFunction() || m.IsStatic())},
	} {
		switch {
		case kind.given && first != "":
			problems = append(problems, Problem{kind.key, fmt.Sprintf("cannot be given together with %s: an app is one of them", first)})
		case kind.given:
			first = kind.key
		}
	}
	return problems
}

// reservedDirs are directories of an environment that an app's files cannot take the place of.
var reservedDirs = []string{"/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/root", "/run", "/sbin", "/sys",
	"/tmp", "/usr", "/var", "/var/run", "/var/tmp", LayersDir, RuntimeDir}

func (f Function) validate() []Problem {
	var problems []Problem
	check := func(ok bool, path, format string, args ...any) {
		if !ok {
			problems = append(problems, Problem{"function." + path, fmt.Sprintf(format, args...)})
		}
	}
	if f.Runtime == "" {
		given := f.Handler != "" || len(f.Layers) > 0 || f.WebSocket.Route != "" || len(f.WebSocket.Routes) > 0
		check(!given, "runtime", "is missing: name one, such as nodejs20.x, python3.11 or provided.al2023")
		return problems
	}
	check(runtimeForm().MatchString(f.Runtime), "runtime", "is %q: it must be a Node, Python or custom runtime of AWS Lambda, such as nodejs20.x, python3.11 or provided.al2023", f.Runtime)
	check(f.Handler != "" || strings.HasPrefix(f.Runtime, "provided") || strings.HasPrefix(f.Runtime, "go"), "handler",
		"is missing: name the file and the function in it, such as index.handler")
	check(len(f.Handler) <= 128 && !strings.ContainsAny(f.Handler, " \t\r\n\x00"), "handler", "is %q: it must be at most 128 characters without spaces", f.Handler)
	check(slices.Contains([]string{"2.0", "1.0", "alb"}, f.Payload), "payload", "is %q: it must be \"2.0\", \"1.0\" or alb", f.Payload)
	check(f.Retries >= 0 && f.Retries <= 100, "retries", "is %d: it must be from 0 to 100", f.Retries)
	check(f.MaxAge > 0, "maxAge", "must be more than 0")
	for i, layer := range f.Layers {
		check(layer != "" && !strings.HasPrefix(layer, "/") && !slices.Contains(strings.Split(layer, "/"), ".."), fmt.Sprintf("layers[%d]", i),
			"%q is not a path inside the app's directory", layer)
	}
	for _, limit := range []struct {
		path  string
		value Size
	}{{"limits.request", f.Limits.Request}, {"limits.response", f.Limits.Response}, {"limits.streamed", f.Limits.Streamed}} {
		check(limit.value >= KB && limit.value <= 16*GB, limit.path, "is %s: it must be from 1KB to 16GB", limit.value)
	}
	ws := f.WebSocket
	check(ws.Route != "" || len(ws.Routes) == 0 && !ws.Replies, "websocket.route",
		"is missing: say what chooses the route, such as $request.body.action")
	check(ws.Route == "" || strings.HasPrefix(strings.TrimPrefix(ws.Route, "${"), "$request.body") || strings.HasPrefix(ws.Route, "${request.body") || ws.Route == "$default",
		"websocket.route", "is %q: it must be $default or name a field of the message, such as $request.body.action", ws.Route)
	for i, route := range ws.Routes {
		check(route != "" && len(route) <= 128, fmt.Sprintf("websocket.routes[%d]", i), "is %q: it must be 1 to 128 characters", route)
	}
	return problems
}

func validateSchedules(schedules []Schedule, function bool) []Problem {
	var problems []Problem
	names := map[string]bool{}
	for i, s := range schedules {
		check := func(ok bool, key, format string, args ...any) {
			if !ok {
				problems = append(problems, Problem{fmt.Sprintf("schedules[%d].%s", i, key), fmt.Sprintf(format, args...)})
			}
		}
		check(s.Cron != "", "cron", "is missing: say when, such as \"*/5 * * * *\"")
		check(s.Name == "" || ValidName(s.Name), "name", "%q is not a name: use up to 40 lower-case letters, digits and single hyphens", s.Name)
		check(s.Name == "" || !names[s.Name], "name", "%q is given twice", s.Name)
		names[s.Name] = true
		check(s.Path == "" || strings.HasPrefix(s.Path, "/") && !strings.ContainsAny(s.Path, " \r\n"), "path", "is %q: it must be a path that begins with /", s.Path)
		check(s.Method == "" || methodForm().MatchString(s.Method), "method", "is %q: it must be a method such as POST", s.Method)
		check(s.Event == "" || s.Path == "" && s.Method == "", "event", "cannot be given together with path or method")
		check(s.Event == "" || function, "event", "is for functions: give a path that gets a request")
	}
	return problems
}

func (e Egress) validate() []Problem {
	var problems []Problem
	for i, target := range e {
		special := target == EgressInternet || target == EgressNone
		switch {
		case special && len(e) > 1:
			problems = append(problems, Problem{"egress", fmt.Sprintf("%q cannot be given together with others", target)})
		case !special && !validTarget(target):
			problems = append(problems, Problem{fmt.Sprintf("egress[%d]", i),
				fmt.Sprintf("%q is not internet, none, a CIDR such as 10.1.0.0/16 or host:port such as db.example.com:5432", target)})
		}
	}
	return problems
}

func validTarget(target string) bool {
	if _, err := netip.ParsePrefix(target); err == nil {
		return true
	}
	match := targetForm().FindStringSubmatch(target)
	return match != nil && len(match[1]) <= 5 && match[1] != "0"
}
