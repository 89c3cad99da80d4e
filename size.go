package lull

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes. As text it is a number with an optional unit: 256MB, 1.5GB, 4096. The units are powers of
// 1024 (KB, MB, GB; KiB, MiB and GiB are the same), as memory limits are commonly meant.
type Size int64

const (
	KB Size = 1 << 10
	MB Size = 1 << 20
	GB Size = 1 << 30
)

var sizeUnits = []struct {
	suffix string
	unit   Size
}{
	{"KIB", KB}, {"MIB", MB}, {"GIB", GB}, {"KB", KB}, {"MB", MB}, {"GB", GB},
	{"K", KB}, {"M", MB}, {"G", GB}, {"B", 1}, {"", 1},
}

// ParseSize reads a size such as 256MB.
func ParseSize(text string) (Size, error) {
	upper := strings.ToUpper(strings.TrimSpace(text))
	for _, u := range sizeUnits {
		number, ok := strings.CutSuffix(upper, u.suffix)
		if !ok {
			continue
		}
		value, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil || value < 0 || math.IsNaN(value) || value*float64(u.unit) > math.MaxInt64/2 {
			break
		}
		return Size(value * float64(u.unit)), nil
	}
	return 0, fmt.Errorf("%q is not a size: write a number and a unit, such as 256MB", text)
}

// String returns the size in its largest unit: 256MB, 1.5GB.
func (s Size) String() string {
	for _, u := range []struct {
		name string
		unit Size
	}{{"GB", GB}, {"MB", MB}, {"KB", KB}} {
		if s >= u.unit {
			return strconv.FormatFloat(math.Round(float64(s)/float64(u.unit)*10)/10, 'f', -1, 64) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}

// Duration is a time.Duration whose text form also knows days: 2s, 1h30m, 7d.
type Duration time.Duration

// ParseDuration reads a duration such as 2s or 7d; it may not be negative.
func ParseDuration(text string) (Duration, error) {
	text = strings.TrimSpace(text)
	var parsed time.Duration
	var err error
	if days, ok := strings.CutSuffix(text, "d"); ok {
		var n float64
		n, err = strconv.ParseFloat(days, 64)
		if n > 36500 {
			err = strconv.ErrRange
		}
		parsed = time.Duration(n * 24 * float64(time.Hour))
	} else {
		parsed, err = time.ParseDuration(text)
	}
	if err != nil || parsed < 0 {
		return 0, fmt.Errorf("%q is not a duration: write a number and a unit, such as 500ms, 2s, 5m, 7d", text)
	}
	return Duration(parsed), nil
}

// Std returns the duration as the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// String returns the duration in Go's form, without zero parts at the end: 5m, not 5m0s.
func (d Duration) String() string {
	text := time.Duration(d).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
