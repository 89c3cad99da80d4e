package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// Clients speak at random moments while their server goes up and down the ladder as fast as it can: every message arrives
// exactly once and in order, every request is answered, and every stream ends in the close that its client asked for.
// It runs for 30 s; LULL_E2E_FOR names another duration, and at full length it is 5 minutes.
func TestEveryMessageOnceAndInOrder(t *testing.T) {
	needRoot(t)
	s := ownNode(t, scene.binary, t.TempDir())
	for i := range messengerApps {
		// Different times, so that every pair of steps meets: 20 to 80 ms to the pause, twice that to the disk.
		pause := 20 + 20*i
		s.deploy(copyApp(t, "ws-numbers", map[string]string{"lull.yaml": fmt.Sprintf("scale: {max: 1}\n"+
			"idle: {pause: %dms, hibernate: %dms}\nstream: {quiet: %dms, tick: 200ms}\n", pause, 2*pause, pause)}), messengerApp(i))
	}
	ctx, cancel := context.WithTimeout(t.Context(), propertyTime(t))
	defer cancel()
	m := &messengers{stage: s}
	var talking sync.WaitGroup
	for i := range messengerApps {
		for range 3 {
			talking.Go(func() { m.talk(ctx, messengerApp(i)) })
		}
		talking.Go(func() { m.request(ctx, messengerApp(i)) })
	}
	talking.Wait()

	counters := s.counters()
	wakes, resumes := 0.0, 0.0
	for i := range messengerApps {
		wakes += counters[fmt.Sprintf(`lull_verb_seconds_count{app=%q,verb="wake"}`, messengerApp(i))]
		resumes += counters[fmt.Sprintf(`lull_verb_seconds_count{app=%q,verb="resume"}`, messengerApp(i))]
	}
	t.Logf("%d messages over %d streams, %d requests; %g wakes, %g resumes", m.messages.Load(), m.streams.Load(), m.requests.Load(), wakes, resumes)
	if m.messages.Load() == 0 || wakes == 0 || resumes == 0 {
		t.Error("that was no test: nothing was said, or nothing slept")
	}
}

const messengerApps = 4

func messengerApp(i int) string { return "numbers-" + strconv.Itoa(i) }

func propertyTime(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("LULL_E2E_FOR")
	if text == "" {
		return time.Duration(times(30, 300)) * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// messengers counts what its clients have done.
type messengers struct {
	*stage
	streams, messages, requests atomic.Int64
}

// pass lets a random time pass: mostly about as long as the steps of the ladder, now and then far longer. It returns false
// when ctx has ended.
func pass(ctx context.Context) bool {
	d := time.Duration(rand.IntN(200)) * time.Millisecond
	if rand.IntN(3) == 0 {
		d *= 8
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// talk opens one stream after another and talks over it, until ctx ends.
func (m *messengers) talk(ctx context.Context, app string) {
	for pass(ctx) {
		if err := m.conversation(ctx, app); err != nil {
			m.t.Errorf("%s: %v", app, err)
			return
		}
	}
}

// refusal is what the answer to a request for an upgrade says that was not granted.
func refusal(resp *http.Response) string {
	if resp == nil {
		return "no answer"
	}
	said, _ := io.ReadAll(resp.Body) // the first kilobyte, which is all that a failed Dial leaves
	return fmt.Sprintf("%v %s", resp.Header, said)
}

// conversation is a stream from its opening to its closing. What it waits for comes within answerTime.
func (m *messengers) conversation(ctx context.Context, app string) error {
	const answerTime = 20 * time.Second
	open, cancel := context.WithTimeout(m.t.Context(), answerTime)
	defer cancel()
	conn, resp, err := websocket.Dial(open, m.URL(app, "/"), &websocket.DialOptions{HTTPClient: m.Client()})
	if err != nil {
		return fmt.Errorf("open a stream: %w: %s", err, refusal(resp))
	}
	defer conn.CloseNow()
	m.streams.Add(1)
	number := 0
	for end := 5 + rand.IntN(40); number < end && pass(ctx); {
		burst := 1 + rand.IntN(3)
		answered, cancel := context.WithTimeout(m.t.Context(), answerTime)
		err := exchangeMessages(answered, conn, number, burst)
		cancel()
		if err != nil {
			return fmt.Errorf("after %d messages: %w", number, err)
		}
		number += burst
		m.messages.Add(int64(burst))
	}
	if err := conn.Close(websocket.StatusNormalClosure, ""); err != nil { // waits for the server's close
		return fmt.Errorf("close a stream after %d messages: %w", number, err)
	}
	return nil
}

// exchangeMessages sends messages and reads as many answers, each of which must be the next one's.
func exchangeMessages(ctx context.Context, conn *websocket.Conn, number, burst int) error {
	var want []string
	for i := range burst {
		text := fmt.Sprintf("m%d ", number+i+1)
		switch rand.IntN(10) {
		case 0: // too long for the short forms of a frame's length
			text += strings.Repeat("x", 70_000)
		case 1:
			text += strings.Repeat("y", 300)
		}
		want = append(want, fmt.Sprintf("%d %d m%d", number+i+1, len(text), number+i+1))
		if err := writeInParts(ctx, conn, text); err != nil {
			return fmt.Errorf("send: %w", err)
		}
	}
	for _, text := range want {
		_, got, err := conn.Read(ctx)
		if err != nil {
			return fmt.Errorf("wait for %q: %w", text, err)
		}
		if string(got) != text {
			return fmt.Errorf("got %q, want %q: a message was lost, doubled, or out of order", got, text)
		}
	}
	return nil
}

// writeInParts sends a message, now and then as more than one frame.
func writeInParts(ctx context.Context, conn *websocket.Conn, text string) error {
	if rand.IntN(4) > 0 {
		return conn.Write(ctx, websocket.MessageText, []byte(text))
	}
	w, err := conn.Writer(ctx, websocket.MessageText)
	if err != nil {
		return err
	}
	half := rand.IntN(len(text))
	_, err1 := io.WriteString(w, text[:half])
	_, err2 := io.WriteString(w, text[half:])
	return errors.Join(err1, err2, w.Close())
}

// request asks the server now and then; its counter shows that it is the same server all the time.
func (m *messengers) request(ctx context.Context, app string) {
	client := m.Client()
	defer client.CloseIdleConnections()
	for want := 1; pass(ctx); want++ {
		a, err := ask(within(m.t, 20*time.Second), client, http.MethodGet, m.URL(app, "/"), "")
		if err != nil || a.Status != http.StatusOK || a.Body != strconv.Itoa(want) {
			m.t.Errorf("%s: request %d was answered with %d %.200q (%v) by %q", app, want, a.Status, a.Body, err, a.Took)
			return
		}
		m.requests.Add(1)
	}
}
