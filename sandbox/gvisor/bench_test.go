package gvisor

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/sandbox"
)

// helloServer is the server that everything is measured with.
const helloServer = `require("http").createServer((q, r) => r.end("hello")).listen(process.env.PORT, process.env.HOST)`

func helloDir(tb testing.TB) string {
	dir := tb.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "server.js"), []byte(helloServer), 0o644); err != nil {
		tb.Fatal(err)
	}
	return dir
}

func helloSpec(id, dir string) sandbox.Spec {
	return sandbox.Spec{
		ID: id, Args: []string{"node", "server.js"}, Dir: lull.AppDir,
		Env:    []string{"PATH=/usr/local/bin:/usr/bin:/bin", "PORT=8080", "HOST=0.0.0.0", "HOME=/home/app"},
		Mounts: []sandbox.Mount{{Source: dir, Target: lull.AppDir, Mode: sandbox.Layered}},
		Limits: lull.DefaultManifest().Resources,
		Egress: lull.Egress{lull.EgressInternet},
	}
}

// firstResponse asks again and again until a server answers, over a new connection each time.
func firstResponse(tb testing.TB, dial func(context.Context) (net.Conn, error)) {
	tb.Helper()
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
	}}
	deadline := time.Now().Add(30 * time.Second)
	for pause := time.NewTicker(time.Millisecond); ; <-pause.C {
		response, err := client.Get("http://hello/")
		if err == nil {
			_, _ = io.Copy(io.Discard, response.Body)
			response.Body.Close()
			return
		}
		if time.Now().After(deadline) {
			tb.Fatalf("no response: %v", err)
		}
	}
}

// listens waits until the app listens, the way a fleet does: asking for listeners costs the sandbox less than dialling.
func listens(tb testing.TB, sb sandbox.Sandbox) {
	tb.Helper()
	for pause := time.NewTicker(2 * time.Millisecond); ; <-pause.C {
		found, err := sb.Listeners(tb.Context())
		if err != nil {
			tb.Fatal(err)
		}
		if len(found) > 0 {
			return
		}
	}
}

// BenchmarkFirstResponse measures from nothing to the first response: of node on the host, and of node in a sandbox.
func BenchmarkFirstResponse(b *testing.B) {
	dir := helloDir(b)
	b.Run("bare", func(b *testing.B) {
		for b.Loop() {
			bareResponse(b, dir)
		}
	})
	b.Run("sandbox", func(b *testing.B) {
		driver := newDriver(b)
		n := 0
		b.ResetTimer()
		for b.Loop() {
			n++
			sb, err := driver.Start(b.Context(), helloSpec(fmt.Sprint("hello-", n), dir))
			if err != nil {
				b.Fatal(err)
			}
			listens(b, sb)
			firstResponse(b, func(ctx context.Context) (net.Conn, error) { return sb.Dial(ctx, 8080) })
			b.StopTimer()
			if err := sb.Close(); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
	})
}

// BenchmarkWake measures from a sandbox on disk to the first response, over the connection that was open before, beside
// what it costs to put it there: with all of it to be made, and in a spare.
func BenchmarkWake(b *testing.B) {
	for name, spare := range map[string]bool{"anew": false, "spare": true} {
		b.Run(name, func(b *testing.B) { benchmarkWake(b, spare) })
	}
}

func benchmarkWake(b *testing.B, spare bool) {
	driver := newDriver(b)
	spec := helloSpec("hello", helloDir(b))
	sb, err := driver.Start(b.Context(), spec)
	if err != nil {
		b.Fatal(err)
	}
	listens(b, sb)
	conn, err := sb.Dial(b.Context(), 8080)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	request(b, conn)
	must := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	var saving, vacating, restoring time.Duration
	var size int64
	n := 0
	for b.Loop() {
		b.StopTimer()
		n++
		dir := b.TempDir()
		must(sb.Pause(b.Context()))
		began := time.Now()
		must(sb.Snapshot(b.Context(), dir))
		saved := time.Now()
		must(sb.Vacate())
		saving, vacating = saving+saved.Sub(began), vacating+time.Since(saved)
		for _, name := range snapshotFiles {
			info, err := os.Stat(filepath.Join(dir, name))
			must(err)
			size += info.Size()
		}
		if spare {
			haveSpare(b, driver)
		} else {
			must(driver.spares.drop())
		}
		b.StartTimer()
		began = time.Now()
		sb, err = driver.Restore(b.Context(), spec, dir)
		must(err)
		restoring += time.Since(began)
		request(b, conn)
	}
	must(sb.Close())
	for unit, total := range map[string]time.Duration{"ms/snapshot": saving, "ms/vacate": vacating, "ms/restore": restoring} {
		b.ReportMetric(float64(total.Microseconds())/1000/float64(n), unit)
	}
	b.ReportMetric(float64(size)/1e6/float64(n), "MB")
}

// request asks for the page and reads the answer.
func request(b *testing.B, conn net.Conn) {
	b.Helper()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: hello\r\n\r\n"); err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, err := conn.Read(buf)
	if err != nil || !strings.HasPrefix(string(buf[:n]), "HTTP/1.1 200 OK") {
		b.Fatalf("got %q, %v", buf[:n], err)
	}
}

func bareResponse(b *testing.B, dir string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	addr := l.Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	l.Close()
	cmd := exec.Command("node", "server.js")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "HOST=127.0.0.1", "PORT="+port)
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	firstResponse(b, func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", addr)
	})
	b.StopTimer()
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	b.StartTimer()
}

// BenchmarkSandbox measures the verbs on a sandbox that runs node.
func BenchmarkSandbox(b *testing.B) {
	driver := newDriver(b)
	sb, err := driver.Start(b.Context(), helloSpec("hello", helloDir(b)))
	if err != nil {
		b.Fatal(err)
	}
	dial := func(ctx context.Context) (net.Conn, error) { return sb.Dial(ctx, 8080) }
	firstResponse(b, dial)
	must := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	began := time.Now()
	must(sb.Pause(b.Context()))
	first := time.Since(began)
	must(sb.Resume(b.Context()))
	b.Run("pause", func(b *testing.B) {
		for b.Loop() {
			must(sb.Pause(b.Context()))
			b.StopTimer()
			must(sb.Resume(b.Context()))
			b.StartTimer()
		}
		b.ReportMetric(float64(first.Nanoseconds()), "ns/first-ever")
	})
	b.Run("resume", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			must(sb.Pause(b.Context()))
			b.StartTimer()
			must(sb.Resume(b.Context()))
		}
	})
	b.Run("warm-response", func(b *testing.B) {
		for b.Loop() {
			firstResponse(b, dial)
		}
	})
	b.Run("response-after-resume", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			must(sb.Pause(b.Context()))
			b.StartTimer()
			must(sb.Resume(b.Context()))
			firstResponse(b, dial)
		}
	})
	b.Run("listeners", func(b *testing.B) {
		for b.Loop() {
			_, err := sb.Listeners(b.Context())
			must(err)
		}
	})
}
