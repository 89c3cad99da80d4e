package bubble_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/lull-dev/lull/internal/bubble"
)

func TestPassMovesTheClockOfTheBubbleAlone(t *testing.T) {
	outside := time.Now()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		bubble.Pass(24 * time.Hour)
		if passed := time.Since(began); passed != 24*time.Hour {
			t.Errorf("%v passed in the bubble, want a day", passed)
		}
	})
	if real := time.Since(outside); real > time.Minute {
		t.Errorf("a day in the bubble took %v outside", real)
	}
}
