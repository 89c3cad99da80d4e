package gateway

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/gateway/wire"
)

// awaitParked waits until both ways of the only stream are parked.
func (d *door) awaitParked() {
	d.t.Helper()
	eventually(d.t, func() error {
		d.rounds.mu.Lock()
		defer d.rounds.mu.Unlock()
		for e := range d.rounds.members {
			var ways []*way
			switch e := e.(type) {
			case *tunnel:
				ways = []*way{&e.up, &e.down}
			case *feed:
				ways = []*way{&e.watch, &e.down}
			}
			for _, w := range ways {
				w.mu.Lock()
				parked := w.parked
				w.mu.Unlock()
				if !parked {
					return errors.New("a way is not parked")
				}
			}
			return nil
		}
		return errors.New("there is no stream")
	})
}

// TestAParkedTunnel does everything to a tunnel that has neither goroutine nor buffer any more.
func TestAParkedTunnel(t *testing.T) {
	readCode := func(t *testing.T, conn *websocket.Conn) websocket.StatusCode {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_, _, err := conn.Read(ctx)
		return websocket.CloseStatus(err)
	}
	for _, test := range []struct {
		name string
		do   func(t *testing.T, d *door, conn *websocket.Conn)
	}{
		{"client speaks, again and again", func(t *testing.T, d *door, conn *websocket.Conn) {
			say(t, conn, []byte("two"))
			say(t, conn, make([]byte, 100_000))
			d.awaitParked()
			say(t, conn, []byte("three"))
		}},
		{"environment closes", func(t *testing.T, d *door, conn *websocket.Conn) {
			close(d.env.closing)
			if code := readCode(t, conn); code != 1001 {
				t.Errorf("closed with %d", code)
			}
		}},
		{"node shuts down", func(t *testing.T, d *door, conn *websocket.Conn) {
			go d.Shutdown(context.Background())
			if code := readCode(t, conn); code != 1012 {
				t.Errorf("closed with %d", code)
			}
		}},
		{"node is in a hurry", func(t *testing.T, d *door, conn *websocket.Conn) {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			d.Shutdown(ctx)
		}},
		{"environment dies", func(t *testing.T, d *door, conn *websocket.Conn) {
			d.env.end(&lull.Error{Kind: lull.KindCrashed, Message: "Gone."})
			if code := readCode(t, conn); code != 1012 {
				t.Errorf("closed with %d", code)
			}
		}},
		{"client pings while the app sleeps", func(t *testing.T, d *door, conn *websocket.Conn) {
			d.env.pause()
			ctx, cancel := context.WithTimeout(conn.CloseRead(context.Background()), 10*time.Second)
			defer cancel()
			for range 3 {
				if err := conn.Ping(ctx); err != nil {
					t.Error(err)
				}
			}
			d.env.resume()
		}},
		{"client closes", func(t *testing.T, d *door, conn *websocket.Conn) {
			if err := conn.Close(websocket.StatusNormalClosure, ""); err != nil {
				t.Error(err)
			}
		}},
		{"client vanishes", func(t *testing.T, d *door, conn *websocket.Conn) { conn.CloseNow() }},
		{"client vanishes while the app sleeps", func(t *testing.T, d *door, conn *websocket.Conn) {
			d.env.pause()
			conn.CloseNow()
			eventually(t, func() error {
				if got := fmt.Sprint(d.env.reasons()); !strings.Contains(got, "client left") {
					return errors.New("the environment was not woken: " + got)
				}
				return nil
			})
			d.env.resume()
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := openHandler(t, Config{}, echo)
			conn := d.webSocket("/")
			say(t, conn, []byte("one"))
			d.awaitParked()
			test.do(t, d, conn)
			conn.CloseNow()
			d.env.awaitCounts(t, counts{})
		})
	}
}

// TestAParkedFeed does everything to an answer that stays open.
func TestAParkedFeed(t *testing.T) {
	for _, test := range []struct {
		name string
		do   func(t *testing.T, d *door, app net.Conn, c *raw)
	}{
		{"app speaks, and ends it", func(t *testing.T, d *door, app net.Conn, c *raw) {
			io.WriteString(app, "4\r\ntwo\n\r\n")
			if got := c.take(9); got != "4\r\ntwo\n\r\n" {
				t.Errorf("came %q", got)
			}
			d.awaitParked()
			io.WriteString(app, "0\r\n\r\n")
			if got := c.take(5); got != "0\r\n\r\n" {
				t.Errorf("came %q", got)
			}
			c.send("GET /next HTTP/1.1\r\nHost: app.test\r\n\r\n") // on the same connection
			if got := c.head(); !strings.HasPrefix(got, "HTTP/1.1 200") {
				t.Errorf("the next answer is %q", got)
			}
			if dials := d.env.dials.Load(); dials != 1 {
				t.Errorf("the app was dialled %d times", dials)
			}
		}},
		{"client has asked for more", func(t *testing.T, d *door, app net.Conn, c *raw) {
			c.send("GET /next HTTP/1.1\r\nHost: app.test\r\n\r\n")
			io.WriteString(app, "0\r\n\r\n")
			c.take(5)
			if got := c.head(); !strings.HasPrefix(got, "HTTP/1.1 200") {
				t.Errorf("the next answer is %q", got)
			}
		}},
		{"app breaks off", func(t *testing.T, d *door, app net.Conn, c *raw) {
			app.Close()
			if got, _ := c.rest(); got != "" {
				t.Errorf("came %q, which may look like an end", got)
			}
		}},
		{"environment closes", func(t *testing.T, d *door, app net.Conn, c *raw) {
			close(d.env.closing)
			if got, _ := c.rest(); got != "" {
				t.Errorf("came %q, which may look like an end", got)
			}
		}},
		{"node shuts down", func(t *testing.T, d *door, app net.Conn, c *raw) {
			if err := d.Shutdown(context.Background()); err != nil {
				t.Error(err)
			}
		}},
		{"client vanishes", func(t *testing.T, d *door, app net.Conn, c *raw) {
			c.send("GET /next HTTP/1.1\r\nHost: app.test\r\n\r\n") // does not hide it
			c.Close()
			io.Copy(io.Discard, app) // ends
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			apps := make(chan net.Conn, 2)
			over := make(chan struct{})
			defer close(over)
			d := openRaw(t, Config{}, func(conn net.Conn, in *bufio.Reader) {
				for {
					if _, err := http.ReadRequest(in); err != nil {
						return
					}
					io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n4\r\none\n\r\n")
					apps <- conn
					if len(apps) == cap(apps) {
						<-over
					}
				}
			})
			c := d.dial().send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n")
			c.head()
			c.take(9)
			d.awaitParked()
			test.do(t, d, <-apps, c)
			c.Close()
			d.env.awaitCounts(t, counts{})
		})
	}
}

// idler is a carrier to which nothing comes. It tells of each carry and waits to go on.
type idler struct{ carried, goOn chan struct{} }

func (i *idler) carry(*wire.Loan) verdict {
	i.carried <- struct{}{}
	if _, open := <-i.goOn; !open {
		return ended
	}
	return quiet
}

func (i *idler) over() { close(i.carried) }

// TestRouseIsNotLost: between the last look of carry and the parking, or after it.
func TestRouseIsNotLost(t *testing.T) {
	var poller wire.Poller
	defer poller.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	inner, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	i := &idler{make(chan struct{}), make(chan struct{})}
	w := &way{poller: &poller, conn: wire.NewConn(inner), carrier: i}
	go w.run()
	<-i.carried
	w.rouse() // before it parks
	i.goOn <- struct{}{}
	<-i.carried
	i.goOn <- struct{}{}
	eventually(t, func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if !w.parked {
			return errors.New("not parked")
		}
		return nil
	})
	w.rouse() // after
	<-i.carried
	close(i.goOn)
	if _, open := <-i.carried; open {
		t.Error("carried after the end")
	}
}
