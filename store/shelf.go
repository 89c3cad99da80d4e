package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// shelf is a stream that keeps the last value of each subject, without a history and without a trace of what was removed: for
// records that come and go often. A value that was put is on disk.
type shelf struct {
	js     jetstream.JetStream
	stream jetstream.Stream
	name   string
}

// makeShelf makes the stream name, whose subjects begin with name.
func makeShelf(ctx context.Context, js jetstream.JetStream, name string, most int32) error {
	_, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: name, Subjects: []string{name + ".>"}, MaxMsgsPerSubject: 1, MaxMsgSize: most, Storage: jetstream.FileStorage,
		AllowDirect: true, Discard: jetstream.DiscardOld,
	})
	if err != nil {
		return fmt.Errorf("make stream %s: %w", name, err)
	}
	return nil
}

func (s *Store) openShelf(ctx context.Context, js jetstream.JetStream, name string) (*shelf, error) {
	stream, err := js.Stream(ctx, name)
	if err != nil {
		return nil, s.engine.damaged(name, err)
	}
	if lost := stream.CachedInfo().State.Lost; lost != nil && len(lost.Msgs) > 0 {
		return nil, s.engine.damaged(name, fmt.Errorf("%d records cannot be read", len(lost.Msgs)))
	}
	return &shelf{js: js, stream: stream, name: name}, nil
}

func (f *shelf) subject(path string) string { return f.name + "." + path }

func (f *shelf) put(ctx context.Context, path string, value []byte) error {
	_, err := f.js.Publish(ctx, f.subject(path), value)
	return err
}

// get returns a value; nil if there is none.
func (f *shelf) get(ctx context.Context, path string) ([]byte, error) {
	message, err := f.stream.GetLastMsgForSubject(ctx, f.subject(path))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return message.Data, nil
}

// list returns the paths that fit a pattern of NATS, such as app.*.
func (f *shelf) list(ctx context.Context, pattern string) ([]string, error) {
	info, err := f.stream.Info(ctx, jetstream.WithSubjectFilter(f.subject(pattern)))
	if err != nil {
		return nil, err
	}
	paths := make([]string, 0, len(info.State.Subjects))
	for subject := range info.State.Subjects {
		paths = append(paths, subject[len(f.name)+1:])
	}
	return paths, nil
}

// drop removes everything that fits a pattern.
func (f *shelf) drop(ctx context.Context, pattern string) error {
	return f.stream.Purge(ctx, jetstream.WithPurgeSubject(f.subject(pattern)))
}
