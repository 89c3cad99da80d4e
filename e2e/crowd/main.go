// Command crowd opens many WebSocket connections to a server and keeps them: it sends pings and checks the pongs, counts
// what it hears, and says what it has counted.
//
//	go run ./e2e/crowd -clients 10000 -for 2m http://chat.localhost:8080/room
//
// Each client costs a goroutine, a connection and a fixed buffer, so that ten thousand take some 150 MB. One loopback
// address has about 28,000 ports towards one server; for more clients than that name several with -from.
//
// With -control it takes orders, one a line, from its standard input, and answers each with one line of JSON:
//
//	say TEXT       the first client that is connected sends TEXT
//	say-all TEXT   every client sends TEXT
//	mark           what is counted "since the mark" begins anew
//	report         nothing: the answer to every order is the report
//
// A name that the resolver does not know, such as chat.localhost on some machines, is reached with -dial.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

const helpHead = `crowd: open many WebSocket connections, keep them, count what happens.

usage: crowd [flags] URL          URL is http://host[:port]/path or ws://...

It ends after -for, at SIGINT or SIGTERM, or at the end of its orders with -control, and prints a report. The exit code
is 0 if every client was connected to the end and every ping was answered, 1 if not, 2 for wrong usage.

flags:
`

func main() {
	opts, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "crowd:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	well, err := run(ctx, opts)
	if err != nil {
		fmt.Fprintln(os.Stderr, "crowd:", err)
	}
	if err != nil || !well {
		os.Exit(1)
	}
}

// options are what the command line says.
type options struct {
	target    target
	clients   int
	parallel  int
	from      []string
	ping      time.Duration
	forTime   time.Duration
	reconnect bool
	control   bool
	json      bool
}

func parse(args []string) (options, error) {
	var opts options
	var from, dial string
	flags := flag.NewFlagSet("crowd", flag.ContinueOnError)
	flags.Usage = func() { fmt.Fprint(flags.Output(), helpHead); flags.PrintDefaults() }
	flags.IntVar(&opts.clients, "clients", 100, "how many `clients`")
	flags.IntVar(&opts.parallel, "parallel", 200, "how many connect at a time")
	flags.StringVar(&from, "from", "", "local `addresses` to connect from, separated by commas, such as 127.0.0.2,127.0.0.3; taken in turn")
	flags.StringVar(&dial, "dial", "", "`address` to connect to whatever host the URL names, such as 127.0.0.1:8080")
	flags.DurationVar(&opts.ping, "ping", 10*time.Second, "each client sends a ping so often; 0 is never")
	flags.DurationVar(&opts.forTime, "for", 0, "end after this long; 0 is when told to")
	flags.BoolVar(&opts.reconnect, "reconnect", false, "a client whose connection ends connects again")
	flags.BoolVar(&opts.control, "control", false, "take orders from standard input")
	flags.BoolVar(&opts.json, "json", false, "print the last report as JSON")
	if err := flags.Parse(args); err != nil {
		return opts, err
	}
	if flags.NArg() != 1 {
		return opts, errors.New("name one URL (-help explains)")
	}
	if opts.clients < 1 || opts.parallel < 1 {
		return opts, errors.New("-clients and -parallel must be at least 1")
	}
	if from != "" {
		opts.from = strings.Split(from, ",")
	}
	var err error
	opts.target, err = parseTarget(flags.Arg(0), dial)
	return opts, err
}

// target is the server.
type target struct {
	address string // dialled
	host    string // of the Host header
	path    string
}

func parseTarget(text, dial string) (target, error) {
	u, err := url.Parse(text)
	if err != nil {
		return target{}, err
	}
	if (u.Scheme != "http" && u.Scheme != "ws") || u.Host == "" {
		return target{}, fmt.Errorf("%q is not an http:// or ws:// URL", text)
	}
	t := target{address: u.Host, host: u.Host, path: u.RequestURI()}
	if u.Port() == "" {
		t.address += ":80"
	}
	if dial != "" {
		t.address = dial
	}
	return t, nil
}

// run is a crowd from beginning to end. well is false if a client was not connected to the end or a ping not answered.
func run(ctx context.Context, opts options) (well bool, err error) {
	if err := raiseFileLimit(opts.clients + 64); err != nil {
		return false, err
	}
	if opts.forTime > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, opts.forTime)
		defer cancel()
	}
	c := newCrowd(opts)
	if err := c.gather(ctx); err != nil {
		return false, err
	}
	defer c.leave()
	if opts.ping > 0 {
		go c.pingForever(ctx)
	}
	if opts.control {
		return true, obey(ctx, c, os.Stdin, os.Stdout)
	}
	fmt.Fprintf(os.Stderr, "%d clients connected in %s\n", opts.clients, time.Since(c.began).Round(time.Millisecond))
	<-ctx.Done()
	last := c.report()
	if opts.json {
		err = json.NewEncoder(os.Stdout).Encode(last)
	} else {
		fmt.Print(last)
	}
	return last.Open == last.Clients && last.Late == 0 && last.Reconnects == 0, err
}

// obey carries out orders until there are no more, or ctx ends.
func obey(ctx context.Context, c *crowd, from io.Reader, to io.Writer) error {
	orders := make(chan string)
	go func() { // ends with the input, or with the process
		defer close(orders)
		for lines := bufio.NewScanner(from); lines.Scan(); {
			orders <- lines.Text()
		}
	}()
	out := json.NewEncoder(to)
	if err := out.Encode(c.report()); err != nil { // says that all are connected
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case order, ok := <-orders:
			if !ok {
				return nil
			}
			said := c.report()
			if err := c.obey(order); err != nil {
				said.Error = err.Error()
			} else {
				said = c.report()
			}
			if err := out.Encode(said); err != nil {
				return err
			}
		}
	}
}

// raiseFileLimit makes room for files open at once.
func raiseFileLimit(files int) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	want := uint64(files)
	if limit.Cur >= want {
		return nil
	}
	raised := syscall.Rlimit{Cur: want, Max: max(limit.Max, want)}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &raised); err != nil {
		return fmt.Errorf("%d clients need as many open files, the limit is %d (raise it with ulimit -n): %w", files, limit.Max, err)
	}
	return nil
}
