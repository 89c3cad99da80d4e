// Command go-deadlines echoes, and drops a client that it has not heard from for a while: the way of gorilla/websocket's
// own examples, with shorter times than their 60 s and 54 s.
package main

import (
	"log"
	"net/http"
	"os"
	"time"

	"github.com/gorilla/websocket"
)

const (
	pongWait   = 4 * time.Second
	pingPeriod = 1500 * time.Millisecond
	writeWait  = 5 * time.Second
)

var upgrader = websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if !websocket.IsWebSocketUpgrade(r) {
			w.Write([]byte("go-deadlines\n"))
			return
		}
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			log.Print(err)
			return
		}
		said := make(chan []byte)
		go write(conn, said)
		read(conn, said)
	})
	log.Fatal(http.ListenAndServe(":"+os.Getenv("PORT"), nil))
}

// read takes what the client says to said, and closes it when the client has not answered a ping in time.
func read(conn *websocket.Conn, said chan<- []byte) {
	defer close(said)
	alive := func(string) error { return conn.SetReadDeadline(time.Now().Add(pongWait)) }
	alive("")
	conn.SetPongHandler(alive)
	for {
		_, data, err := conn.ReadMessage()
		if err != nil {
			return
		}
		said <- data
	}
}

// write sends what was said back, and pings; it closes the connection when there is nothing more to say.
func write(conn *websocket.Conn, said <-chan []byte) {
	defer conn.Close()
	pings := time.NewTicker(pingPeriod)
	defer pings.Stop()
	for {
		var err error
		select {
		case data, ok := <-said:
			conn.SetWriteDeadline(time.Now().Add(writeWait))
			if !ok {
				conn.WriteMessage(websocket.CloseMessage, nil)
				return
			}
			err = conn.WriteMessage(websocket.TextMessage, data)
		case <-pings.C:
			conn.SetWriteDeadline(time.Now().Add(writeWait))
			err = conn.WriteMessage(websocket.PingMessage, nil)
		}
		if err != nil {
			conn.Close()
			for range said { // until read has noticed
			}
			return
		}
	}
}
