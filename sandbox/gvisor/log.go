package gvisor

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	gvisorlog "gvisor.dev/gvisor/pkg/log"
)

// gvisorLogger passes on what gVisor's code in this process has to say. Its warnings are about what would be faster or
// tidier, hints for whoever works on this package.
type gvisorLogger struct{ log *slog.Logger }

// Emit implements gVisor's log.Emitter.
func (l gvisorLogger) Emit(_ int, level gvisorlog.Level, _ time.Time, format string, args ...any) {
	if level > gvisorlog.Warning || !l.log.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	l.log.Debug("gvisor", "message", fmt.Sprintf(format, args...))
}
