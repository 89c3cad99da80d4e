// Command part is the smallest binary that sandboxes can be made of.
package main

import (
	"os"

	"github.com/lull-dev/lull/sandbox/gvisor"
)

func main() {
	gvisor.Main()
	os.Exit(2)
}
