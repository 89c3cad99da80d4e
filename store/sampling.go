package store

import (
	_ "unsafe" // for go:linkname

	_ "github.com/nats-io/nats-server/v2/server/pse" // must be linked for its variable to be there
)

//go:linkname procStatFile github.com/nats-io/nats-server/v2/server/pse.procStatFile
var procStatFile string

// StopSampling ends the timer with which the NATS server, from the moment it is linked in, reads its process's CPU time
// from /proc every second. Nobody here asks for that figure, and in a sandbox, which is the same binary, opening a file
// is death by seccomp. It must be called within a second of the start of the process.
//
// The timer ends at the first file it cannot read, and a name with a NUL byte fails without a system call.
func StopSampling() { procStatFile = "\x00" }
