// Talk lets two clients meet in the chat room of the demo: each says something and waits until it has read the other.
//
//	go run ./demo/talk http://chat.localhost:8080/
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "talk:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return errors.New("want one argument, the URL of the room")
	}
	room, err := url.JoinPath(args[0], "room")
	if err != nil {
		return err
	}
	one, err := enter(ctx, room, "one")
	if err != nil {
		return err
	}
	defer one.conn.CloseNow()
	two, err := enter(ctx, room, "two")
	if err != nil {
		return err
	}
	defer two.conn.CloseNow()
	for _, turn := range []struct {
		from, to guest
		text     string
	}{
		{one, two, "Is anybody there?"},
		{two, one, "Yes. And when we are quiet, nothing runs."},
	} {
		if err := turn.from.say(ctx, turn.text); err != nil {
			return err
		}
		if err := turn.to.hear(ctx, turn.from.name, turn.text); err != nil {
			return err
		}
		fmt.Printf("  %s → %s: %s\n", turn.from.name, turn.to.name, turn.text)
	}
	return errors.Join(one.conn.Close(websocket.StatusNormalClosure, ""), two.conn.Close(websocket.StatusNormalClosure, ""))
}

// guest is one client in the room.
type guest struct {
	name string
	conn *websocket.Conn
}

func enter(ctx context.Context, room, name string) (guest, error) {
	client := &http.Client{Transport: &http.Transport{DialContext: dial}}
	conn, _, err := websocket.Dial(ctx, room, &websocket.DialOptions{HTTPClient: client})
	if err != nil {
		return guest{}, fmt.Errorf("enter the room: %w", err)
	}
	return guest{name: name, conn: conn}, nil
}

// dial takes names under .localhost for this machine: not every resolver knows them.
func dial(ctx context.Context, network, addr string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(addr)
	if err == nil && strings.HasSuffix(host, ".localhost") {
		addr = net.JoinHostPort("127.0.0.1", port)
	}
	return new(net.Dialer).DialContext(ctx, network, addr)
}

func (g guest) say(ctx context.Context, text string) error {
	if err := wsjson.Write(ctx, g.conn, map[string]string{"name": g.name, "text": text}); err != nil {
		return fmt.Errorf("%s says something: %w", g.name, err)
	}
	return nil
}

// hear reads until the message arrives.
func (g guest) hear(ctx context.Context, name, text string) error {
	for {
		var event struct {
			Type    string
			Message struct{ Name, Text string }
		}
		if err := wsjson.Read(ctx, g.conn, &event); err != nil {
			return fmt.Errorf("%s waits for %s: %w", g.name, name, err)
		}
		if event.Type == "message" && event.Message.Name == name && event.Message.Text == text {
			return nil
		}
	}
}
