package store

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/lull-dev/lull"
)

const (
	// recordVersion is written into every record. A record with a higher one was written by a newer Lull.
	recordVersion = 1
	// maxRecord bounds a record: a manifest with thousands of environment variables, or the list of maxReleases.
	maxRecord = 1 << 20
	// maxReleases is how many releases of one app can be kept: about 60 bytes each in the app's record.
	maxReleases = 10_000
)

// appRecord is the one record that says which releases an app has. It is there before anything else of an app and goes
// after everything else: records and archives whose app has none are a sign of damage (sweep.go).
type appRecord struct {
	Version  int       `json:"v"`
	Name     string    `json:"name"`
	Created  time.Time `json:"created"`
	Current  int       `json:"current"`
	Latest   int       `json:"latest"`
	Last     int       `json:"last"` // highest number ever given; 0: its first release is being added
	Removed  bool      `json:"removed,omitempty"`
	Releases []listed  `json:"releases"`
}

// listed is a release of an app: its number, and the id of its record and its archive.
type listed struct {
	Number int    `json:"n"`
	ID     string `json:"id"`
}

// exists reports whether the app is there for callers.
func (r appRecord) exists() bool { return r.Last > 0 && !r.Removed }

func (r appRecord) app() lull.App {
	return lull.App{Name: r.Name, Current: r.Current, Latest: r.Latest, Created: r.Created}
}

func (r appRecord) find(number int) (listed, error) {
	for _, l := range r.Releases {
		if l.Number == number {
			return l, nil
		}
	}
	return listed{}, &lull.Error{
		Kind: lull.KindNotFound, Message: fmt.Sprintf("%s has no release %d", r.Name, number),
		Hint: fmt.Sprintf("`lull releases %s` lists those that are there", r.Name),
	}
}

// Apps returns all apps, by name.
func (s *Store) Apps(ctx context.Context) ([]lull.App, error) {
	records, err := s.readApps(ctx)
	if err != nil {
		return nil, err
	}
	apps := make([]lull.App, 0, len(records))
	for _, record := range records {
		if record.exists() {
			apps = append(apps, record.app())
		}
	}
	return apps, nil
}

// App returns one app, or a lull.KindNotFound.
func (s *Store) App(ctx context.Context, name string) (lull.App, error) {
	record, err := s.existing(ctx, name)
	return record.app(), err
}

// existing returns the record of an app that is there.
func (s *Store) existing(ctx context.Context, name string) (appRecord, error) {
	if !lull.ValidName(name) {
		return appRecord{}, noApp(name)
	}
	record, _, err := s.readApp(ctx, name)
	if err == nil && !record.exists() {
		return appRecord{}, noApp(name)
	}
	return record, err
}

func noApp(name string) error {
	return &lull.Error{
		Kind: lull.KindNotFound, Message: fmt.Sprintf("there is no app %q", name), Hint: "`lull apps` lists those that are there",
	}
}

// Promote makes a release the current one.
func (s *Store) Promote(ctx context.Context, app string, number int) error {
	return s.changeApp(ctx, app, func(record *appRecord) error {
		_, err := record.find(number)
		record.Current, record.Latest = number, max(record.Latest, number)
		return err
	})
}

// RemoveApp deletes an app with all its releases and archives. Its name can be used again, from release 1.
func (s *Store) RemoveApp(ctx context.Context, name string) error {
	gone, err := s.unlistApp(ctx, name)
	if err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	return errors.Join(s.removeFiles(ctx, gone), s.marks.drop(ctx, name+".>"), s.events.drop(ctx, name+".>"))
}

// unlistApp marks an app as removed: with this write neither it nor its releases, which are returned, exist.
func (s *Store) unlistApp(ctx context.Context, name string) (gone []listed, err error) {
	err = s.changeApp(ctx, name, func(record *appRecord) error {
		gone = record.Releases
		record.Removed, record.Releases = true, nil
		return nil
	})
	return gone, err
}

// changeApp changes the record of an app that is there. change is called with the record as it is, again and again until
// nobody else has changed it meanwhile.
func (s *Store) changeApp(ctx context.Context, name string, change func(*appRecord) error) error {
	if !lull.ValidName(name) {
		return noApp(name)
	}
	return s.updateApp(ctx, name, func(record *appRecord) error {
		if !record.exists() {
			return noApp(name)
		}
		return change(record)
	})
}

// errUnchanged is returned by a change that has nothing to change.
var errUnchanged = errors.New("unchanged")

// updateApp is changeApp for a record that may be missing: it then holds only its name.
func (s *Store) updateApp(ctx context.Context, name string, change func(*appRecord) error) error {
	for {
		record, revision, err := s.readApp(ctx, name)
		if err != nil {
			return err
		}
		if err = change(&record); errors.Is(err, errUnchanged) {
			return nil
		} else if err != nil {
			return err
		}
		if err = s.writeApp(ctx, record, revision); !lostRace(err) {
			return explain("write record of "+name, err)
		}
	}
}

// writeApp writes an app's record if its revision is still the given one; 0 is one that is not there.
func (s *Store) writeApp(ctx context.Context, record appRecord, revision uint64) error {
	if err := s.engine.room(); err != nil {
		return err
	}
	data, err := encode(record)
	if err != nil {
		return err
	}
	if revision == 0 {
		_, err = s.apps.Create(ctx, record.Name, data)
	} else {
		_, err = s.apps.Update(ctx, record.Name, data, revision)
	}
	return err
}

// lostRace reports whether a write was refused because somebody else has written first.
func lostRace(err error) bool {
	return errors.Is(err, jetstream.ErrKeyExists) || errors.Is(err, jetstream.ErrKeyRevisionMismatch)
}

// readApp returns an app's record and its revision, which is 0 if there is none.
func (s *Store) readApp(ctx context.Context, name string) (appRecord, uint64, error) {
	entry, err := s.apps.Get(ctx, name)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return appRecord{Version: recordVersion, Name: name}, 0, nil
	}
	if err != nil {
		return appRecord{}, 0, explain("read record of "+name, err)
	}
	record, err := decode[appRecord](entry)
	return record, entry.Revision(), err
}

// readApps returns the records of all apps, by name; also those that do not exist for callers.
func (s *Store) readApps(ctx context.Context) ([]appRecord, error) {
	names, err := subjects(ctx, s.appsStream, appsPrefix)
	if err != nil {
		return nil, explain("list apps", err)
	}
	records := make([]appRecord, 0, len(names))
	for name := range names {
		record, revision, err := s.readApp(ctx, name)
		if err != nil {
			return nil, err
		}
		if revision != 0 { // 0: only JetStream's mark of a deleted one
			records = append(records, record)
		}
	}
	slices.SortFunc(records, func(a, b appRecord) int { return cmp.Compare(a.Name, b.Name) })
	return records, nil
}

// subjects returns what follows prefix in the subjects of a stream. It is one question with one answer, whole or an
// error: the client's own listing of keys ends in the same way when it is complete and when it is cut off, and what is not
// listed here is removed by sweep.
func subjects(ctx context.Context, stream jetstream.Stream, prefix string) (map[string]bool, error) {
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(prefix+">"))
	if err != nil {
		return nil, err
	}
	found := make(map[string]bool, len(info.State.Subjects))
	for subject := range info.State.Subjects {
		found[strings.TrimPrefix(subject, prefix)] = true
	}
	return found, nil
}

// encode writes a record, if it is not too large.
func encode(record any) ([]byte, error) {
	data, err := json.Marshal(record)
	if err != nil {
		return nil, fmt.Errorf("encode record: %w", err)
	}
	if len(data) > maxRecord {
		return nil, &lull.Error{
			Kind: lull.KindTooLarge, Message: fmt.Sprintf("the record of the release takes %s", lull.Size(len(data))),
			Hint: fmt.Sprintf("at most %s is possible: make the manifest smaller", lull.Size(maxRecord)),
		}
	}
	return data, nil
}

// decode reads a record; one that a newer Lull wrote is refused, because to write it back would lose what it added.
func decode[R any](entry jetstream.KeyValueEntry) (record R, err error) {
	var head struct {
		Version int `json:"v"`
	}
	if err = json.Unmarshal(entry.Value(), &head); err == nil {
		if head.Version > recordVersion {
			return record, &lull.Error{
				Kind: lull.KindUnsupported, Message: fmt.Sprintf("the record of %s was written by a newer Lull", entry.Key()),
				Hint: "use that version again",
			}
		}
		err = json.Unmarshal(entry.Value(), &record)
	}
	if err != nil {
		return record, fmt.Errorf("decode record %s: %w", entry.Key(), err)
	}
	return record, nil
}
