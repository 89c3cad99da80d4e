package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/fleet"
	"github.com/lull-dev/lull/function/socket"
	"github.com/lull-dev/lull/gateway"
	"github.com/lull-dev/lull/site"
)

// front is what serves the clients of an app: its fleet, the node itself, or now one, now the other.
type front struct {
	fleet *fleet.Fleet
	local *gateway.Local // nil unless the node serves something
	all   bool           // of everything; else of the WebSocket connections of a function
}

// Acquire is for gateway.Fleet.
func (f front) Acquire(ctx context.Context, want fleet.Want) (fleet.Place, error) {
	if f.local != nil && (f.all || want.Upgrade) {
		return f.local.Acquire(ctx, want)
	}
	return f.fleet.Acquire(ctx, want)
}

// siteOf returns what serves the files of a release that is nothing else, nil if it is.
func (n *Node) siteOf(ctx context.Context, rel lull.Release) (http.Handler, error) {
	if !rel.Manifest.IsStatic() {
		return nil, nil
	}
	dir, err := n.files.ensure(ctx, rel)
	if err != nil {
		return nil, fmt.Errorf("put the files of %s in place: %w", rel, err)
	}
	root, err := os.OpenRoot(dir) // closed by its finalizer, when the last request for it has ended
	if err != nil {
		return nil, fmt.Errorf("open the files of %s: %w", rel, err)
	}
	handler, err := site.New(root, rel.Manifest.Static)
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return handler, nil
}

// locally has the node serve handler for an app. a.mu is held.
func (n *Node) locally(a *app, handler http.Handler) {
	if a.local == nil {
		// Its name is new each time: the gateway takes a moment to forget one of an app that was removed.
		name := a.name + "-" + strings.ToLower(rand.Text()[:8])
		a.local = gateway.NewLocal(name, handler, n.cfg.Log.With("app", a.name))
		return
	}
	a.local.Replace(handler)
}

// socketSettings says how many WebSocket clients an app may have, and how their messages are routed.
func (n *Node) socketSettings(name string) (socket.Settings, bool) {
	a := n.known(name)
	if a == nil {
		return socket.Settings{}, false
	}
	m := a.current().Manifest
	f := m.Function
	return socket.Settings{WebSocket: f.WebSocket, MaxMessage: f.Limits.Request, Streams: m.Streams}, f.WebSocket.Route != ""
}
