// Package schedule calls apps at the times their manifests say. Each due time is served at most once, also over restarts of
// the node: the fact is on disk before the call is made. Of the due times that pass while no node runs, the last one is
// served at the next start, the others are not.
package schedule

import (
	"cmp"
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // a node may run where there is no list of time zones

	"github.com/netresearch/go-cron"

	"github.com/lull-dev/lull"
)

// Times are the due times of a schedule.
type Times struct {
	rule cron.Schedule
	zone *time.Location
}

// maxText bounds a cron expression. The longest useful ones list every minute.
const maxText = 256

// parser reads what crontab(5) has: five fields, names of days and months, and @hourly and the like. Not its @reboot, and
// no @every, whose times would depend on when the node was started.
var parser = cron.MustNewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor)

// Parse reads when a schedule is due.
func Parse(s lull.Schedule) (Times, error) {
	text := strings.TrimSpace(s.Cron)
	if len(text) > maxText || strings.Contains(text, "=") || strings.HasPrefix(text, "@every") {
		return Times{}, fmt.Errorf("is %.40q: write five fields (minute, hour, day of the month, month, day of the week), or @hourly, @daily, @weekly", text)
	}
	zone, err := time.LoadLocation(cmp.Or(s.Zone, "UTC"))
	if err != nil || s.Zone == "Local" {
		return Times{}, &ZoneError{s.Zone}
	}
	rule, err := parser.Parse(text)
	if err != nil {
		return Times{}, fmt.Errorf("is %q: %w", text, err)
	}
	times := Times{rule, zone}
	if times.Next(time.Now()).IsZero() {
		return Times{}, fmt.Errorf("is %q: that day never comes", text)
	}
	return times, nil
}

// ZoneError is about the zone of a schedule rather than its times.
type ZoneError struct{ Zone string }

// Error says what to write instead.
func (e *ZoneError) Error() string {
	return fmt.Sprintf("is %.60q: it must be a time zone such as Europe/Berlin", e.Zone)
}

// Next returns the first due time after t; zero if there is none in the next years.
func (t Times) Next(after time.Time) time.Time { return t.rule.Next(after.In(t.zone)) }

// Last returns the last due time after t that is not after now; zero if there is none.
func (t Times) Last(after, now time.Time) time.Time {
	// From far back the due times are too many to go through: look at ever longer stretches before now instead.
	for back := time.Hour; ; back *= 8 {
		from := now.Add(-back)
		if from.Before(after) {
			from = after
		}
		due := time.Time{}
		for next := t.Next(from); !next.IsZero() && !next.After(now); next = t.Next(next) {
			due = next
		}
		if !due.IsZero() || !from.After(after) {
			return due
		}
	}
}

// Name is what a schedule of a manifest is called: its name, or its place in the list.
func Name(schedules []lull.Schedule, i int) string {
	return cmp.Or(schedules[i].Name, fmt.Sprintf("schedule-%d", i+1))
}

// Check returns what is wrong with the times of schedules, as Manifest.Validate does for all else.
func Check(schedules []lull.Schedule) []lull.Problem {
	var problems []lull.Problem
	for i, s := range schedules {
		if s.Cron == "" {
			continue // which Manifest.Validate reports
		}
		if _, err := Parse(s); err != nil {
			key := "cron"
			if _, zone := err.(*ZoneError); zone {
				key = "zone"
			}
			problems = append(problems, lull.Problem{Path: fmt.Sprintf("schedules[%d].%s", i, key), Message: err.Error()})
		}
	}
	return problems
}
