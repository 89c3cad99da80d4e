// Package node is a machine that runs "lull serve": it opens the store, the sandboxes, the fleets, the gateway and the
// API in their order, and closes them in the reverse. It carries out what the API asks for.
package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/build"
	"github.com/lull-dev/lull/control"
	"github.com/lull-dev/lull/fleet"
	"github.com/lull-dev/lull/function"
	"github.com/lull-dev/lull/function/api"
	"github.com/lull-dev/lull/function/queue"
	"github.com/lull-dev/lull/function/socket"
	"github.com/lull-dev/lull/gateway"
	"github.com/lull-dev/lull/journal"
	"github.com/lull-dev/lull/schedule"
	"github.com/lull-dev/lull/store"
)

// Node is a running node. Open makes it; Close ends it and waits.
type Node struct {
	cfg        Config
	iso        *isolation
	journal    *journal.Journal
	store      *store.Store
	builder    *build.Builder
	files      *files
	gateway    *gateway.Gateway
	api        *http.Server
	token      string
	toolsDir   string // what is lull.RuntimeDir in an environment
	metrics    *fleet.Metrics
	shared     shared
	sockets    *socket.Hub
	schedules  *schedule.Runner
	invoker    *function.Invoker
	events     *queue.Queue
	functions  *api.API
	services   net.Listener // where environments reach the API of functions
	serviceAPI *http.Server // which serves it
	registry   *prometheus.Registry
	httpAddr   net.Addr
	apiAddr    net.Addr
	serving    sync.WaitGroup // the two accept loops; Close waits for them
	failed     chan error     // what ended an accept loop before Close

	mu     sync.RWMutex
	apps   map[string]*app   // by name
	routes map[string]string // custom domain → app name
}

// Info says where a node that has been opened can be reached.
type Info struct {
	HTTP     string // address of the front door
	API      string // URL of the API
	URL      string // of an app, with <app> in place of its name
	Data     string
	Sandbox  string
	Warnings []string
}

// Open starts a node and returns as soon as it serves. The caller must Close it.
func Open(ctx context.Context, cfg Config) (n *Node, err error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if cfg.Data, err = filepath.Abs(cfg.Data); err != nil {
		return nil, fmt.Errorf("find the data directory: %w", err)
	}
	n = &Node{cfg: cfg, apps: map[string]*app{}, routes: map[string]string{}, failed: make(chan error, 2)}
	defer func() {
		if err != nil {
			drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), cfg.Drain)
			defer cancel()
			n.Close(drain)
		}
	}()
	if err = n.openState(ctx); err != nil {
		return n, err
	}
	if err = n.loadApps(ctx); err != nil {
		return n, err
	}
	n.adopt()
	if err = n.openEvents(ctx); err != nil {
		return n, err
	}
	return n, n.listen()
}

// openState opens everything that does not listen.
func (n *Node) openState(ctx context.Context) (err error) {
	raiseOpenFiles(n.cfg.Log)
	if err = os.MkdirAll(n.cfg.Data, 0o700); err != nil {
		return fmt.Errorf("make the data directory: %w", err)
	}
	// First the store: its lock keeps two nodes from sharing one data directory.
	if n.store, err = store.Open(ctx, filepath.Join(n.cfg.Data, "store"), n.cfg.Log); err != nil {
		return err
	}
	if n.journal, err = journal.Open(filepath.Join(n.cfg.Data, "logs")); err != nil {
		return err
	}
	if n.services, err = listenServices(); err != nil {
		return err
	}
	if n.iso, err = openIsolation(n.cfg, n.servicesPort()); err != nil {
		return err
	}
	for _, warning := range n.iso.warnings {
		n.cfg.Log.Warn(warning)
	}
	if n.files, err = openFiles(n.cfg.Data, n.store); err != nil {
		return err
	}
	if n.shared, err = openShared(n.cfg); err != nil {
		return err
	}
	n.builder = build.New(build.Config{
		Driver: n.iso.driver, Dir: filepath.Join(n.cfg.Data, "build"), Log: n.cfg.Log,
	})
	n.registry = prometheus.NewRegistry()
	n.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	n.metrics = fleet.NewMetrics(n.registry)
	n.registry.MustRegister(n.shared.gauges()...)
	if n.token, err = control.LoadOrCreateToken(n.cfg.Data); err != nil {
		return err
	}
	executable, err := n.executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	if n.toolsDir, err = makeTools(n.cfg.Data, executable); err != nil {
		return err
	}
	return n.openCallers(ctx)
}

// listen opens the front door and the API.
func (n *Node) listen() error {
	front, err := listen("--http", n.cfg.HTTP)
	if err != nil {
		return err
	}
	n.httpAddr = front.Addr()
	back, err := listen("--api", n.cfg.API)
	if err != nil {
		return errors.Join(err, front.Close())
	}
	n.apiAddr = back.Addr()
	n.gateway = gateway.New(gateway.Config{
		Apps: n, Domain: n.cfg.Domain, QuietHeaders: n.cfg.QuietHeaders, Log: n.cfg.Log, Metrics: n.registry,
	})
	n.api = control.NewServer(n.withFunctions(control.Handler(n, []string{n.token},
		promhttp.HandlerFor(n.registry, promhttp.HandlerOpts{}), n.cfg.Log, n.apiHosts()...)), n.cfg.Log)
	n.serve("front door", func() error { return n.gateway.Serve(front) })
	n.serve("API", func() error { return n.api.Serve(back) })
	n.serve("services", func() error { return n.serviceAPI.Serve(ownEnvironments{n.services}) })
	if n.cfg.ConfigDir == "" {
		return nil
	}
	return control.Announce(n.cfg.ConfigDir, n.Info().API, n.cfg.Data)
}

// apiHosts returns the names, besides addresses and localhost, by which the API may be called.
func (n *Node) apiHosts() []string {
	hosts := []string{n.cfg.Domain}
	if name, err := os.Hostname(); err == nil {
		hosts = append(hosts, name)
	}
	return hosts
}

func listen(flag, addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, &lull.Error{Kind: lull.KindConflict, Err: err,
			Message: fmt.Sprintf("listen on %s (%s): %v", addr, flag, err),
			Hint:    "another program may be using it: choose another address with " + flag}
	}
	return l, nil
}

// serve runs an accept loop until its server is shut down; Close waits for it.
func (n *Node) serve(name string, loop func() error) {
	n.serving.Go(func() {
		if err := loop(); err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			n.failed <- fmt.Errorf("serve the %s: %w", name, err)
		}
	})
}

// Run is Open, then ready, then Close as soon as ctx ends or a listener breaks. Exchanges get cfg.Drain to finish; force,
// if not nil, cuts that short.
func Run(ctx context.Context, cfg Config, ready func(Info), force <-chan struct{}) error {
	n, err := Open(ctx, cfg)
	if err != nil {
		return err
	}
	ready(n.Info())
	var broken error
	select {
	case <-ctx.Done():
	case broken = <-n.failed:
	}
	n.cfg.Log.Info("node stopping", "drain", n.cfg.Drain)
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), n.cfg.Drain)
	defer cancel()
	go func() { // ends with drain
		select {
		case <-force:
			cancel()
		case <-drain.Done():
		}
	}()
	err = errors.Join(broken, n.Close(drain))
	n.cfg.Log.Info("node stopped")
	return err
}

// Close stops accepting, lets what is under way finish until ctx ends, puts all environments on disk and closes everything, in
// the reverse order of Open. It works on a node that Open could not finish.
func (n *Node) Close(ctx context.Context) error {
	var errs []error
	if n.api != nil {
		errs = append(errs, stopServer(n.api))
	}
	errs = append(errs, n.drain(ctx))
	// Only now: functions that were at work may have called it.
	if n.serviceAPI != nil {
		errs = append(errs, stopServer(n.serviceAPI))
	} else if n.services != nil {
		errs = append(errs, n.services.Close())
	}
	n.serving.Wait()
	if n.sockets != nil {
		n.sockets.Close()
	}
	n.suspendFleets()
	if n.iso != nil {
		errs = append(errs, n.iso.close())
	}
	if n.journal != nil {
		errs = append(errs, n.journal.Close())
	}
	if n.store != nil {
		errs = append(errs, n.store.Close())
	}
	return errors.Join(errs...)
}

// drain begins nothing new in the apps, and lets exchanges, calls of schedules and deliveries of events finish until ctx ends.
func (n *Node) drain(ctx context.Context) error {
	var work sync.WaitGroup
	if n.schedules != nil {
		work.Go(func() { n.schedules.Close(ctx) })
	}
	if n.events != nil {
		work.Go(func() { n.events.Close(ctx) })
	}
	defer work.Wait()
	if n.gateway == nil {
		return nil
	}
	if err := n.gateway.Shutdown(ctx); ctx.Err() == nil {
		return err
	}
	return nil
}

// stopServer gives API calls a moment: those that follow a log never end by themselves.
func stopServer(server *http.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		return server.Close()
	}
	return nil
}

// Info says where the node can be reached.
func (n *Node) Info() Info {
	return Info{
		HTTP: n.httpAddr.String(), API: "http://" + dialable(n.apiAddr), URL: n.url("<app>"), Data: n.cfg.Data,
		Sandbox: n.iso.driver.Name(), Warnings: n.iso.warnings,
	}
}

// dialable turns a wildcard address into one that can be dialled on this machine.
func dialable(addr net.Addr) string {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return addr.String()
	}
	return fmt.Sprintf("127.0.0.1:%d", tcp.Port)
}

// url returns the address under which clients reach an app.
func (n *Node) url(app string) string {
	host := app + "." + n.cfg.Domain
	if tcp, ok := n.httpAddr.(*net.TCPAddr); ok && tcp.Port != 80 {
		return fmt.Sprintf("http://%s:%d/", host, tcp.Port)
	}
	return "http://" + host + "/"
}
