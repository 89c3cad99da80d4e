package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/lull-dev/lull"
)

const marksStream = "marks"

// Mark remembers the last due time of a schedule that was served. Once it has returned that is on disk.
func (s *Store) Mark(ctx context.Context, app, schedule string, due time.Time) error {
	if !lull.ValidName(app) || !lull.ValidName(schedule) {
		return fmt.Errorf("mark schedule %q of %q: no such names", schedule, app)
	}
	return explain("mark schedule "+schedule+" of "+app, s.marks.put(ctx, app+"."+schedule, []byte(due.UTC().Format(time.RFC3339Nano))))
}

// Marks returns what Mark has remembered of an app, by schedule.
func (s *Store) Marks(ctx context.Context, app string) (map[string]time.Time, error) {
	marks := map[string]time.Time{}
	if !lull.ValidName(app) {
		return marks, nil
	}
	paths, err := s.marks.list(ctx, app+".*")
	if err != nil {
		return nil, explain("list the schedules of "+app, err)
	}
	for _, path := range paths {
		text, err := s.marks.get(ctx, path)
		if err != nil {
			return nil, explain("read the schedules of "+app, err)
		}
		due, err := time.Parse(time.RFC3339Nano, string(text))
		if err != nil {
			return nil, s.engine.damaged(marksStream, err)
		}
		_, name, _ := strings.Cut(path, ".")
		marks[name] = due
	}
	return marks, nil
}
