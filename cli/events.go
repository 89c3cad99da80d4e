package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lull-dev/lull/control"
)

func (a *app) eventsCommand() *cobra.Command {
	var asJSON, all bool
	cmd := &cobra.Command{
		Use:     "events [APP [show|retry|rm ID...]]",
		Short:   "List asynchronous events of functions, deliver dead letters again",
		GroupID: groupLook,
		Long: `List the asynchronous events of one function or of all that are not done.

States: waiting (for its next attempt, or for a place), delivering, dead (given up: a dead letter).
show prints what an event carries, retry has it delivered now, a dead letter as if it were new, rm deletes it.
With --all instead of an ID retry and rm take all dead letters.`,
		Example: "  lull events mailer\n  lull events mailer show 5f0c…\n  lull events mailer retry --all",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 {
				if all {
					return &usageError{command: cmd.CommandPath(), message: "--all goes with retry or rm"}
				}
				return nil
			}
			return checkEventVerb(cmd, args[1], len(args)-2, all)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			node, err := a.node()
			if err != nil {
				return err
			}
			if len(args) >= 2 {
				return a.actOnEvents(cmd.Context(), node, args[0], args[1], args[2:], asJSON)
			}
			events, err := node.Events(cmd.Context(), append(args, "")[0])
			if err != nil {
				return err
			}
			return list(a, asJSON, events, "no events are waiting, and none was given up", a.eventsTable)
		},
	}
	jsonFlag(cmd, &asJSON)
	cmd.Flags().BoolVar(&all, "all", false, "all dead letters")
	a.completeApps(cmd)
	return cmd
}

// checkEventVerb looks at the words after the app.
func checkEventVerb(cmd *cobra.Command, verb string, ids int, all bool) error {
	message := ""
	switch {
	case verb != "show" && verb != "retry" && verb != "rm":
		message = fmt.Sprintf("%q is not something to do with events: show, retry or rm", verb)
	case all && verb == "show":
		message = "--all goes with retry or rm"
	case all && ids > 0:
		message = "either --all or IDs"
	case !all && ids == 0:
		message = verb + " needs the ID of an event: see lull events"
	default:
		return nil
	}
	return &usageError{command: cmd.CommandPath(), message: message}
}

// actOnEvents does to events what the verb says; no ids are all dead letters.
func (a *app) actOnEvents(ctx context.Context, node control.Node, name, verb string, ids []string, asJSON bool) error {
	if len(ids) == 0 {
		events, err := node.Events(ctx, name)
		if err != nil {
			return err
		}
		for _, e := range events {
			if e.State == control.EventDead {
				ids = append(ids, e.ID)
			}
		}
		if len(ids) == 0 {
			a.say("%s has no dead letters", name)
			return nil
		}
	}
	for _, id := range ids {
		if err := a.actOnEvent(ctx, node, name, verb, id, asJSON); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) actOnEvent(ctx context.Context, node control.Node, name, verb, id string, asJSON bool) error {
	switch verb {
	case "retry":
		if err := node.RetryEvent(ctx, name, id); err != nil {
			return err
		}
		a.say("event %s will be delivered again", id)
		return nil
	case "rm":
		if err := node.RemoveEvent(ctx, name, id); err != nil {
			return err
		}
		a.say("deleted event %s", id)
		return nil
	}
	payload, err := node.EventPayload(ctx, name, id)
	if err != nil {
		return err
	}
	if asJSON {
		return writeJSON(a.env.Stdout, payload)
	}
	text := payload.Event
	if a.env.StdoutTerminal {
		text = visibleLines(text)
	}
	_, err = io.WriteString(a.env.Stdout, strings.TrimRight(text, "\n")+"\n")
	return err
}

func (a *app) eventsTable(events []control.QueuedEvent) *table {
	t := newTable("EVENT", "APP", "STATE", "ACCEPTED", "NEXT", ">FAILED", "LAST ERROR")
	for _, e := range events {
		t.row(e.ID, e.App, e.State, a.ago(e.Accepted), moment(e.Due), e.Attempts, firstOf(e.LastError))
	}
	return t
}

// firstOf is as much of an error as a row has room for.
func firstOf(text string) string {
	const most = 100
	runes := []rune(strings.Join(strings.Fields(text), " "))
	if len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return string(runes)
}
