package gvisor

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lull-dev/lull/internal/bubble"
)

// A spare is kept as long as something is on disk, however long that is, and goes when nothing has been for a while.
func TestSpareIsKeptWhileSomethingIsOnDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		onDisk, removed := true, 0
		s := &spares{log: slog.New(slog.DiscardHandler), needed: func() bool { return onDisk }}
		s.make = func() (*box, error) {
			b := &box{}
			b.undo.add(func() error { removed++; return nil })
			return b, nil
		}
		s.want()
		bubble.Pass(10 * spareLasts)
		if removed != 0 {
			t.Fatal("the spare was removed while something was on disk")
		}
		onDisk = false
		bubble.Pass(spareLasts + time.Second)
		if removed != 1 {
			t.Fatalf("the spare was removed %d times after nothing was on disk any more, want once", removed)
		}
		if err := s.close(); err != nil {
			t.Fatal(err)
		}
	})
}
