package gvisor

import (
	_ "embed"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	_ "unsafe" // for go:linkname

	"gvisor.dev/gvisor/pkg/seccomp/precompiledseccomp"
	"gvisor.dev/gvisor/runsc/boot/filter"
)

// The sentry's seccomp filter is a program of a thousand instructions that gVisor compiles from its rules at every
// start, 16-22 ms, since the form in which it comes as a Go module leaves the programs out that it would otherwise have
// compiled ahead. So one lies here, for the one configuration sandboxes have (configure). TestSeccompProgram makes it
// (-update) and notices when gVisor's rules have changed; it is for the architecture in its name, and elsewhere gVisor
// compiles as before.
//
//go:embed seccomp.json
var seccompFile []byte

// seccompProgram is a precompiled program as it lies in the file.
type seccompProgram struct {
	Name    string           `json:"name"` // gVisor's key for the configuration, with the architecture
	Offsets map[string][]int `json:"offsets"`
	Words   string           `json:"words"` // little-endian, in base64
}

//go:linkname precompiledPrograms gvisor.dev/gvisor/runsc/boot/filter.precompiledPrograms
var precompiledPrograms map[string]precompiledseccomp.Program

// installSeccomp gives gVisor the precompiled program. If something is wrong with it, gVisor compiles its own.
func installSeccomp() {
	filter.ListPrecompiled() // sets the variable, once
	if program, err := loadSeccomp(seccompFile); err == nil && precompiledPrograms != nil {
		precompiledPrograms[program.Name] = program
	}
}

func loadSeccomp(data []byte) (precompiledseccomp.Program, error) {
	var file seccompProgram
	if err := json.Unmarshal(data, &file); err != nil {
		return precompiledseccomp.Program{}, err
	}
	raw, err := base64.StdEncoding.DecodeString(file.Words)
	if err != nil {
		return precompiledseccomp.Program{}, err
	}
	words := make([]uint32, len(raw)/4)
	for i := range words {
		words[i] = binary.LittleEndian.Uint32(raw[4*i:])
	}
	return precompiledseccomp.Program{Name: file.Name, Bytecode32: words, VarOffsets: file.Offsets}, nil
}

func storeSeccomp(program precompiledseccomp.Program) ([]byte, error) {
	var raw []byte
	for _, word := range program.Bytecode32 {
		raw = binary.LittleEndian.AppendUint32(raw, word)
	}
	return json.MarshalIndent(seccompProgram{
		Name: program.Name, Offsets: program.VarOffsets, Words: base64.StdEncoding.EncodeToString(raw),
	}, "", "\t")
}
