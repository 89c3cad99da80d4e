// Package bubble is for tests that run in a bubble of testing/synctest, where time is the bubble's own and passes only
// while every goroutine in it waits.
//
// Importing it into a test binary that is built with the race detector makes the binary run on one processor. The
// runtime keeps one race context for all timers of a bubble, and a goroutine that finds the channel of a due timer
// uses it beside the goroutine that fires the others: the race detector itself then crashes, now and then
// (https://go.dev/issue/78156). What happens before what is still checked.
package bubble

import "time"

// Pass lets d pass on the clock of the bubble the caller is in. Other goroutines of the bubble do meanwhile all they can.
func Pass(d time.Duration) {
	passed := make(chan struct{})
	time.AfterFunc(d, func() { close(passed) })
	<-passed
}
