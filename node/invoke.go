package node

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/control"
	"github.com/lull-dev/lull/function"
	"github.com/lull-dev/lull/function/api"
	"github.com/lull-dev/lull/function/queue"
	"github.com/lull-dev/lull/function/socket"
	"github.com/lull-dev/lull/schedule"
	"github.com/lull-dev/lull/store"
)

// openCallers makes what calls apps without a client's request: schedules, and all that invokes functions.
func (n *Node) openCallers(ctx context.Context) (err error) {
	n.invoker = &function.Invoker{Functions: n}
	n.sockets = socket.New(socket.Config{Invoke: n.invokeSocket, Settings: n.socketSettings, Log: n.cfg.Log})
	n.schedules = schedule.New(schedule.Config{Marks: n.store, Do: n.scheduled, Log: n.cfg.Log})
	n.functions = &api.API{Config: api.Config{Token: n.token, Functions: n, Invoker: n.invoker, Queue: n.enqueue, Sockets: n.sockets, Log: n.cfg.Log}}
	n.serviceAPI = control.NewServer(http.HandlerFunc(n.serveEnvironments), n.cfg.Log)
	return nil
}

// openEvents begins to deliver asynchronous events; the apps must be there.
func (n *Node) openEvents(ctx context.Context) (err error) {
	n.events, err = queue.Open(ctx, queue.Config{
		Store: n.store, Invoke: n.invokeEvent, Settings: n.eventSettings, Log: n.cfg.Log, Metrics: n.registry,
	})
	return err
}

func (n *Node) enqueue(ctx context.Context, app, id string, payload store.Payload) error {
	return n.events.Add(ctx, app, id, payload)
}

// eventSettings are how the asynchronous events of an app are delivered: no more at a time than it can work at, and none while
// its current release is no function, as the next one may be.
func (n *Node) eventSettings(name string) (queue.Settings, bool) {
	a := n.known(name)
	if a == nil {
		return queue.Settings{}, false
	}
	m := a.current().Manifest
	if !m.IsFunction() {
		return queue.Settings{MaxAge: lull.DefaultFunction().MaxAge.Std()}, true
	}
	return queue.Settings{Retries: m.Function.Retries, MaxAge: m.Function.MaxAge.Std(), AtOnce: max(m.Concurrency*m.Scale.Max, 1)}, true
}

// invokeEvent delivers an asynchronous event.
func (n *Node) invokeEvent(ctx context.Context, app, id string, payload store.Payload) (failed string, err error) {
	answer, err := n.invoker.Invoke(ctx, function.Invocation{
		App: app, RequestID: id, Payload: bytes.NewReader(payload.Event), ClientContext: payload.ClientContext, Why: "event",
	})
	if err != nil {
		return "", err
	}
	defer answer.Payload.Close()
	said, err := io.ReadAll(io.LimitReader(answer.Payload, 2000))
	if err == nil && answer.FunctionError == "" {
		_, err = io.Copy(io.Discard, answer.Payload)
	}
	if answer.FunctionError != "" {
		return string(said), nil
	}
	return "", err
}

// Events lists the asynchronous invocations of a function, or of all.
func (n *Node) Events(_ context.Context, name string) ([]control.QueuedEvent, error) {
	apps, err := n.named(name)
	if err != nil {
		return nil, err
	}
	rows := []control.QueuedEvent{}
	for _, a := range apps {
		for _, e := range n.events.List(a.name) {
			row := control.QueuedEvent{App: a.name, ID: e.ID, State: control.EventWaiting, Accepted: e.Accepted, Attempts: e.Attempts, LastError: e.LastErr}
			switch {
			case !e.Buried.IsZero():
				row.State, row.Dead = control.EventDead, &e.Buried
			case e.Delivering:
				row.State = control.EventDelivering
			default:
				row.Due = &e.Due
			}
			rows = append(rows, row)
		}
	}
	return rows, nil
}

// EventPayload returns what an asynchronous invocation carries.
func (n *Node) EventPayload(ctx context.Context, name, id string) (control.EventPayload, error) {
	if n.known(name) == nil {
		return control.EventPayload{}, unknown(name)
	}
	payload, err := n.events.Payload(ctx, name, id)
	return control.EventPayload{Event: string(payload.Event), ClientContext: string(payload.ClientContext)}, err
}

// RetryEvent has an asynchronous invocation made now.
func (n *Node) RetryEvent(ctx context.Context, name, id string) error {
	if n.known(name) == nil {
		return unknown(name)
	}
	return n.events.Retry(ctx, name, id)
}

// RemoveEvent deletes an asynchronous invocation.
func (n *Node) RemoveEvent(ctx context.Context, name, id string) error {
	if n.known(name) == nil {
		return unknown(name)
	}
	return n.events.Remove(ctx, name, id)
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
func (n *Node) invokeSocket(ctx context.Context, in socket.Invocation) (answer io.ReadCloser, failed string, err error) {
	got, err := n.invoker.Invoke(ctx, function.Invocation{App: in.App, RequestID: in.RequestID, Payload: bytes.NewReader(in.Event), Why: in.Why})
	if err != nil {
		return nil, "", err
	}
	return got.Payload, got.FunctionError, nil
}
