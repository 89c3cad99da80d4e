package gvisor

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"
)

// punctual answers each byte with how often it was told that nothing had come since the byte before, when in truth it had
// been asleep.
const punctual = `
import select, socket, time
server = socket.create_server(("0.0.0.0", 3000))
c, _ = server.accept()
c.setblocking(False)
poll = select.epoll()
poll.register(c, select.EPOLLIN)
late = 0
while True:
    began = time.monotonic()
    if poll.poll(0.1):
        if not c.recv(1): break
        c.send(b"%d" % late)
        late = 0
    elif time.monotonic() - began > 0.3:
        late += 1
`

// What came in during a sleep is seen before the time that has passed.
func TestInputComesBeforeTimers(t *testing.T) {
	var out bytes.Buffer
	spec := quietSpec("punctual")
	spec.Args, spec.Stderr, spec.Env = []string{"python3", "-c", punctual}, &out, []string{"PATH=/usr/bin"}
	spec.Limits.Memory = 256 << 20
	d := newDriver(t)
	sb, err := d.Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		sb.Close()
		if t.Failed() {
			t.Logf("it printed %s", out.String())
		}
	}()
	awaitListeners(t, sb, nil)
	conn, err := sb.Dial(t.Context(), 3000)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	paused := false
	ask := func(wake func() error) string {
		t.Helper()
		answer := make([]byte, 1)
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := conn.Write([]byte("?")); err != nil {
			t.Fatal(err)
		}
		for arrived, err := 0, error(nil); paused && arrived == 0; { // it takes a moment to get there
			if arrived, err = sb.Unread(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := wake(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, answer); err != nil {
			t.Fatal(err)
		}
		return string(answer)
	}
	resume := func() error { return sb.Resume(t.Context()) }
	wake := func() error {
		dir := t.TempDir()
		if err := errors.Join(sb.Snapshot(t.Context(), dir), sb.Vacate()); err != nil {
			return err
		}
		sb, err = d.Restore(t.Context(), spec, dir)
		return err
	}
	ask(resume)
	for round := range 12 {
		if err := sb.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
		paused = true
		<-time.After(400 * time.Millisecond) // longer than it waits
		up := resume
		if round > 8 {
			up = wake
		}
		if late := ask(up); late != "0" {
			t.Errorf("round %d: it found nothing %s times", round, late)
		}
	}
}
