package scale

import "time"

const (
	backoffFirst = time.Second
	backoffMost  = time.Minute
	// settled is how long an environment has lived when its death says nothing about its start.
	settled = 10 * time.Second
	// forgiven is how many environments in a row may come up and die young before the app is left alone: a request
	// that kills the app is not the same as an app that cannot start.
	forgiven = 2
)

// Backoff keeps an app that dies from being started in a loop: after a start that failed it is left alone for 1 s, then
// 2 s, 4 s, up to a minute. Environments that came up and died within 10 s count as well, from the third in a row. Those
// that were started together and die together count as one. The zero value lets it start. A release has one of its own.
type Backoff struct {
	deaths int
	noted  time.Time // when the last of them was counted
	until  time.Time
}

// Failed notes that an environment, begun at that time, has ended before it was ready.
func (b *Backoff) Failed(now, began time.Time) { b.note(now, began, max(b.deaths, forgiven)+1) }

// Died notes that an environment, begun at that time, has died after having been ready for so long.
func (b *Backoff) Died(now, began time.Time, lived time.Duration) {
	if lived >= settled {
		*b = Backoff{}
		return
	}
	b.note(now, began, b.deaths+1)
}

// Settled notes that an environment has been ready for so long. It ends the back-off if that is long enough.
func (b *Backoff) Settled(lived time.Duration) {
	if lived >= settled {
		*b = Backoff{}
	}
}

func (b *Backoff) note(now, began time.Time, deaths int) {
	if began.Before(b.noted) {
		return
	}
	b.deaths, b.noted = deaths, now
	if deaths <= forgiven {
		return
	}
	delay := backoffMost
	if n := deaths - forgiven - 1; n < 6 {
		delay = min(backoffFirst<<n, backoffMost)
	}
	b.until = now.Add(delay)
}

// Blocked returns how long no environment may be started; 0 when one may.
func (b *Backoff) Blocked(now time.Time) time.Duration { return max(0, b.until.Sub(now)) }

// Until returns when the back-off ends; it may lie in the past.
func (b *Backoff) Until() time.Time { return b.until }
