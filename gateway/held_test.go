package gateway

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/wsframe"
	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"
)

func TestPingsOfAClient(t *testing.T) {
	h := holdStream(t, Config{}, ask{})
	h.says("pong:"+string(h.pingMark[:]), "ping:up") // a late answer to the gateway's own ping is not the app's
	h.appHears("ping:up")
	h.appSays("pong:up")
	h.clientHears("pong:up")
	h.sleeps()
	h.says("ping:asleep", "pong:unasked", "ping:")
	h.clientHears("pong:asleep", "pong:")
	h.notWoken()
	if moved := h.env.movedSoFar(); moved > 0 {
		t.Errorf("data moved %d times", moved)
	}
	awaitValue(t, h.metrics.pongs, 2)
	h.wakes("text:hello")
	h.awaitSettled()
}

// TestAnAppThatFallsAsleepOverAPing: what it has not answered by then the gateway does, also after a short tick.
func TestAnAppThatFallsAsleepOverAPing(t *testing.T) {
	h := holdStream(t, Config{}, ask{})
	h.says("ping:answered")
	h.appHears("ping:answered")
	h.appSays("pong:answered")
	h.clientHears("pong:answered")
	h.says("ping:first", "ping:second") // to answer the last is enough
	h.appHears("ping:first", "ping:second")
	h.appSays("pong:first")
	h.clientHears("pong:first")
	h.sleeps()
	h.clientHears("pong:second")
	for range 3 {
		h.env.resume()
		h.says("ping:in a tick")
		h.appHears("ping:in a tick")
		h.sleeps()
		h.clientHears("pong:in a tick")
	}
	h.says("ping:asleep")
	h.clientHears("pong:asleep")
	h.notWoken()
	awaitValue(t, h.metrics.pongs, 5)
	h.env.resume()
	h.appSays("pong:in a tick") // late, and allowed
	h.clientHears("pong:in a tick")
}

func TestAnAppThatFallsAsleepOverAHeartbeat(t *testing.T) {
	h := holdStream(t, Config{}, ask{target: "/?EIO=3"})
	h.says("text:2")
	h.appHears("text:2")
	h.appSays("text:3")
	h.clientHears("text:3")
	h.says("text:2")
	h.appHears("text:2")
	h.app.send("\x01\x01a") // into a message nothing can be put
	h.client.take(3)
	h.sleeps()
	h.says("ping:x")
	h.clientHears("pong:x")
	h.env.resume()
	h.app.send("\x80\x01b")
	h.client.take(3)
	h.sleeps()
	h.clientHears("text:3")
	h.notWoken()
}

func TestPingsOfAnApp(t *testing.T) {
	h := holdStream(t, Config{}, ask{})
	h.appSays("ping:one")
	h.clientHears("ping:one")
	h.awaitSettled(false)
	h.says("pong:one")
	h.appHears("pong:one")
	h.awaitSettled(false, true)
	h.appSays("ping:two", "ping:three") // to answer the last is enough
	h.clientHears("ping:two", "ping:three")
	h.says("pong:three")
	h.appHears("pong:three")
	h.awaitSettled(false, true, false, true)
	h.notWoken()
	if moved := h.env.movedSoFar(); moved > 0 {
		t.Errorf("data moved %d times", moved)
	}
}

func TestALateAnswerWaitsForTheApp(t *testing.T) {
	h := holdStream(t, Config{}, ask{})
	h.appSays("ping:q")
	h.clientHears("ping:q")
	h.awaitSettled(false)
	h.env.pause()
	h.says("pong:q", "ping:later")
	h.clientHears("pong:later") // so that the other has been dealt with
	h.awaitSettled(false)
	h.env.tick(t)
	h.appHears("pong:q")
	h.awaitSettled(false, true)
	h.notWoken()
}

// TestAPausedAppGetsItsAnswer: what the app waits for is in its socket before it goes on.
func TestAPausedAppGetsItsAnswer(t *testing.T) {
	h := holdStream(t, Config{}, ask{})
	h.appSays("ping:q")
	h.clientHears("ping:q")
	h.awaitSettled(false)
	h.env.pause()
	h.env.mu.Lock()
	h.env.paused = true
	h.env.mu.Unlock()
	h.says("ping:other", "pong:q")
	h.clientHears("pong:other")
	h.appHears("pong:q")
	h.awaitSettled(false, true)
	h.notWoken()
}

func TestALateAnswerComesBeforeDataThatWakes(t *testing.T) {
	h := holdStream(t, Config{}, ask{})
	h.appSays("ping:q")
	h.clientHears("ping:q")
	h.env.pause()
	long := frame(true, "text:"+strings.Repeat("x", 5000))
	h.client.send("%s%s", frame(true, "pong:q"), long[:1000])
	h.awaitReason(0, "websocket data")
	h.env.resume()
	h.appHears("pong:q")
	h.app.take(1000)
	h.awaitNowSettled(false)
	h.client.send("%s", long[1000:])
	if got := h.app.take(len(long) - 1000); got != string(long[1000:]) {
		t.Error("the rest of the frame is broken")
	}
	h.awaitNowSettled(true)
}

func TestHalfAFrameAtTheEnd(t *testing.T) {
	h := holdStream(t, Config{}, ask{})
	h.client.send("\x81\x85abcdx")
	h.client.Conn.(*net.TCPConn).CloseWrite()
	if got, err := h.app.rest(); got != "\x81\x85abcdx" || err != nil {
		t.Errorf("the app got %q, %v", got, err)
	}
}

func TestSmallFramesAreNotCut(t *testing.T) {
	h := holdStream(t, Config{}, ask{})
	h.sleeps()
	ping := frame(true, "ping:abc")
	for i := range ping {
		h.client.send("%s", ping[i:i+1])
	}
	h.clientHears("pong:abc")
	h.notWoken()
	text := frame(true, "text:abc")
	h.client.send("%s", text[:7])
	h.notWoken()
	h.awaitSettled() // the app waits for nothing
	h.client.send("%s", text[7:])
	h.awaitReason(0, "websocket data")
	h.env.resume()
	h.appHears("text:abc")
}

func TestNothingIsPutIntoAFrame(t *testing.T) {
	h := holdStream(t, Config{ClientPing: 10 * time.Millisecond}, ask{target: "/?EIO=4"})
	h.app.send("\x81\x05hel")
	if got := h.client.take(5); got != "\x81\x05hel" {
		t.Errorf("came %q", got)
	}
	h.awaitSettled(false)
	h.sleeps()
	eventually(t, func() error {
		h.rounds.mu.Lock()
		defer h.rounds.mu.Unlock()
		for _, s := range h.rounds.members {
			if s.due.IsZero() {
				return errors.New("the stream has not been attended")
			}
		}
		return nil
	})
	h.says("ping:x", "text:wake up")
	h.awaitReason(0, "websocket data")
	h.env.resume()
	h.appHears("text:wake up")
	h.app.send("lo")
	if got := h.client.take(2); got != "lo" {
		t.Errorf("then came %q", got)
	}
	h.awaitSettled(false, true)
}

func TestAMessageInFragments(t *testing.T) {
	h := holdStream(t, Config{}, ask{target: "/?EIO=3"})
	h.app.send("\x01\x01a")
	h.client.take(3)
	h.sleeps()
	h.says("text:2", "ping:x") // between fragments only the second can be answered
	h.clientHears("pong:x")
	h.env.resume()
	h.app.send("\x80\x01b")
	if got := h.client.take(3); got != "\x80\x01b" {
		t.Errorf("came %q", got)
	}
}

func TestTheGatewayPingsAndADeadClientIsFound(t *testing.T) {
	for _, guarded := range []bool{false, true} {
		t.Run(fmt.Sprint("guarded ", guarded), func(t *testing.T) {
			t.Parallel()
			findDeadClient(t, holdStream(t, Config{ClientPing: 400 * time.Millisecond}, ask{guarded: guarded}))
		})
	}
}

func findDeadClient(t *testing.T, h *heldStream) {
	h.sleeps()
	mark := "ping:" + string(h.pingMark[:])
	for range 2 {
		h.clientHears(mark)
		h.says("pong:" + string(h.pingMark[:]))
	}
	h.clientHears(mark) // which it does not answer
	awaitValue(t, h.metrics.held, 1)
	if rest, err := h.client.rest(); err == nil {
		t.Errorf("the client's side ended with %q as if nothing had happened", rest)
	}
	h.notWoken()
	if got := h.env.counts(); got != (counts{Streams: 1}) {
		t.Errorf("places, streams, holds are %v", got)
	}
	h.env.tick(t)
	if rest, err := h.app.rest(); err == nil || rest != "" {
		t.Errorf("the app heard %q, %v", rest, err)
	}
	h.env.awaitCounts(t, counts{})
	h.notWoken()
	awaitValue(t, h.metrics.dead, 1)
	awaitValue(t, h.metrics.held, 0)
}

// tunnel returns what carries the stream.
func (h *heldStream) tunnel() *tunnel {
	h.rounds.mu.Lock()
	defer h.rounds.mu.Unlock()
	for member := range h.rounds.members {
		return member.(*tunnel)
	}
	h.t.Fatal("the stream is not in the rounds")
	return nil
}

// clog fills the way to the client, and returns with how many bytes it did.
func (h *heldStream) clog() (n int) {
	h.t.Helper()
	tunnel := h.tunnel()
	tunnel.ws.toClient.Lock()
	defer tunnel.ws.toClient.Unlock()
	junk := make([]byte, 64<<10)
	for size := len(junk); size > 0; {
		took, err := tunnel.c.conn.WriteNow(junk[:size])
		if err != nil {
			h.t.Fatal(err)
		}
		if n += took; took == 0 {
			size /= 2
		}
	}
	return n
}

// A frame that the client's side does not take has not been sent: nobody waits for its answer. Who takes nothing for as
// long as an answer to a ping may take is dead; who reads on is not.
func TestAClientThatTakesNothing(t *testing.T) {
	for _, reads := range []bool{false, true} {
		t.Run(fmt.Sprint("reads ", reads), func(t *testing.T) {
			t.Parallel()
			h := holdStream(t, Config{ClientPing: 2 * time.Second}, ask{target: "/?EIO=4"})
			h.sleeps()
			n := h.clog()
			sent := func() { t.Error("a frame counts as sent that is not") }
			if got := h.tunnel().putIn(wsframe.Text, []byte("2"), sent); got != takesNothing {
				t.Errorf("putting a frame in: %v", got)
			}
			if !reads {
				awaitValue(t, h.metrics.dead, 1)
				return
			}
			if _, err := io.CopyN(io.Discard, h.client.in, int64(n)); err != nil {
				t.Fatal(err)
			}
			mark := string(h.pingMark[:])
			for range 2 {
				h.clientHears("ping:" + mark)
				h.says("pong:" + mark)
			}
			h.notWoken()
			awaitValue(t, h.metrics.dead, 0)
		})
	}
}

func TestADeadClientOfAnEnvironmentThatEnds(t *testing.T) {
	h := holdStream(t, Config{ClientPing: 10 * time.Millisecond}, ask{})
	h.sleeps()
	h.client.rest()
	h.env.end(&lull.Error{Kind: lull.KindCrashed, Message: "Gone."})
	h.env.awaitCounts(t, counts{})
}

func TestACloseFrameWakes(t *testing.T) {
	h := holdStream(t, Config{}, ask{})
	h.sleeps()
	h.says("close:\x03\xe8")
	h.awaitReason(0, "websocket close")
	h.env.resume()
	h.appHears("close:\x03\xe8")
	h.appSays("close:\x03\xe8")
	h.clientHears("close:\x03\xe8")
}

func TestAnEnvironmentThatIsStoppedInstead(t *testing.T) {
	h := holdStream(t, Config{}, ask{})
	h.sleeps()
	h.says("text:hello")
	h.awaitReason(0, "websocket data")
	close(h.env.closing)
	h.clientHears("close:\x03\xe9")
}

func TestAnEnvironmentThatDoesNotComeBack(t *testing.T) {
	for _, half := range []bool{false, true} {
		h := holdStream(t, Config{}, ask{})
		h.sleeps()
		long := frame(true, "text:"+strings.Repeat("x", 5000))
		if half {
			long = long[:1000]
		}
		h.client.send("%s", long)
		h.awaitReason(0, "websocket data")
		h.env.end(&lull.Error{Kind: lull.KindCrashed, Message: "Gone."})
		h.clientHears("close:\x03\xf4")
		h.client.Close()
		h.env.awaitCounts(t, counts{})
	}
}

func TestInvalidFramesPassUnseen(t *testing.T) {
	h := holdStream(t, Config{ClientPing: time.Hour}, ask{})
	h.client.send("\x83\x80abcd\x89\x00")
	if got := h.app.take(8); got != "\x83\x80abcd\x89\x00" {
		t.Errorf("the app got %q", got)
	}
	h.app.send("\x8b\x00anything")
	if got := h.client.take(10); got != "\x8b\x00anything" {
		t.Errorf("the client got %q", got)
	}
	h.awaitSettled()
}

// TestDataArrivesWholeInOrderOnce mixes data and heartbeats, cut anywhere, while the environment sleeps and wakes.
func TestDataArrivesWholeInOrderOnce(t *testing.T) {
	for _, guarded := range []bool{false, true} {
		t.Run(fmt.Sprint("guarded ", guarded), func(t *testing.T) {
			mixDataAndHeartbeats(t, holdStream(t, Config{}, ask{target: "/?EIO=3", guarded: guarded}))
		})
	}
}

// heard is when the gateway last heard of the client.
func (h *heldStream) heard() int64 {
	h.rounds.mu.Lock()
	defer h.rounds.mu.Unlock()
	for e := range h.rounds.members {
		return e.(*tunnel).ws.heard.Load()
	}
	return 0
}

func mixDataAndHeartbeats(t *testing.T, h *heldStream) {
	stop := make(chan struct{})
	stopped := make(chan struct{})
	go func() { // a sleeper that is woken by whatever holds; ends below
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
			h.env.mu.Lock()
			asleep, held := h.env.asleep, h.env.holds > 0
			h.env.mu.Unlock()
			switch {
			case asleep:
				h.env.resume()
			case !held:
				h.env.mu.Lock()
				if h.env.holds == 0 {
					h.env.fallAsleep()
				}
				h.env.mu.Unlock()
			}
		}
	}()
	go io.Copy(io.Discard, h.client.in) // answers; ends with the connection
	sequence := 0
	rapid.Check(t, func(rt *rapid.T) {
		var all []byte
		var want []string
		for range rapid.IntRange(1, 6).Draw(rt, "frames") {
			switch rapid.IntRange(0, 2).Draw(rt, "what") {
			case 0:
				all = append(all, frame(true, "ping:beat")...)
			case 1:
				all = append(all, frame(true, "text:2")...)
			case 2:
				sequence++
				what := fmt.Sprintf("text:%d%s", 1000+sequence, strings.Repeat(".", rapid.IntRange(0, 100).Draw(rt, "more")))
				want = append(want, what)
				all = append(all, frame(true, what)...)
			}
		}
		for len(all) > 0 {
			n := min(rapid.IntRange(1, 80).Draw(rt, "piece"), len(all))
			before := h.heard()
			h.client.send("%s", all[:n])
			all = all[n:]
			if rapid.Bool().Draw(rt, "alone") {
				eventually(t, func() error {
					if h.heard() == before {
						return errors.New("the piece was not read")
					}
					return nil
				})
			}
		}
		for _, w := range want {
			got := h.app.next()
			for got == "ping:beat" || got == "text:2" {
				got = h.app.next()
			}
			if got != w {
				rt.Fatalf("the app heard %q, want %q", got, w)
			}
		}
	})
	close(stop)
	<-stopped
	h.env.mu.Lock()
	asleep := h.env.asleep
	h.env.mu.Unlock()
	if asleep {
		h.env.resume()
	}
	h.client.Close()
	h.env.awaitCounts(t, counts{})
}

func TestKeptLinksDoNotOutliveASleep(t *testing.T) {
	d := openHandler(t, Config{LinkIdle: time.Minute}, func(w http.ResponseWriter, r *http.Request) {})
	d.apps.settings.IdlePause = time.Hour
	d.get(d.client(), "http://app.test/")
	d.get(d.client(), "http://app.test/")
	if n := d.env.dials.Load(); n != 1 {
		t.Fatalf("the app was dialled %d times while it was up", n)
	}
	links := func() (all, idle int) {
		d.environments.mu.RLock()
		defer d.environments.mu.RUnlock()
		e := d.environments.byID["env-1"]
		e.mu.Lock()
		defer e.mu.Unlock()
		return len(e.links), len(e.idle)
	}
	eventually(t, func() error {
		if _, idle := links(); idle != 1 {
			return fmt.Errorf("%d links are kept", idle)
		}
		return nil
	})
	d.env.pause()
	d.env.resume()
	d.get(d.client(), "http://app.test/")
	if n := d.env.dials.Load(); n != 2 {
		t.Errorf("the app was dialled %d times after a sleep", n)
	}
	if all, _ := links(); all != 1 {
		t.Errorf("%d links are left", all)
	}
}

// BenchmarkRound is what a round of ten thousand sleeping streams takes.
func BenchmarkRound(b *testing.B) {
	env := newFakeEnvironment("env-1", nil)
	env.pause()
	r := &rounds{held: prometheus.NewGauge(prometheus.GaugeOpts{Name: "held"}), members: map[attended]*standing{}}
	for range 10_000 {
		stream := env.place().Stream()
		r.members[new(feed)] = &standing{stream: stream, closing: stream.Closing(), sleep: 1, due: time.Now().Add(time.Hour)}
	}
	var called []call
	for b.Loop() {
		called, _ = r.look(called[:0], time.Now())
	}
}
