package gateway

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"syscall"
	"testing"
	"time"
)

// The benchmarks send the same small requests, over connections that are kept, to the same app: straight, through the
// gateway, and through net/http's ReverseProxy. cpu-µs/op is the whole process: client, proxy and app; what a proxy costs
// is the difference to BenchmarkDirect.
const benchRequest = "GET /rooms?id=1 HTTP/1.1\r\nHost: app.test\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\n" +
	"Accept-Encoding: gzip, deflate\r\nCookie: session=0123456789abcdef\r\n\r\n"

const benchAnswer = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nX-Powered-By: bench\r\n" +
	"Date: Thu, 01 Jan 2026 00:00:00 GMT\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\nContent-Length: 13\r\n\r\nhello, world\n"

// benchApp answers every head with benchAnswer, as cheaply as can be.
func benchApp(b *testing.B) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				buf := make([]byte, 4096)
				for {
					n, err := conn.Read(buf)
					if err != nil {
						return
					}
					if bytes.HasSuffix(buf[:n], []byte("\r\n\r\n")) {
						io.WriteString(conn, benchAnswer)
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

// exchangeOver sends b.N requests over one connection at a time per processor.
func exchangeOver(b *testing.B, address string) {
	b.ReportAllocs()
	var before, after syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &before)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			b.Error(err)
			return
		}
		defer conn.Close()
		in := bufio.NewReaderSize(conn, 4096)
		request := []byte(benchRequest)
		for pb.Next() {
			if _, err := conn.Write(request); err != nil {
				b.Error(err)
				return
			}
			for { // to the end of the body, which is a line of its own
				line, err := in.ReadSlice('\n')
				if err != nil {
					b.Error(err)
					return
				}
				if string(line) == "hello, world\n" {
					break
				}
			}
		}
	})
	b.StopTimer()
	syscall.Getrusage(syscall.RUSAGE_SELF, &after)
	spent := func(r syscall.Rusage) time.Duration {
		return time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	b.ReportMetric(float64(spent(after)-spent(before))/float64(b.N)/1000, "cpu-µs/op")
}

func BenchmarkDirect(b *testing.B) { exchangeOver(b, benchApp(b)) }

func BenchmarkGateway(b *testing.B) {
	d := open(b, Config{}, dialer(benchApp(b)))
	exchangeOver(b, d.addr)
}

func BenchmarkReverseProxy(b *testing.B) {
	target := &url.URL{Scheme: "http", Host: benchApp(b)}
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	b.Cleanup(transport.CloseIdleConnections)
	proxy := httptest.NewServer(&httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.SetXForwarded()
		r.Out.Host = r.In.Host
	}})
	b.Cleanup(proxy.Close)
	exchangeOver(b, proxy.Listener.Addr().String())
}
