package node

import (
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/lull-dev/lull/function/api"
	"github.com/lull-dev/lull/network"
)

// Services are what environments may ask of the node: the API of functions, each for its own app. In the network of sandboxes
// they are at network.ServicesAddr; without one, for development, at the port itself.

// listenServices opens the port. It has to be on all addresses, as each environment has a gateway address of its own; who is no
// environment is turned away by ownEnvironments.
func listenServices() (net.Listener, error) {
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		return nil, fmt.Errorf("open the port for environments: %w", err)
	}
	return l, nil
}

func (n *Node) servicesPort() uint16 { return uint16(n.services.Addr().(*net.TCPAddr).Port) }

// servicesURL is where an app's environments find the API of functions.
func (n *Node) servicesURL(app string) string {
	address := network.ServicesAddr.Addr().String() // on port 80
	if n.iso.network == nil {
		address = fmt.Sprintf("127.0.0.1:%d", n.servicesPort())
	}
	return "http://" + address + n.functions.Scoped(app)
}

// ownEnvironments accepts connections of environments only: with addresses that no machine elsewhere has, or from this one.
type ownEnvironments struct{ net.Listener }

func (l ownEnvironments) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if from, ok := conn.RemoteAddr().(*net.TCPAddr); ok && (from.IP.IsLoopback() || network.DefaultPool.Contains(from.AddrPort().Addr().Unmap())) {
			return conn, nil
		}
		conn.Close()
	}
}

// serveEnvironments serves the scoped part of the API only. A connection is closed after each answer: the environment that has it
// may be put on disk any moment, where it would outlive its other end.
func (n *Node) serveEnvironments(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Connection", "close")
	if !api.IsScoped(r.URL.Path) {
		http.NotFound(w, r)
		return
	}
	n.functions.ServeHTTP(w, r)
}

// withFunctions serves the API of functions beside the node's own.
func (n *Node) withFunctions(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if api.Serves(r.URL.Path) && !strings.HasPrefix(r.URL.Path, "/v1/") {
			n.functions.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}
