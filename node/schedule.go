package node

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/function"
	"github.com/lull-dev/lull/schedule"
)

// scheduled carries out a call of a schedule: a request to the app, or an event for a function. It takes as long as the app
// takes to answer.
func (n *Node) scheduled(ctx context.Context, call schedule.Call) error {
	why := "schedule " + call.Name
	if call.Schedule.Event != "" {
		return n.scheduledEvent(ctx, call, why)
	}
	a := n.known(call.App)
	if a == nil {
		return unknown(call.App)
	}
	method := cmp.Or(call.Schedule.Method, http.MethodPost)
	req, err := http.NewRequestWithContext(ctx, method, "http://"+call.App+cmp.Or(call.Schedule.Path, "/"), http.NoBody)
	if err != nil {
		return err
	}
	req.Host = call.App + "." + n.cfg.Domain
	req.Header.Set("User-Agent", "lull-schedule")
	req.Header.Set("Lull-Schedule", call.Name)
	resp, err := a.fleet.Do(ctx, why, req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxScheduled)); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if resp.StatusCode >= 400 {
		return fmt.Errorf("%s %s was answered with %s", method, req.URL.Path, resp.Status)
	}
	return nil
}

// maxScheduled is how much of an answer to a schedule is read before the app is taken to have no end of it.
const maxScheduled = 64 << 20

func (n *Node) scheduledEvent(ctx context.Context, call schedule.Call, why string) error {
	answer, err := n.invoker.Invoke(ctx, function.Invocation{
		App: call.App, Payload: bytes.NewReader([]byte(call.Schedule.Event)), Why: why,
	})
	if err != nil {
		return err
	}
	defer answer.Payload.Close()
	said, err := io.ReadAll(io.LimitReader(answer.Payload, 1000))
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if answer.FunctionError != "" {
		return fmt.Errorf("the function failed: %s", said)
	}
	return nil
}

// setSchedules makes those of a release the app's.
func (n *Node) setSchedules(ctx context.Context, rel lull.Release) error {
	if err := n.schedules.Set(ctx, rel.App, rel.Manifest.Schedules); err != nil {
		return fmt.Errorf("set the schedules of %s: %w", rel.App, err)
	}
	return nil
}
