package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/lull-dev/lull"
)

// releaseRecord is a release as it is kept. Its number is not in here: the app's record gives it.
type releaseRecord struct {
	Version int          `json:"v"`
	Release lull.Release `json:"release"`
}

// AddRelease stores a release and its files, all of what files gives, and returns it with its Number, Files and Size. If
// the app is not there yet it is made, with Current 0. The release exists as soon as, and only if, this returns without an
// error; numbers of an app count up and are never given twice. Release.Files is unique for ever.
func (s *Store) AddRelease(ctx context.Context, rel lull.Release, files io.Reader) (lull.Release, error) {
	if !lull.ValidName(rel.App) {
		return lull.Release{}, &lull.Error{Kind: lull.KindInvalid, Message: fmt.Sprintf("%q is not a name for an app", rel.App)}
	}
	rel.Number, rel.Files = 0, rand.Text()
	if rel.Created.IsZero() {
		rel.Created = time.Now().UTC()
	}
	err := s.expectRelease(ctx, rel)
	if err == nil {
		err = s.putRelease(ctx, &rel, files)
	}
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		// From here on nobody can call it off: what was half said might have been heard.
		err = s.listRelease(context.WithoutCancel(ctx), &rel)
	}
	if err != nil {
		s.discard(ctx, rel, err)
		return lull.Release{}, fmt.Errorf("add release of %s: %w", rel.App, err)
	}
	return rel, nil
}

// expectRelease makes the record of a new app, before anything of it is stored.
func (s *Store) expectRelease(ctx context.Context, rel lull.Release) error {
	return s.updateApp(ctx, rel.App, func(record *appRecord) error {
		switch {
		case len(record.Releases) >= maxReleases:
			return &lull.Error{Kind: lull.KindTooLarge, Message: fmt.Sprintf("%s has %d releases", rel.App, maxReleases),
				Hint: "remove some of them first"}
		case record.exists():
			return errUnchanged
		}
		*record = appRecord{Version: recordVersion, Name: rel.App, Created: rel.Created}
		return nil
	})
}

// putRelease stores the archive and then the record. Nobody can see them yet.
func (s *Store) putRelease(ctx context.Context, rel *lull.Release, files io.Reader) (err error) {
	if rel.Size, err = s.archives.put(ctx, rel.App, rel.Files, files); err != nil {
		return explain("store files", err)
	}
	data, err := encode(releaseRecord{Version: recordVersion, Release: *rel})
	if err != nil {
		return err
	}
	_, err = s.releases.Create(ctx, rel.Files, data)
	return explain("store record", err)
}

// listRelease gives the release its number: with this one write it exists.
func (s *Store) listRelease(ctx context.Context, rel *lull.Release) error {
	return s.updateApp(ctx, rel.App, func(record *appRecord) error {
		if record.Removed || record.Created.IsZero() { // meanwhile
			*record = appRecord{Version: recordVersion, Name: rel.App, Created: rel.Created}
		}
		record.Last++
		rel.Number = record.Last
		record.Releases = append(record.Releases, listed{Number: rel.Number, ID: rel.Files})
		return nil
	})
}

// discard removes what a failed AddRelease has stored. If the outcome of its last write is unknown everything is left
// alone: the next Open knows.
func (s *Store) discard(ctx context.Context, rel lull.Release, cause error) {
	var refused *jetstream.APIError
	if rel.Number != 0 && lull.KindOf(cause) == lull.KindInternal && !errors.As(cause, &refused) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	if err := s.removeFiles(ctx, []listed{{ID: rel.Files}}); err != nil {
		s.log.Debug("failed release left for the next start to remove", "app", rel.App, "error", err)
	}
}

// Release returns one release, or a lull.KindNotFound.
func (s *Store) Release(ctx context.Context, app string, number int) (lull.Release, error) {
	record, err := s.existing(ctx, app)
	if err != nil {
		return lull.Release{}, err
	}
	l, err := record.find(number)
	if err != nil {
		return lull.Release{}, err
	}
	return s.readRelease(ctx, app, l)
}

// Releases returns the releases of an app, by number.
func (s *Store) Releases(ctx context.Context, app string) ([]lull.Release, error) {
	record, err := s.existing(ctx, app)
	if err != nil {
		return nil, err
	}
	releases := make([]lull.Release, 0, len(record.Releases))
	for _, l := range record.Releases {
		rel, err := s.readRelease(ctx, app, l)
		if lull.KindOf(err) == lull.KindNotFound {
			continue // removed since the app's record was read
		}
		if err != nil {
			return nil, err
		}
		releases = append(releases, rel)
	}
	return releases, nil
}

func (s *Store) readRelease(ctx context.Context, app string, l listed) (lull.Release, error) {
	entry, err := s.releases.Get(ctx, l.ID)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return lull.Release{}, &lull.Error{
			Kind: lull.KindNotFound, Message: fmt.Sprintf("%s has no release %d", app, l.Number), Err: err,
		}
	}
	if err != nil {
		return lull.Release{}, explain(fmt.Sprintf("read release %s@%d", app, l.Number), err)
	}
	record, err := decode[releaseRecord](entry)
	record.Release.Number = l.Number
	return record.Release, err
}

// RemoveRelease deletes a release and its files; the current one is a lull.KindConflict.
func (s *Store) RemoveRelease(ctx context.Context, app string, number int) error {
	var removed listed
	err := s.changeApp(ctx, app, func(record *appRecord) (err error) {
		if removed, err = record.find(number); err != nil {
			return err
		}
		if record.Current == number {
			return &lull.Error{Kind: lull.KindConflict, Message: fmt.Sprintf("%s@%d is the current release", app, number),
				Hint: "make another one current first"}
		}
		record.Releases = slices.DeleteFunc(record.Releases, func(l listed) bool { return l == removed })
		return nil
	})
	if err != nil {
		return err
	}
	return s.removeFiles(context.WithoutCancel(ctx), []listed{removed})
}

// Files returns the archive of a release's files. The last Read fails if it is not what was stored. The caller must close
// it; ctx must live as long.
func (s *Store) Files(ctx context.Context, rel lull.Release) (io.ReadCloser, error) {
	r, err := s.archives.get(ctx, rel.Files)
	if errors.Is(err, jetstream.ErrObjectNotFound) || rel.Files == "" {
		return nil, &lull.Error{Kind: lull.KindNotFound, Message: fmt.Sprintf("the files of %s are not in the store", rel), Err: err}
	}
	return r, explain(fmt.Sprintf("read files of %s", rel), err)
}

// removeFiles deletes the records and archives of releases that no app lists any more.
func (s *Store) removeFiles(ctx context.Context, gone []listed) error {
	for _, l := range gone {
		if err := s.releases.Purge(ctx, l.ID); err != nil {
			return explain("remove record", err)
		}
		if err := s.archives.remove(ctx, l.ID); err != nil {
			return explain("remove files", err)
		}
	}
	return nil
}
