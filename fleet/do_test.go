package fleet_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/sandbox/sandboxtest"
)

// request asks the fleet for a path; its body must be closed.
func (w *world) request(path string) (*http.Response, error) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, "http://chat.localhost"+path, strings.NewReader("x"))
	if err != nil {
		w.t.Fatal(err)
	}
	return w.Do(w.t.Context(), "schedule tick", req)
}

func TestDoKeepsThePlaceUntilTheBodyIsClosed(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "app"))
		for range 2 { // the second time it has to be woken first
			resp, err := w.request("/tick")
			if err != nil {
				t.Fatal(err)
			}
			sleep(time.Minute)
			if status := w.Environments(); len(status) != 1 || status[0].State != lull.Running || status[0].Exchanges != 1 {
				t.Errorf("while the answer is read: %+v", status)
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil || string(body) != "hello" {
				t.Errorf("answer %q, %v", body, err)
			}
			resp.Body.Close()
			resp.Body.Close()
			sleep(time.Minute)
			w.is("paused")
		}
	})
}

func TestDoSaysWhatEndedIt(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		if _, err := w.request("/"); lull.KindOf(err) != lull.KindNotFound {
			t.Errorf("without a release: %v", err)
		}
		w.Use(release(1, "dies"))
		if _, err := w.request("/"); lull.KindOf(err) != lull.KindCrashed {
			t.Errorf("an app that ends meanwhile: %v (%s)", err, lull.KindOf(err))
		}
	})
}

// The answer of a function that is streamed has the end of its log and an error as trailers.
func TestDoTakesLongTrailers(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(release(1, "trailers"))
		resp, err := w.request("/")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if got := len(resp.Trailer.Get("Log") + resp.Trailer.Get("Error")); string(body) != "hello" || err != nil || got != 2*len(longTrailer) {
			t.Errorf("%q, %v, and %d bytes of trailers", body, err, got)
		}
	})
}

var longTrailer = strings.Repeat("x", 4096*4/3)

func withTrailers(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Trailer", "Log, Error")
	io.WriteString(w, "hello")
	w.Header().Set("Log", longTrailer)
	w.Header().Set("Error", longTrailer)
}

// diesAsked is a program that ends when it is asked something.
func diesAsked(p *sandboxtest.Process) int {
	l, err := p.Listen(":8080")
	if err != nil {
		return 1
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			return 1
		}
		if n, _ := conn.Read(make([]byte, 1024)); n > 0 { // not the look whether it is ready
			return 3
		}
	}
}

// A process with a port of its own is not taken to serve another one, whatever it listens on meanwhile.
func TestFixedPort(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		rel := release(1, "literal", func(m *lull.Manifest) { m.Timeout.Start = lull.Duration(5 * time.Second) })
		rel.Process.Fixed = true
		w.Use(rel)
		if _, err := w.refusal(); lull.KindOf(err) != lull.KindStarting {
			t.Errorf("an app that listens elsewhere: %v", err)
		}
	})
}
