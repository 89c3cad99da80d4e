// Package store is the durable state of a node: apps, releases and the archives of their files, in NATS JetStream, which
// runs inside this process. What a method has acknowledged is on disk.
//
// An app is one record, and every change to it is one compare-and-set of that record: it lists the app's releases by the
// id of their own records. Whatever no app record lists does not exist, so nothing is ever half-added or half-removed; what
// an interrupted call left lying about is removed by the next Open.
//
//	apps      key-value  <app>         → appRecord {…, releases: [{number, id}, …]}
//	releases  key-value  <id>          → releaseRecord
//	archives  objects    <id>          → the files, as one archive
//	marks     stream     <app>.<schedule>           → the last due time that was served
//	events    stream     <app>.<id>.record|payload  → asynchronous invocations of functions
//
// Nothing above the engine (engine.go) knows that the server is in this process: the same buckets with more replicas are
// the state of several machines.
package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/lull-dev/lull"
)

const (
	appsBucket     = "apps"
	releasesBucket = "releases"
	archivesBucket = "archives"

	appsPrefix     = "$KV." + appsBucket + "."
	releasesPrefix = "$KV." + releasesBucket + "."

	// callTimeout bounds one call of JetStream: a write of a megabyte and its fsync, on a disk that is very busy.
	callTimeout = 30 * time.Second
)

// Store is an open store. Its methods may be called concurrently, also by several nodes that share it.
type Store struct {
	log      *slog.Logger
	engine   *engine
	apps     jetstream.KeyValue
	releases jetstream.KeyValue
	archives *archives
	marks    *shelf
	events   *shelf

	appsStream, releasesStream jetstream.Stream // what is below the key-value buckets
}

// Open starts the store in dir, which it makes if it is not there. The caller must Close it. A directory that a living
// process has open is a lull.KindConflict; one that cannot be read back is refused rather than started anew.
func Open(ctx context.Context, dir string, log *slog.Logger) (*Store, error) {
	engine, err := startEngine(dir, log)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	s := &Store{log: log, engine: engine}
	if err := s.open(ctx); err != nil {
		return nil, fmt.Errorf("open store: %w", errors.Join(err, engine.stop()))
	}
	return s, nil
}

func (s *Store) open(ctx context.Context) error {
	js, err := jetstream.New(s.engine.conn, jetstream.WithDefaultTimeout(callTimeout))
	if err != nil {
		return err
	}
	if err := s.bind(ctx, js); err != nil {
		return err
	}
	if err := s.sweep(ctx); err != nil {
		return fmt.Errorf("remove what was left behind: %w", err)
	}
	return nil
}

// bind finds the buckets. They are made in a new directory only: in another one a missing bucket means that its records
// are lost, and to go on with an empty one would hide it.
func (s *Store) bind(ctx context.Context, js jetstream.JetStream) (err error) {
	if fresh := s.engine.fresh(); fresh || s.engine.old() {
		if fresh {
			err = makeBuckets(ctx, js)
		}
		if err = errors.Join(err, makeShelves(ctx, js)); err != nil {
			return err
		}
		if err := s.engine.mark(); err != nil {
			return err
		}
	}
	if s.marks, err = s.openShelf(ctx, js, marksStream); err != nil {
		return err
	}
	if s.events, err = s.openShelf(ctx, js, eventsStream); err != nil {
		return err
	}
	if s.apps, err = js.KeyValue(ctx, appsBucket); err != nil {
		return s.engine.damaged(appsBucket, err)
	}
	if s.releases, err = js.KeyValue(ctx, releasesBucket); err != nil {
		return s.engine.damaged(releasesBucket, err)
	}
	if s.archives, err = openArchives(ctx, js, s.engine.room); err != nil {
		return s.engine.damaged(archivesBucket, err)
	}
	if s.appsStream, err = s.stream(ctx, js, appsBucket); err != nil {
		return err
	}
	s.releasesStream, err = s.stream(ctx, js, releasesBucket)
	return err
}

func makeBuckets(ctx context.Context, js jetstream.JetStream) error {
	for _, bucket := range []string{appsBucket, releasesBucket} {
		config := jetstream.KeyValueConfig{Bucket: bucket, History: 1, MaxValueSize: maxRecord}
		if _, err := js.CreateOrUpdateKeyValue(ctx, config); err != nil {
			return fmt.Errorf("make bucket %s: %w", bucket, err)
		}
	}
	if _, err := js.CreateOrUpdateObjectStore(ctx, jetstream.ObjectStoreConfig{Bucket: archivesBucket}); err != nil {
		return fmt.Errorf("make bucket %s: %w", archivesBucket, err)
	}
	return nil
}

func makeShelves(ctx context.Context, js jetstream.JetStream) error {
	// JSON makes four bytes of three.
	return errors.Join(makeShelf(ctx, js, marksStream, 1<<10), makeShelf(ctx, js, eventsStream, 2<<20))
}

// stream finds the stream of a key-value bucket. JetStream skips what it cannot read back and says so here only.
func (s *Store) stream(ctx context.Context, js jetstream.JetStream, bucket string) (jetstream.Stream, error) {
	stream, err := js.Stream(ctx, "KV_"+bucket)
	if err != nil {
		return nil, s.engine.damaged(bucket, err)
	}
	if lost := stream.CachedInfo().State.Lost; lost != nil && len(lost.Msgs) > 0 {
		return nil, s.engine.damaged(bucket, fmt.Errorf("%d records cannot be read", len(lost.Msgs)))
	}
	return stream, nil
}

// Close ends the store and waits until everything of it has stopped. Calls under way fail.
func (s *Store) Close() error { return s.engine.stop() }

// explain gives an error of JetStream the words of the caller.
func explain(doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrConnectionDraining):
		return &lull.Error{Kind: lull.KindDraining, Message: doing + ": the store is closed", Err: err}
	}
	return fmt.Errorf("%s: %w", doing, err)
}
