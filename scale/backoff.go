package scale

import "time"

const (
	// After a start that failed: the next one will fail too, as long as nobody changes something.
	startFirst = time.Second
	startMost  = time.Minute
	// After a crash of what had come up: most requests would be served, and only some of them kill.
	crashFirst = 250 * time.Millisecond
	crashMost  = 5 * time.Second
	// settled is how long an environment has lived when its death says nothing about its start.
	settled = 10 * time.Second
	// forgiven is how many environments in a row may come up and die young before the app is left alone: a request
	// that kills the app is not the same as an app that cannot start.
	forgiven = 2
)

// Backoff keeps an app that dies from being started in a loop: after a start that failed it is left alone for 1 s, then
// 2 s, 4 s, up to a minute. Environments that came up and died within 10 s count from the third in a row, on their own and
// for less: 250 ms, then 500 ms, up to 5 s. Those that were started together and die together count as one. The zero
// value lets it start. A release has one of its own.
type Backoff struct {
	failures int       // to start
	crashes  int       // of young environments
	noted    time.Time // when the last of either was counted
	until    time.Time
}

// Failed notes that an environment, begun at that time, has ended before it was ready.
func (b *Backoff) Failed(now, began time.Time) {
	if began.Before(b.noted) {
		return
	}
	b.failures++
	b.wait(now, startFirst, startMost, b.failures)
}

// Died notes that an environment, begun at that time, has died after having been ready for so long.
func (b *Backoff) Died(now, began time.Time, lived time.Duration) {
	if lived >= settled {
		*b = Backoff{}
		return
	}
	if began.Before(b.noted) {
		return
	}
	b.crashes++
	b.wait(now, crashFirst, crashMost, b.crashes-forgiven)
}

// Settled notes that an environment has been ready for so long. It ends the back-off if that is long enough.
func (b *Backoff) Settled(lived time.Duration) {
	if lived >= settled {
		*b = Backoff{}
	}
}

// wait begins the wait for the nth time: first, then twice as long each time, up to most. A longer one goes on.
func (b *Backoff) wait(now time.Time, first, most time.Duration, n int) {
	b.noted = now
	if n <= 0 {
		return
	}
	delay := min(first<<min(n-1, 10), most)
	if until := now.Add(delay); until.After(b.until) {
		b.until = until
	}
}

// Blocked returns how long no environment may be started; 0 when one may.
func (b *Backoff) Blocked(now time.Time) time.Duration { return max(0, b.until.Sub(now)) }

// Until returns when the back-off ends; it may lie in the past.
func (b *Backoff) Until() time.Time { return b.until }
