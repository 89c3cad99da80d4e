package sandboxtest_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	_ "github.com/lull-dev/lull/internal/bubble" // the race detector and bubbles
	"github.com/lull-dev/lull/sandbox"
	"github.com/lull-dev/lull/sandbox/sandboxtest"
)

func TestFakePassesTheSuite(t *testing.T) {
	sandboxtest.Run(t, func(*testing.T) sandbox.Driver { return sandboxtest.NewFake(nil) })
}

// The fake keeps time: a request to a paused sandbox is answered after the resume, on the connection it was made on.
func TestFakeInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hello := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") })
		fake := sandboxtest.NewFake(map[string]sandboxtest.Program{"app": sandboxtest.HTTP(hello)})
		defer fake.Close()
		s, err := fake.Start(t.Context(), sandbox.Spec{ID: "one", Args: []string{"app"}, Env: []string{"PORT=80"}, Dir: "/app"})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return s.Dial(ctx, 80)
		}}}
		defer client.CloseIdleConnections()
		if got := fetch(t, client); got != "hello" {
			t.Errorf("answers %q", got)
		}
		if err := s.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Minute, func() { s.Resume(context.Background()) })
		began := time.Now()
		if got := fetch(t, client); got != "hello" || time.Since(began) != time.Minute {
			t.Errorf("answers %q after %v, want after the resume", got, time.Since(began))
		}
		if fake.Trespasses() == 0 {
			t.Error("nobody noticed that a paused sandbox was written to")
		}
	})
}

func TestFakeConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		echo := func(p *sandboxtest.Process) int {
			l, _ := p.Listen("127.0.0.1:7")
			for {
				conn, err := l.Accept()
				if err != nil {
					return 0
				}
				io.Copy(conn, conn)
				conn.Close()
			}
		}
		fake := sandboxtest.NewFake(map[string]sandboxtest.Program{"echo": echo})
		defer fake.Close()
		s, err := fake.Start(t.Context(), sandbox.Spec{ID: "one", Args: []string{"echo"}, Dir: "/"})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		conn, err := s.Dial(t.Context(), 7)
		if err != nil {
			t.Fatal(err)
		}
		conn.SetReadDeadline(time.Now().Add(time.Second))
		var timeout net.Error
		if _, err := conn.Read(make([]byte, 1)); !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("read after a deadline: %v", err)
		}
		conn.SetReadDeadline(time.Time{})
		text := strings.Repeat("0123456789", 100_000)
		go func() {
			io.WriteString(conn, text)
			conn.(interface{ CloseWrite() error }).CloseWrite()
		}()
		if got, err := io.ReadAll(conn); err != nil || string(got) != text {
			t.Errorf("got %d bytes back (%v), want %d", len(got), err, len(text))
		}
		fake.Sandbox("one").Die(sandbox.Exit{Code: 2})
		<-s.Done()
		if s.Exit().Code != 2 {
			t.Errorf("exit is %+v", s.Exit())
		}
	})
}

func fetch(t *testing.T, client *http.Client) string {
	t.Helper()
	response, err := client.Get("http://app/")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}
