package rig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/lull-dev/lull/host"
)

// bundle returns the directory of an environment's sandbox in a node's slot, or in any. One that was woken in a spare has
// a link there to the spare's.
func bundle(slot, environment string) string {
	found, _ := filepath.Glob(filepath.Join(host.DefaultDir, slot, "gvisor", "sandboxes", environment))
	for _, dir := range found {
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			return real
		}
	}
	return "" // none, or not any more
}

// Members lists the processes that are in any cgroup of an environment.
func Members(slot, environment string) []int {
	var pids []int
	sandbox := filepath.Base(bundle(slot, environment))
	for _, dir := range cgroups(slot) {
		if !strings.Contains(dir, environment) && filepath.Base(dir) != sandbox {
			continue
		}
		procs, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs")) // the cgroup may go meanwhile
		for field := range strings.FieldsSeq(string(procs)) {
			if pid, err := strconv.Atoi(field); err == nil && !slices.Contains(pids, pid) {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// Sentries lists the sandbox processes of an environment that run from a binary, in the order of their numbers: the
// sentry itself, not its gofer, and nothing that runs inside.
func Sentries(binary, environment string) []int {
	var pids []int
	sandbox := bundle("*", environment)
	is := func(command []byte) bool {
		return bytes.Contains(command, []byte(environment)) || sandbox != "" && bytes.Contains(command, []byte(sandbox+"\x00"))
	}
	links, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, link := range links {
		target, _ := os.Readlink(link)
		if strings.TrimSuffix(target, " (deleted)") != binary {
			continue
		}
		command, _ := os.ReadFile(filepath.Join(filepath.Dir(link), "cmdline"))
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(link)))
		if err == nil && bytes.HasPrefix(command, []byte("runsc-sandbox")) && is(command) {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids
}

// SnapshotDir returns where the snapshot of an environment lies.
func (n *Node) SnapshotDir(environment string) string {
	return filepath.Join(n.Data, "snapshots", environment)
}

// DiskUsage returns how many bytes of disk the files below a directory take; 0 if there is none.
func DiskUsage(dir string) (used int64, err error) {
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // gone meanwhile
		}
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		size, err := onDisk(path)
		used += size
		return err
	})
	return used, err
}

// onDisk returns how much of the disk a file takes, which is less than its size if it has holes; 0 if it has gone.
func onDisk(path string) (int64, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	const block = 512 // st_blocks counts these, whatever the file system's own are
	return info.Sys().(*syscall.Stat_t).Blocks * block, nil
}

// Metrics asks for /metrics and returns the values by name and labels as they are printed, such as
// lull_environments{app="chat",state="paused"}, and for each name also the sum over its labels.
func (n *Node) Metrics(ctx context.Context) (map[string]float64, error) {
	token, err := n.Token()
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.API+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET /metrics: %s: %.200s %w", resp.Status, text, err)
	}
	return readMetrics(string(text))
}

// readMetrics reads the text format of Prometheus.
func readMetrics(text string) (map[string]float64, error) {
	values := map[string]float64{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		at := strings.LastIndexByte(line, ' ')
		if line == "" || line[0] == '#' || at < 0 {
			continue
		}
		value, err := strconv.ParseFloat(line[at+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("read the metric %q: %w", line, err)
		}
		values[line[:at]] = value
		if name, _, labelled := strings.Cut(line[:at], "{"); labelled {
			values[name] += value
		}
	}
	return values, nil
}
