package host

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// Mount is a mount of the calling process's mount namespace.
type Mount struct {
	Point   string
	Type    string // of the file system: nsfs, cgroup2, …
	Options string // of the file system: rw,cpu,cpuacct
}

// Mounts returns all mounts, in the order they were made.
func Mounts() ([]Mount, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	defer func() { _ = file.Close() }()
	mounts, err := parseMounts(file)
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	return mounts, nil
}

// parseMounts reads the format of /proc/PID/mountinfo, see proc_pid_mountinfo(5). The part before " - " has the mount
// point as its fifth word, the part after it type, source and options.
func parseMounts(r io.Reader) ([]Mount, error) {
	var mounts []Mount
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20) // overlay mounts have long lines
	for lines.Scan() {
		before, after, found := strings.Cut(lines.Text(), " - ")
		place, kind := strings.Fields(before), strings.Fields(after)
		if !found || len(place) < 5 || len(kind) < 1 {
			return nil, fmt.Errorf("line %q is not in the format of mountinfo", lines.Text())
		}
		mounts = append(mounts, Mount{Point: unescape(place[4]), Type: kind[0], Options: kind[len(kind)-1]})
	}
	return mounts, lines.Err()
}

// unescape undoes the kernel's \040 for a space and the like.
func unescape(text string) string {
	var plain strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+3 < len(text) {
			if char, err := strconv.ParseUint(text[i+1:i+4], 8, 8); err == nil {
				plain.WriteByte(byte(char))
				i += 3
				continue
			}
		}
		plain.WriteByte(text[i])
	}
	return plain.String()
}
