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
	Env         map[string]string `json:"env,omitempty"`
	Concurrency int               `json:"concurrency"` // exchanges in parallel per environment
	Streams     int               `json:"streams"`     // open streams per environment
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
	targetForm = form(`^[A-Za-z0-9._-]{1,253}:([0-9]{1,5})$`)
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
	return append(problems, m.Egress.validate()...)
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
