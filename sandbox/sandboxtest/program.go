package sandboxtest

import (
	_ "embed"
	"slices"
)

//go:embed program.py
var programSource string

// Command returns the command line that runs the suite's own program in one of its modes, such as Command("exit", "3").
// The modes are listed at the top of program.py. It needs a python3 in the sandbox's runtime.
func Command(mode string, args ...string) []string {
	return append([]string{"python3", "-c", programSource, mode}, args...)
}

// ParseCommand takes apart what Command made, for a driver that plays the program instead of running it. ok is false
// for any other command line.
func ParseCommand(command []string) (mode string, args []string, ok bool) {
	if len(command) < 4 || !slices.Equal(command[:3], Command("")[:3]) {
		return "", nil, false
	}
	return command[3], command[4:], true
}
