package node

import (
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/lull-dev/lull"
)

// Config is what a node is told at its start. The zero value of a field means its default.
type Config struct {
	Data         string        // directory of everything that is kept
	HTTP         string        // address of the front door; default :8080
	API          string        // address of the API; default 127.0.0.1:7777
	Domain       string        // apps are reached at <app>.<Domain>; default localhost
	Sandbox      string        // gvisor or process; "" picks gvisor where it can run
	QuietHeaders bool          // leave Lull-Environment and Server-Timing out of answers
	ConfigDir    string        // where the command line of the same user finds this node; "" tells nobody
	Version      string        // of the binary
	Executable   string        // static lull binary that sandboxes are started from; "" is the running one
	Drain        time.Duration // how long exchanges may go on when a release is replaced or the node ends; default 30s
	Memory       lull.Size     // what all environments may use together; 0: four fifths of the machine's
	Snapshots    lull.Size     // what the snapshots of hibernated environments may take on disk; 0: all but a little
	Log          *slog.Logger
}

func (c Config) withDefaults() Config {
	setDefault(&c.HTTP, ":8080")
	setDefault(&c.API, "127.0.0.1:7777")
	setDefault(&c.Domain, "localhost")
	setDefault(&c.Data, DefaultData(os.Geteuid()))
	setDefault(&c.Version, "dev")
	if c.Drain == 0 {
		c.Drain = 30 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

func setDefault(field *string, value string) {
	if *field == "" {
		*field = value
	}
}

// DefaultData returns where a node of the user with this id keeps its data: /var/lib/lull as root, else ./lull-data.
func DefaultData(uid int) string {
	if uid == 0 {
		return "/var/lib/lull"
	}
	return "lull-data"
}

func (c Config) check() error {
	for _, addr := range []struct{ flag, value string }{{"--http", c.HTTP}, {"--api", c.API}} {
		if _, _, err := net.SplitHostPort(addr.value); err != nil {
			return &lull.Error{Kind: lull.KindInvalid, Err: err,
				Message: addr.flag + " " + addr.value + " is not an address",
				Hint:    "write host:port or :port, such as 127.0.0.1:8080"}
		}
	}
	return nil
}
