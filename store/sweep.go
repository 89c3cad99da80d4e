package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// sweep removes what calls that never returned have left behind: records and archives that no app lists, and the records
// of apps that have been removed or never got their first release. It may run only while nobody writes; several nodes that
// share a store must let things grow older than any call first.
//
// JetStream cuts a damaged file off where the damage begins and goes on. To sweep then would remove the rest, so before
// anything is removed everything must make sense: each release that is listed has its record, and what is not listed
// belongs to an app that has one.
func (s *Store) sweep(ctx context.Context) error {
	if err := s.removeMarkers(ctx); err != nil {
		return err
	}
	apps, err := s.readApps(ctx)
	if err != nil {
		return err
	}
	orphans, err := s.orphans(ctx, apps)
	if err != nil {
		return err
	}
	if len(orphans) > 0 {
		s.log.Info("interrupted deploys removed from the store", "count", len(orphans))
	}
	if err := s.removeFiles(ctx, orphans); err != nil {
		return err
	}
	for _, app := range apps {
		if app.exists() {
			continue
		}
		if err := s.apps.Purge(ctx, app.Name); err != nil {
			return explain("remove record of "+app.Name, err)
		}
	}
	return nil
}

// orphans returns what is stored but not listed by any of the apps.
func (s *Store) orphans(ctx context.Context, apps []appRecord) ([]listed, error) {
	records, err := subjects(ctx, s.releasesStream, releasesPrefix)
	if err != nil {
		return nil, explain("list releases", err)
	}
	archives, err := s.archives.ids(ctx)
	if err != nil {
		return nil, explain("list archives", err)
	}
	known := map[string]bool{}
	for _, app := range apps {
		known[app.Name] = true
		for _, l := range app.Releases {
			if !records[l.ID] {
				return nil, s.engine.damaged(releasesBucket, fmt.Errorf("the record of %s@%d is missing", app.Name, l.Number))
			}
			if !archives[l.ID] {
				s.log.Error("files of a release are lost", "app", app.Name, "release", l.Number)
			}
			delete(records, l.ID)
			delete(archives, l.ID)
		}
	}
	for id := range records {
		archives[id] = true
	}
	var orphans []listed
	for id := range archives {
		app, err := s.owner(ctx, id, records[id])
		if err != nil {
			return nil, err
		}
		if app != "" && !known[app] {
			return nil, s.engine.damaged(appsBucket, fmt.Errorf("the record of %s is missing", app))
		}
		orphans = append(orphans, listed{ID: id})
	}
	return orphans, nil
}

// owner returns the app that a record, or else an archive, was stored for; "" for part of an archive.
func (s *Store) owner(ctx context.Context, id string, hasRecord bool) (string, error) {
	if !hasRecord {
		app, err := s.archives.owner(ctx, id)
		return app, explain("read archive "+id, err)
	}
	entry, err := s.releases.Get(ctx, id)
	if err != nil {
		return "", explain("read release "+id, err)
	}
	record, err := decode[releaseRecord](entry)
	return record.Release.App, err
}

// removeMarkers removes what JetStream keeps of deleted keys, which would otherwise grow for ever.
func (s *Store) removeMarkers(ctx context.Context) error {
	var errs []error
	for _, bucket := range []jetstream.KeyValue{s.apps, s.releases} {
		if err := bucket.PurgeDeletes(ctx, jetstream.DeleteMarkersOlderThan(-1)); err != nil {
			errs = append(errs, fmt.Errorf("remove markers of %s: %w", bucket.Bucket(), err))
		}
	}
	return errors.Join(errs...)
}
