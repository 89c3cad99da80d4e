package store

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"testing"
)

// BenchmarkOpen opens and closes a store that holds 500 apps with 4 releases each.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	s := open(b, dir)
	for app := range 500 {
		for range 4 {
			add(b, s, fmt.Sprintf("app%d", app), "small archive")
		}
		if err := s.Promote(b.Context(), fmt.Sprintf("app%d", app), 4); err != nil {
			b.Fatal(err)
		}
	}
	closed(b, s)
	b.ReportAllocs()
	for b.Loop() {
		s, err := Open(b.Context(), dir, slog.New(slog.DiscardHandler))
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		var mem runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&mem)
		b.ReportMetric(float64(mem.HeapInuse)/(1<<20), "MB-heap")
		b.ReportMetric(residentMB(), "MB-resident")
		closed(b, s)
		b.StartTimer()
	}
}

// BenchmarkOpenEmpty is the first start of a node, and the end of it.
func BenchmarkOpenEmpty(b *testing.B) {
	for b.Loop() {
		closed(b, open(b, b.TempDir()))
	}
}

func BenchmarkAddRelease(b *testing.B) {
	for _, size := range []int{0, 1 << 20, 64 << 20} {
		b.Run(fmt.Sprintf("%dMB", size>>20), func(b *testing.B) {
			s, data := open(b, b.TempDir()), make([]byte, size)
			b.SetBytes(int64(size))
			for b.Loop() {
				rel, err := s.AddRelease(b.Context(), release("chat"), bytes.NewReader(data))
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := s.RemoveRelease(b.Context(), "chat", rel.Number); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}

func BenchmarkFiles(b *testing.B) {
	s, data := open(b, b.TempDir()), make([]byte, 64<<20)
	rel, err := s.AddRelease(b.Context(), release("chat"), bytes.NewReader(data))
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		r, err := s.Files(b.Context(), rel)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(residentMB(), "MB-resident")
}

func BenchmarkApps(b *testing.B) {
	s := open(b, b.TempDir())
	for app := range 500 {
		add(b, s, fmt.Sprintf("app%d", app), "x")
	}
	for b.Loop() {
		if apps, err := s.Apps(context.Background()); err != nil || len(apps) != 500 {
			b.Fatal(len(apps), err)
		}
	}
}

// residentMB is how much memory the process has.
func residentMB() float64 {
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		var kb float64
		if n, _ := fmt.Sscanf(line, "VmRSS: %f kB", &kb); n == 1 {
			return kb / 1024
		}
	}
	return 0
}
