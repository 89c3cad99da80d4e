package fleet

import (
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Whatever is done to a queue, each connection leaves it once, in the order of coming among those that want the same,
// and is answered if and only if it has not withdrawn.
func TestQueueEndings(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var q queue
		var inside []*waiter // in the order of coming
		endings := map[*waiter]int{}
		withdrawn := map[*waiter]bool{}
		out := func(w *waiter) {
			for i, other := range inside {
				if other == w {
					inside = append(inside[:i:i], inside[i+1:]...)
					return
				}
			}
			t.Fatal("left twice")
		}
		oldest := func(streams bool) *waiter {
			for _, w := range inside {
				if streams || !w.want.Stream {
					return w
				}
			}
			return nil
		}
		t.Repeat(map[string]func(*rapid.T){
			"join": func(t *rapid.T) {
				w := newWaiter(Want{Stream: rapid.Bool().Draw(t, "stream")}, time.Time{})
				q.join(w)
				inside = append(inside, w)
			},
			"serve": func(t *rapid.T) {
				streams := rapid.Bool().Draw(t, "room for streams")
				w := q.first(streams)
				if w != oldest(streams) {
					t.Fatal("not the first come")
				}
				if w != nil {
					q.give(w, answer{place: &place{}})
					endings[w]++
					out(w)
				}
			},
			"withdraw": func(t *rapid.T) {
				if len(inside) == 0 {
					return
				}
				w := rapid.SampledFrom(inside).Draw(t, "who")
				if !q.leave(w) || q.leave(w) {
					t.Fatal("withdrawing counts once")
				}
				q.give(w, answer{}) // too late
				withdrawn[w] = true
				endings[w]++
				out(w)
			},
			"drain": func(*rapid.T) {
				q.drain(errors.New("over"))
				for _, w := range inside {
					endings[w]++
				}
				inside = nil
			},
			"": func(t *rapid.T) {
				if q.len() != len(inside) {
					t.Fatalf("%d are in the queue, want %d", q.len(), len(inside))
				}
				for w, n := range endings {
					if n != 1 || (len(w.answer) == 1) == withdrawn[w] {
						t.Fatalf("ended %d times, withdrawn %v, answers %d", n, withdrawn[w], len(w.answer))
					}
				}
			},
		})
	})
}
