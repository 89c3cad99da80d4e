package store

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lull-dev/lull"
)

const (
	eventsStream = "events"
	// MaxEvent bounds the payload of an event, with its client context.
	MaxEvent = 1 * lull.MB
)

// Event is an asynchronous invocation of a function, without its payload.
type Event struct {
	App      string    `json:"app"`
	ID       string    `json:"id"`       // letters, digits and hyphens; ids of one app sort in the order in which they were accepted
	Accepted time.Time `json:"accepted"` //
	Due      time.Time `json:"due"`      // when it is to be tried next
	Size     lull.Size `json:"size"`     // of the payload; 0 of an event that an older version stored
	Attempts int       `json:"attempts"` // that the function has failed
	LastErr  string    `json:"lastError,omitempty"`
	Buried   time.Time `json:"buried,omitzero"` // when it was given up; the zero value: it was not
}

// Payload is what an event carries.
type Payload struct {
	Event         []byte `json:"event"`
	ClientContext []byte `json:"clientContext,omitempty"`
}

// Size returns how large a payload is.
func (p Payload) Size() lull.Size { return lull.Size(len(p.Event) + len(p.ClientContext)) }

// AddEvent stores a new event. Once it has returned the event is on disk.
func (s *Store) AddEvent(ctx context.Context, event Event, payload Payload) error {
	if !lull.ValidName(event.App) || !validID(event.ID) {
		return fmt.Errorf("add event %q of %q: no such names", event.ID, event.App)
	}
	if size := payload.Size(); size > MaxEvent {
		return &lull.Error{Kind: lull.KindTooLarge, Message: fmt.Sprintf("an asynchronous event of %s is larger than %s", size, MaxEvent)}
	}
	if err := s.engine.room(); err != nil {
		return err
	}
	data, err := json.Marshal(payload)
	if err != nil {
		return err
	}
	// The payload first: an event is there if its record is.
	if err := s.events.put(ctx, event.App+"."+event.ID+".payload", data); err != nil {
		return explain("store an event of "+event.App, err)
	}
	return s.UpdateEvent(ctx, event)
}

// UpdateEvent stores what has become of an event.
func (s *Store) UpdateEvent(ctx context.Context, event Event) error {
	data, err := json.Marshal(event)
	if err != nil {
		return err
	}
	return explain("store an event of "+event.App, s.events.put(ctx, event.App+"."+event.ID+".record", data))
}

// EventPayload returns what an event carries.
func (s *Store) EventPayload(ctx context.Context, app, id string) (Payload, error) {
	var payload Payload
	var data []byte
	var err error
	if lull.ValidName(app) && validID(id) {
		data, err = s.events.get(ctx, app+"."+id+".payload")
	}
	if err == nil && data == nil {
		return payload, &lull.Error{Kind: lull.KindNotFound, Message: fmt.Sprintf("%s has no event %s", app, id)}
	}
	if err == nil {
		err = json.Unmarshal(data, &payload)
	}
	return payload, explain("read an event of "+app, err)
}

// RemoveEvent forgets an event that is done.
func (s *Store) RemoveEvent(ctx context.Context, app, id string) error {
	return explain("remove an event of "+app, s.events.drop(ctx, app+"."+id+".>"))
}

// Events returns all events, in the order in which they were accepted.
func (s *Store) Events(ctx context.Context) ([]Event, error) {
	paths, err := s.events.list(ctx, ">")
	if err != nil {
		return nil, explain("list events", err)
	}
	var events []Event
	records := map[string]bool{}
	for _, path := range paths {
		base, isRecord := strings.CutSuffix(path, ".record")
		if !isRecord {
			continue
		}
		records[base] = true
		data, err := s.events.get(ctx, path)
		if err != nil {
			return nil, explain("read events", err)
		}
		var event Event
		if err := json.Unmarshal(data, &event); err != nil {
			return nil, s.engine.damaged(eventsStream, err)
		}
		events = append(events, event)
	}
	for _, path := range paths { // a payload without a record was never acknowledged
		if base, is := strings.CutSuffix(path, ".payload"); is && !records[base] {
			if err := s.events.drop(ctx, path); err != nil {
				return nil, explain("remove an event", err)
			}
		}
	}
	slices.SortFunc(events, func(a, b Event) int { return cmp.Or(a.Accepted.Compare(b.Accepted), cmp.Compare(a.ID, b.ID)) })
	return events, nil
}

func validID(id string) bool {
	return id != "" && len(id) <= 64 && strings.Trim(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") == ""
}
