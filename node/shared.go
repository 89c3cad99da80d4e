package node

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/capacity"
	"github.com/lull-dev/lull/snapshot"
)

// shared is what the environments of all apps have together.
type shared struct {
	snapshots *snapshot.Store
	memory    *capacity.Memory
	wakes     *capacity.Turns
	writes    *capacity.Turns
}

func openShared(cfg Config) (s shared, err error) {
	budget := cfg.Memory
	if budget == 0 {
		if budget, err = machineMemory(); err != nil {
			return s, err
		}
		budget = budget / 5 * 4
	}
	s = shared{memory: capacity.NewMemory(budget), wakes: capacity.NewTurns(0), writes: capacity.NewTurns(0)}
	s.snapshots, err = snapshot.Open(filepath.Join(cfg.Data, "snapshots"), cfg.Snapshots, cfg.Log)
	return s, err
}

func machineMemory() (lull.Size, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0, fmt.Errorf("ask how much memory there is: %w", err)
	}
	return lull.Size(info.Totalram) * lull.Size(info.Unit), nil
}

func (s shared) gauges() []prometheus.Collector {
	gauge := func(name, help string, value func() lull.Size) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(value()) })
	}
	return []prometheus.Collector{
		gauge("lull_memory_bytes", "Memory that environments have, or may use while they run.", func() lull.Size { used, _ := s.memory.Used(); return used }),
		gauge("lull_memory_limit_bytes", "What they may use together.", func() lull.Size { _, total := s.memory.Used(); return total }),
		gauge("lull_snapshot_bytes", "Snapshots on disk.", func() lull.Size { used, _ := s.snapshots.Used(); return used }),
		gauge("lull_snapshot_limit_bytes", "What they may take together; 0: what the disk has.", func() lull.Size { _, limit := s.snapshots.Used(); return limit }),
	}
}

// raiseOpenFiles lets this process have as many files open as the system allows: a held stream needs two. Without the
// right to do so it goes as far as it may.
func raiseOpenFiles(log *slog.Logger) {
	limit := unix.Rlimit{}
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return
	}
	most := limit.Max
	if data, err := os.ReadFile("/proc/sys/fs/nr_open"); err == nil {
		var system uint64
		if _, err := fmt.Sscan(string(data), &system); err == nil {
			most = max(most, min(system, openFilesMost))
		}
	}
	for _, want := range []unix.Rlimit{{Cur: most, Max: most}, {Cur: limit.Max, Max: limit.Max}} {
		if unix.Setrlimit(unix.RLIMIT_NOFILE, &want) == nil {
			return
		}
	}
	log.Warn("the limit of open files could not be raised", "limit", limit.Cur)
}

const openFilesMost = 1 << 20
