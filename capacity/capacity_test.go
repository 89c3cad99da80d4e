package capacity_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/capacity"
	"github.com/lull-dev/lull/internal/bubble"
)

// sleepers are environments that make room when asked, the idlest first.
type sleepers struct {
	mu    sync.Mutex
	idle  []time.Time
	has   []*capacity.Charge
	asked []int
}

func (s *sleepers) Idlest() (time.Time, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.idle) == 0 {
		return time.Time{}, false
	}
	return s.idle[0], true
}

func (s *sleepers) Yield() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	done := make(chan struct{})
	charge := s.has[0]
	s.asked = append(s.asked, s.idle[0].Minute())
	s.idle, s.has = s.idle[1:], s.has[1:]
	time.AfterFunc(100*time.Millisecond, func() {
		charge.Shrink(0)
		close(done)
	})
	return done
}

func TestMemoryIsGivenInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := capacity.NewMemory(100 * lull.MB)
		first := m.Charge()
		if err := first.Grow(t.Context(), 80*lull.MB); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var order []lull.Size
		for _, size := range []lull.Size{60 * lull.MB, 10 * lull.MB, 30 * lull.MB} {
			go func() {
				if err := m.Charge().Grow(t.Context(), size); err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				order = append(order, size)
			}()
			synctest.Wait()
		}
		bubble.Pass(time.Second)
		synctest.Wait()
		if len(order) > 0 {
			t.Errorf("%v passed the first", order)
		}
		first.Shrink(0)
		synctest.Wait()
		if used, total := m.Used(); len(order) != 3 || used != total {
			t.Errorf("given %v, %s in use", order, used)
		}
	})
}

func TestTheIdlestAreAskedForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := capacity.NewMemory(100 * lull.MB)
		now := time.Now()
		crowd := [2]*sleepers{{}, {}}
		for i, minute := range []int{5, 1, 3, 9, 7} {
			s := crowd[i%2]
			c := m.Charge()
			if err := c.Grow(t.Context(), 20*lull.MB); err != nil {
				t.Fatal(err)
			}
			s.idle, s.has = append(s.idle, now.Truncate(time.Hour).Add(time.Duration(minute)*time.Minute)), append(s.has, c)
		}
		for _, s := range crowd {
			slices.SortFunc(s.idle, time.Time.Compare)
			defer m.Join(s)()
		}
		if err := m.Charge().Grow(t.Context(), 50*lull.MB); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(crowd[0].asked, []int{3, 5}) || !slices.Equal(crowd[1].asked, []int{1}) {
			t.Errorf("asked %v and %v", crowd[0].asked, crowd[1].asked)
		}
		if waited := time.Since(now); waited > 300*time.Millisecond {
			t.Errorf("it took %v", waited)
		}
	})
}

func TestMemoryThatIsNotThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := capacity.NewMemory(100 * lull.MB)
		if err := m.Charge().Grow(t.Context(), 101*lull.MB); !errors.Is(err, capacity.ErrTooLarge) {
			t.Errorf("more than all: %v", err)
		}
		c := m.Charge()
		if err := c.Grow(t.Context(), 100*lull.MB); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := m.Charge().Grow(ctx, lull.MB); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("none came free: %v", err)
		}
		c.Shrink(0)
		if used, _ := m.Used(); used != 0 {
			t.Errorf("%s are in use", used)
		}
		if err := capacity.NewMemory(0).Charge().Grow(t.Context(), 1000*lull.GB); err != nil {
			t.Errorf("without a limit: %v", err)
		}
	})
}

func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := capacity.NewTurns(2)
		var mu sync.Mutex
		var order []int
		for i := range 6 {
			go func() {
				done, err := turns.Take(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				defer done()
				mu.Lock()
				order = append(order, i)
				mu.Unlock()
				bubble.Pass(time.Second)
			}()
			synctest.Wait()
		}
		begun := func() []int {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			return slices.Sorted(slices.Values(order))
		}
		bubble.Pass(time.Second / 2)
		if got := begun(); !slices.Equal(got, []int{0, 1}) {
			t.Errorf("at first %v", got)
		}
		bubble.Pass(time.Second)
		if got := begun(); !slices.Equal(got, []int{0, 1, 2, 3}) {
			t.Errorf("then %v", got)
		}
		bubble.Pass(3 * time.Second)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := turns.Take(ctx); err == nil {
			t.Error("a turn for nobody")
		}
	})
}

// Those that have a charge do not wait behind one that has none and does not fit.
func TestMemoryOfThoseThatHaveSome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := capacity.NewMemory(100 * lull.MB)
		paused, busy := m.Charge(), m.Charge()
		for c, size := range map[*capacity.Charge]lull.Size{paused: 20 * lull.MB, busy: 50 * lull.MB} {
			if err := c.Grow(t.Context(), size); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- m.Charge().Grow(ctx, 90*lull.MB) }()
		synctest.Wait()
		if m.Charge().TryGrow(10 * lull.MB) {
			t.Error("a newcomer has passed one that waits")
		}
		if paused.TryGrow(60 * lull.MB) {
			t.Error("it has got more than there is")
		}
		if !paused.TryGrow(40 * lull.MB) {
			t.Error("it fits, and waits")
		}
		grown := make(chan error)
		go func() { grown <- paused.Grow(t.Context(), 60*lull.MB) }()
		synctest.Wait()
		busy.Shrink(30 * lull.MB)
		if err := <-grown; err != nil {
			t.Error(err)
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if used, _ := m.Used(); used != 90*lull.MB {
			t.Errorf("%s are in use", used)
		}
	})
}
