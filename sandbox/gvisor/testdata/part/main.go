// Command part is the smallest binary that sandboxes can be made of.
package main

import (
	"os"
	"syscall"

	"github.com/lull-dev/lull/sandbox/gvisor"
)

func main() {
	if os.Getenv("LULL_TEST_HANG") != "" { // of a sandbox's parts only the gofer has the node's environment
		_ = syscall.Pause()
	}
	gvisor.Main()
	os.Exit(2)
}
