package gateway

import (
	"testing"
	"time"
)

// Memory is given back when many have fallen asleep and no more do, and then not again.
func TestLullOfTheRounds(t *testing.T) {
	start := time.Now()
	r := &rounds{slept: manyAsleep - 1, last: start}
	if r.lull(start.Add(time.Hour)) {
		t.Error("given back for a few")
	}
	r.slept++
	if r.lull(start.Add(calmTime - time.Millisecond)) {
		t.Error("given back while others may follow")
	}
	if !r.lull(start.Add(calmTime)) {
		t.Error("not given back")
	}
	if r.lull(start.Add(time.Hour)) {
		t.Error("given back twice")
	}
}
