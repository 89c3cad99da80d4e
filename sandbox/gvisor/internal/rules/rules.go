// Package rules compiles the seccomp rules of gVisor's sentry ahead, as gVisor's own build does where it is not used as
// a Go module. It is for the test that keeps the compiled program up to date and not part of the binary.
package rules

import (
	"fmt"
	"maps"
	"os"
	"slices"
	_ "unsafe" // for go:linkname

	"gvisor.dev/gvisor/pkg/seccomp"
	"gvisor.dev/gvisor/pkg/seccomp/precompiledseccomp"
	"gvisor.dev/gvisor/pkg/sentry/platform"
	_ "gvisor.dev/gvisor/pkg/sentry/platform/systrap" // registers itself
	"gvisor.dev/gvisor/runsc/boot/filter/config"
)

// rulesFor is not exported. What is, config.Rules, has this process's id in it instead of a variable.
//
//go:linkname rulesFor gvisor.dev/gvisor/runsc/boot/filter/config.rules
func rulesFor(config.Options, precompiledseccomp.Values) (allow, deny seccomp.SyscallRules)

// Compile compiles the rules for the platform systrap with direct access to files and the sandbox's own network.
// (PrecompiledPrograms would compile all 576 configurations there are.)
func Compile() (precompiledseccomp.Program, error) {
	systrap, err := platform.Lookup("systrap")
	if err != nil {
		return precompiledseccomp.Program{}, err
	}
	options := config.Options{Platform: systrap.PrecompiledSeccompInfo()[0], HostFilesystem: true}
	variables := slices.Sorted(maps.Keys(options.Vars()))
	program, err := precompiledseccomp.Precompile(options.ConfigKey(), variables, func(values precompiledseccomp.Values) *seccomp.Program {
		allow, deny := rulesFor(options, values)
		return &seccomp.Program{
			RuleSets: []seccomp.RuleSet{{Rules: deny.Copy()}, {Rules: allow.Copy(), Action: seccomp.Allow}},
			Options:  config.SeccompOptions(options),
		}
	})
	if err != nil {
		return precompiledseccomp.Program{}, fmt.Errorf("compile seccomp rules: %w", err)
	}
	return program, makeVariable(program, uint32(os.Getpid()), selfPID)
}

// selfPID is the variable for the lower half of the sentry's process id.
const selfPID = "self_pid_low32bits"

// makeVariable makes a variable of the number that is this process's id. One of the platform's rules (for
// rt_tgsigqueueinfo) uses that in place of the variable, so that gVisor's own precompiled programs have the id of the
// process that compiled them in it.
func makeVariable(program precompiledseccomp.Program, number uint32, name string) error {
	for offset, word := range program.Bytecode32 {
		if word == number {
			program.Bytecode32[offset] = 0
			program.VarOffsets[name] = append(program.VarOffsets[name], offset)
		}
	}
	if found := len(program.VarOffsets[name]); found != 1 {
		return fmt.Errorf("%d (this process) is %d times in the program, want once: try again, as another process", number, found)
	}
	return nil
}
