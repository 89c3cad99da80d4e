package control

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"

	"github.com/lull-dev/lull/internal/bubble"
)

func TestSilentStreamShowsThatItIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := httptest.NewRecorder()
		s := startStream(&answer{ResponseWriter: w, conn: http.NewResponseController(w)})
		s.event(Event{Phase: PhaseBuild})
		bubble.Pass(2*beat + beat/2)
		s.stop()
		bubble.Pass(2 * beat)
		if want := `{"event":{"phase":"build"}}` + "\n{}\n{}\n"; w.Body.String() != want || !w.Flushed {
			t.Errorf("got %q, want %q", w.Body, want)
		}
	})
}
