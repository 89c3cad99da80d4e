package control

import (
	"sync"
	"time"
)

// beat is how often a stream that has nothing to say sends an empty line: proxies close a connection that is silent for a
// minute, and a build can be.
const beat = 20 * time.Second

// stream answers a request line by line; each line is one JSON object and is sent at once. The status is 200 from the first
// line on, so an error before it still has its own.
type stream struct {
	quit chan struct{} // closed by stop
	done chan struct{} // closed by runBeat when it has ended

	mu sync.Mutex // held while a line is written: lines do not mix
	w  *answer
}

// startStream begins an answer. The caller must stop it before its handler returns.
func startStream(w *answer) *stream {
	s := &stream{w: w, quit: make(chan struct{}), done: make(chan struct{})}
	w.Header().Set("Content-Type", contentStream)
	w.Header().Set("X-Accel-Buffering", "no") // nginx would collect the lines
	go s.runBeat()                            // ended and waited for by stop
	return s
}

// send sends one line. It fails when the client does not take it.
func (s *stream) send(line any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return writeLine(s.w, line)
}

// event sends an event. That a client has gone is not the event's business: the request's context says so.
func (s *stream) event(event Event) { _ = s.send(line{Event: &event}) }

// runBeat sends the empty lines.
func (s *stream) runBeat() {
	defer close(s.done)
	for {
		select {
		case <-time.After(beat):
			_ = s.send(struct{}{})
		case <-s.quit:
			return
		}
	}
}

// stop ends the empty lines.
func (s *stream) stop() {
	close(s.quit)
	<-s.done
}
