package fleet_test

import (
	"bufio"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/sandbox/sandboxtest"
)

// runtimeAndFunction listens for what comes to a function's runtime, and, until it is told to stop that, for requests.
func runtimeAndFunction(p *sandboxtest.Process) int {
	direct, err := p.Listen(fmt.Sprint(":", lull.FunctionPort))
	if err != nil {
		return 1
	}
	go sayAll(direct, "function\n", func() { direct.Close() })
	runtime, err := p.Listen(":8080")
	if err != nil {
		return 1
	}
	sayAll(runtime, "runtime\n", func() {})
	return 0
}

// sayAll says something to each who connects, and then does what it has to.
func sayAll(l net.Listener, text string, then func()) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		fmt.Fprint(conn, text)
		conn.Close()
		then()
	}
}

func functionRelease() lull.Release {
	rel := release(1, "function")
	rel.Process.HTTP, rel.Process.Fixed = lull.FunctionPort, true
	return rel
}

// A function that takes requests itself gets them; while it does not, its runtime does.
func TestFunctionIsReachedWithoutItsRuntime(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.Use(functionRelease())
		for _, want := range []string{"function\n", "runtime\n"} {
			p := w.acquire("GET /")
			conn, err := p.Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if said, err := bufio.NewReader(conn).ReadString('\n'); said != want {
				t.Errorf("said %q, %v; want %q", said, err, want)
			}
			conn.Close()
			p.Free()
		}
	})
}

// A function that takes requests itself and is late is ended; another app is just slow.
func TestLateFunctionIsEnded(t *testing.T) {
	for _, rel := range []lull.Release{functionRelease(), release(1, "app")} {
		inBubble(t, func(t *testing.T, w *world) {
			w.Use(rel)
			p := w.acquire("GET /")
			conn, err := p.Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			p.Late()
			sleep(time.Second)
			select {
			case <-p.Done():
				if rel.Process.HTTP == 0 {
					t.Error("an app that is slow was ended")
				}
			default:
				if rel.Process.HTTP != 0 {
					t.Error("the function goes on")
				}
			}
			p.Free()
		})
	}
}
