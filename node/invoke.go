package node

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/function"
	"github.com/lull-dev/lull/function/socket"
	"github.com/lull-dev/lull/schedule"
)

// openCallers makes what calls apps without a client's request: schedules, and all that invokes functions.
func (n *Node) openCallers() error {
	n.invoker = &function.Invoker{Functions: n}
	n.sockets = socket.New(socket.Config{Invoke: n.invokeSocket, Settings: n.socketSettings, Log: n.cfg.Log})
	n.schedules = schedule.New(schedule.Config{Marks: n.store, Do: n.scheduled, Log: n.cfg.Log})
	return nil
}

// Function finds a function by its app's name, for the invoker.
func (n *Node) Function(name string) (function.Target, error) {
	a := n.known(name)
	if a == nil {
		return function.Target{}, unknown(name)
	}
	rel := a.current()
	if !rel.Manifest.IsFunction() {
		return function.Target{}, &lull.Error{Kind: lull.KindInvalid, Message: fmt.Sprintf("%s is not a function", name),
			Hint: "send it a request instead"}
	}
	return function.Target{Do: a.fleet.Do, Key: n.invokeKey(name), Manifest: rel.Manifest, Version: rel.Number}, nil
}

// invokeSocket hands an event of a WebSocket connection to its function.
func (n *Node) invokeSocket(ctx context.Context, in socket.Invocation) (answer []byte, failed string, err error) {
	got, err := n.invoker.Invoke(ctx, function.Invocation{App: in.App, RequestID: in.RequestID, Payload: bytes.NewReader(in.Event), Why: in.Why})
	if err != nil {
		return nil, "", err
	}
	defer got.Payload.Close()
	answer, err = io.ReadAll(got.Payload)
	return answer, got.FunctionError, err
}
