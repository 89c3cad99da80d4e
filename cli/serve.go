package cli

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lull-dev/lull"
)

// ServeFunc runs a node until ctx ends, and calls ready once it serves. When ctx has ended it lets exchanges finish; when
// force closes it ends at once. The main package makes it from node.Run: this package knows of the node only what is
// written here, so that commands build and test without the sandbox.
type ServeFunc func(ctx context.Context, opts ServeOptions, ready func(Serving), force <-chan struct{}) error

// ServeOptions is what "lull serve" was told.
type ServeOptions struct {
	Data         string
	HTTP         string
	API          string
	Domain       string
	Sandbox      string // gvisor, process, or "" for what this host can do
	QuietHeaders bool
	Drain        time.Duration // how long exchanges may go on when a release is replaced or the node ends
	Memory       lull.Size     // what all environments may use together; 0: four fifths of the machine's
	Snapshots    lull.Size     // what hibernated environments may take on disk; 0: all but a little
	ConfigDir    string        // where other commands of this user look for the node
	Version      string
	Log          *slog.Logger
}

// Serving says where a node that is up can be reached.
type Serving struct {
	HTTP     string // address of the front door
	API      string // URL of the API
	URL      string // of an app, with <app> in place of its name
	Data     string
	Sandbox  string
	Warnings []string
}

const serveHelp = `Run a node: a front door for apps, an API for "lull deploy", and the sandboxes between them.

On one machine no set-up is needed: the node makes a token, keeps it in DATA/token, and tells the other commands
of this user where it is. From another machine set LULL_API and LULL_TOKEN.

SIGTERM or Ctrl-C lets running exchanges finish, puts the environments on disk, from where they wake after the next
start, and ends; a second one ends at once.`

func (a *app) serveCommand() *cobra.Command {
	var opts ServeOptions
	var level, format string
	cmd := &cobra.Command{
		Use:     "serve",
		Short:   "Run a node",
		GroupID: groupNode,
		Long:    serveHelp,
		Args:    exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := a.logger(level, format)
			if err != nil {
				return err
			}
			if opts.Sandbox != "" && opts.Sandbox != "gvisor" && opts.Sandbox != "process" {
				return &usageError{command: "lull serve", message: fmt.Sprintf("there is no sandbox %q: choose gvisor or process", opts.Sandbox)}
			}
			if opts.Drain <= 0 {
				return &usageError{command: "lull serve", message: "--drain must be more than 0"}
			}
			for _, at := range []struct{ flag, value string }{{"--http", opts.HTTP}, {"--api", opts.API}} {
				if !isAddress(at.value) {
					return &usageError{command: "lull serve", message: fmt.Sprintf(
						"%s %q is not an address: write host:port or :port, such as 127.0.0.1:8080", at.flag, at.value)}
				}
			}
			opts.Log, opts.ConfigDir, opts.Version = log, a.env.UserConfigDir, a.env.Version
			opts.Data = a.path(opts.Data)
			return a.env.Serve(cmd.Context(), opts, a.sayServing, a.force)
		},
	}
	data := "lull-data"
	if a.env.Root {
		data = "/var/lib/lull"
	}
	flags := cmd.Flags()
	flags.StringVar(&opts.Data, "data", data, "`DIR` for everything that is kept")
	flags.StringVar(&opts.HTTP, "http", ":8080", "`ADDRESS` of the front door")
	flags.StringVar(&opts.API, "api", "127.0.0.1:7777", "`ADDRESS` of the API and of /metrics")
	flags.StringVar(&opts.Domain, "domain", "localhost", "apps are reached at <app>.`NAME`")
	flags.StringVar(&opts.Sandbox, "sandbox", "", "gvisor or process; default: gvisor where it can run, which is Linux as root")
	flags.BoolVar(&opts.QuietHeaders, "quiet-headers", false, "leave Lull-Environment and Server-Timing out of answers")
	flags.DurationVar(&opts.Drain, "drain", 30*time.Second, "how long running exchanges may go on when a release is replaced or the node ends")
	flags.Var((*sizeFlag)(&opts.Memory), "memory", "`SIZE` that environments may use together, such as 8GB; 0: four fifths of the machine's memory")
	flags.Var((*sizeFlag)(&opts.Snapshots), "snapshots", "`SIZE` that hibernated environments may take on disk; 0: all but a little")
	flags.StringVar(&level, "log-level", "info", "debug, info, warn or error")
	flags.StringVar(&format, "log-format", "text", "text or json")
	complete(cmd, "sandbox", []string{"gvisor", "process"})
	complete(cmd, "log-level", []string{"debug", "info", "warn", "error"})
	complete(cmd, "log-format", []string{"text", "json"})
	return cmd
}

// sizeFlag is a flag that takes a size: 512MB.
type sizeFlag lull.Size

// String is part of pflag.Value. Nothing is shown as the default for 0, of which the help says what it means.
func (f *sizeFlag) String() string {
	if *f == 0 {
		return ""
	}
	return lull.Size(*f).String()
}

// Set is part of pflag.Value.
func (f *sizeFlag) Set(text string) error {
	size, err := lull.ParseSize(text)
	*f = sizeFlag(size)
	return err
}

// Type is part of pflag.Value.
func (f *sizeFlag) Type() string { return "size" }

// isAddress reports whether something can be listened on at value, as far as its form tells.
func isAddress(value string) bool {
	_, port, err := net.SplitHostPort(value)
	if err != nil {
		return false
	}
	_, err = net.LookupPort("tcp", port)
	return err == nil && port != ""
}

// sayServing prints where the node can be reached and what to do next.
func (a *app) sayServing(s Serving) {
	version := a.env.Version
	if version == noVersion {
		version = "(development build)"
	}
	a.say("lull %s is up", version)
	a.say("  apps     %s  (listening on %s)", s.URL, s.HTTP)
	a.say("  API      %s", s.API)
	a.say("  data     %s", s.Data)
	a.say("  sandbox  %s", s.Sandbox)
	for _, warning := range s.Warnings {
		a.say("warning: %s", warning)
	}
	a.say("deploy a directory with: lull deploy DIR")
}

func (a *app) logger(level, format string) (*slog.Logger, error) {
	var threshold slog.Level
	if err := threshold.UnmarshalText([]byte(level)); err != nil || strings.ContainsAny(level, "+-") {
		return nil, &usageError{command: "lull serve", message: fmt.Sprintf("there is no log level %q: choose debug, info, warn or error", level)}
	}
	opts := &slog.HandlerOptions{Level: threshold}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(a.env.Stderr, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(a.env.Stderr, opts)), nil
	}
	return nil, &usageError{command: "lull serve", message: fmt.Sprintf("there is no log format %q: choose text or json", format)}
}
