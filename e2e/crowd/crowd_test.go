package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// room is a chat server: who comes is greeted, what one client says all hear. "bye" is answered with a close, "long" with a long message in
// many fragments.
func room(t *testing.T) *httptest.Server {
	t.Helper()
	join := make(chan *websocket.Conn)
	said := make(chan string)
	done := make(chan struct{})
	t.Cleanup(func() { close(done) })
	go func() {
		var here []*websocket.Conn
		for {
			select {
			case conn := <-join:
				here = append(here, conn)
				_ = conn.Write(context.Background(), websocket.MessageText, []byte("hi"))
			case text := <-said:
				for _, conn := range here {
					_ = conn.Write(context.Background(), websocket.MessageText, []byte(text))
				}
			case <-done:
				return
			}
		}
	}()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer conn.CloseNow()
		join <- conn
		for {
			_, data, err := conn.Read(r.Context())
			if err != nil {
				return
			}
			switch string(data) {
			case "bye":
				conn.Close(4321, "")
			case "long":
				long, _ := conn.Writer(r.Context(), websocket.MessageBinary)
				_, _ = io.Copy(long, strings.NewReader(strings.Repeat("x", 1<<20)))
				_ = long.Close()
			default:
				said <- string(data)
			}
		}
	}))
	t.Cleanup(server.Close)
	return server
}

// talk starts a crowd under control, and returns what gives it an order and reads the answer.
func talk(t *testing.T, args ...string) func(order string) Report {
	t.Helper()
	opts, err := parse(args)
	if err != nil {
		t.Fatal(err)
	}
	c := newCrowd(opts)
	ctx, cancel := context.WithCancel(t.Context())
	if err := c.gather(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.leave)
	if opts.ping > 0 {
		go c.pingForever(ctx)
	}
	orderRead, orders := io.Pipe()
	reports, reportWrite := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- obey(ctx, c, orderRead, reportWrite) }()
	t.Cleanup(func() {
		cancel()
		orders.Close()
		<-ended
	})
	in := json.NewDecoder(reports)
	read := func() (r Report) {
		t.Helper()
		if err := in.Decode(&r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	if first := read(); first.Open != opts.clients {
		t.Fatalf("at first: %+v", first)
	}
	return func(order string) Report {
		t.Helper()
		if _, err := io.WriteString(orders, order+"\n"); err != nil {
			t.Fatal(err)
		}
		return read()
	}
}

// until gives an order again and again until its report is as wanted.
func until(t *testing.T, order func(string) Report, what string, wanted func(Report) bool) Report {
	t.Helper()
	again, deadline := time.NewTicker(10*time.Millisecond), time.NewTimer(10*time.Second)
	defer again.Stop()
	defer deadline.Stop()
	for {
		r := order("report")
		if wanted(r) {
			return r
		}
		select {
		case <-deadline.C:
			t.Fatalf("not %s: %+v", what, r)
		case <-again.C:
		}
	}
}

func TestEveryClientHearsAMessageOnce(t *testing.T) {
	order := talk(t, "-clients", "50", "-ping", "50ms", "-from", "127.0.0.1,127.0.0.2", room(t).URL)
	until(t, order, "greeted", func(r Report) bool { return r.Messages == 50 })
	order("mark")
	order("say hello")
	r := until(t, order, "heard by all", func(r Report) bool { return r.SinceMark.Heard == 50 })
	if r.SinceMark.HeardOne != 50 || r.Messages != 100 || r.Bytes != 350 {
		t.Errorf("after one message: %+v", r)
	}
	order("mark")
	order("say-all hello")
	until(t, order, "all heard all", func(r Report) bool { return r.SinceMark.Messages == 2500 })
	r = until(t, order, "pinged", func(r Report) bool { return r.SinceMark.Ponged == 50 })
	if r.SlowestMs <= 0 {
		t.Errorf("pongs took no time: %+v", r)
	}
}

func TestLongMessages(t *testing.T) {
	order := talk(t, "-clients", "3", "-ping", "0", room(t).URL)
	order("say-all long")
	r := until(t, order, "heard", func(r Report) bool { return r.Messages == 6 })
	if r.Bytes != 3<<20+6 {
		t.Errorf("of 3 MB and 6 %d bytes were counted", r.Bytes)
	}
}

func TestClosesAndReconnects(t *testing.T) {
	server := room(t)
	order := talk(t, "-clients", "4", server.URL)
	order("say bye")
	r := until(t, order, "one closed", func(r Report) bool { return r.Open == 3 })
	if r.Closes["4321"] != 1 || r.Reconnects != 0 {
		t.Errorf("after a close: %+v", r)
	}
	order = talk(t, "-clients", "4", "-reconnect", server.URL)
	order("say bye")
	until(t, order, "one connected again", func(r Report) bool { return r.Open == 4 && r.Reconnects == 1 && r.Closes["4321"] == 1 })
}

func TestWrongUsage(t *testing.T) {
	for _, args := range [][]string{{}, {"ftp://host/"}, {"a b"}, {"-clients", "0", "http://host/"}, {"http://a/", "http://b/"}} {
		if opts, err := parse(args); err == nil {
			t.Errorf("%q is understood as %+v", args, opts)
		}
	}
	opts, err := parse([]string{"-dial", "127.0.0.1:9", "http://chat.localhost/room?x=1"})
	if want := (target{"127.0.0.1:9", "chat.localhost", "/room?x=1"}); err != nil || opts.target != want {
		t.Errorf("the target is %+v (%v), want %+v", opts.target, err, want)
	}
}

func TestFramesAreMaskedAndRead(t *testing.T) {
	for _, n := range []int{0, 1, 125, 126, 65535, 65536} {
		payload := bytes.Repeat([]byte{0xa5}, n)
		frame := appendFrame(nil, opText, payload)
		if frame[1]&0x80 == 0 {
			t.Errorf("a frame of %d bytes is not masked", n)
		}
		if n > 8 && bytes.Contains(frame, payload) {
			t.Errorf("the payload of a frame of %d bytes can be read in it", n)
		}
	}
}
