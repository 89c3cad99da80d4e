package gvisor

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"

	"gvisor.dev/gvisor/runsc/specutils"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/sandbox"
)

// maker is what made a snapshot. Only its like can restore it: the state of gVisor's kernel is written as it lies in
// memory, type by type, and the app's code has found out what its processor can do.
type maker struct {
	GVisor     string `json:"gvisor"`     // its version
	Executable string `json:"executable"` // its build, down to the last byte
	Arch       string `json:"arch"`
	CPU        string `json:"cpu"`
}

func (m maker) mustBe(here maker) error {
	for _, part := range []struct{ what, was, is string }{
		{"gVisor", m.GVisor, here.GVisor},
		{"executable", m.Executable, here.Executable},
		{"architecture", m.Arch, here.Arch},
		{"processor", m.CPU, here.CPU},
	} {
		if part.was != part.is {
			return fmt.Errorf("it was made with another %s: %q, here it is %q", part.what, part.was, part.is)
		}
	}
	return nil
}

// thisMaker describes the sandboxes made here. The executable, which it reads once, is the one that useExecutable chose.
func thisMaker() (maker, error) {
	exePathMu.Lock()
	defer exePathMu.Unlock()
	if known, ok := makers[specutils.ExePath]; ok {
		return known, nil
	}
	id, err := buildID(specutils.ExePath)
	if err != nil {
		return maker{}, fmt.Errorf("identify the sandboxes' executable: %w", err)
	}
	found := maker{GVisor: gvisorVersion(), Executable: id, Arch: runtime.GOARCH, CPU: processor()}
	makers[specutils.ExePath] = found
	return found, nil
}

// makers are those known, by the path of the executable. Guarded by exePathMu.
var makers = map[string]maker{}

func gvisorVersion() string {
	const module = "gvisor.dev/gvisor"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	i := slices.IndexFunc(info.Deps, func(m *debug.Module) bool { return m.Path == module })
	if i < 0 {
		return ""
	}
	return info.Deps[i].Version + " " + info.Deps[i].Sum
}

// buildID returns what the Go linker wrote into an executable to tell it from all others, or else the hash of all of it.
func buildID(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	if parsed, err := elf.NewFile(file); err == nil {
		if section := parsed.Section(".note.go.buildid"); section != nil {
			if note, err := section.Data(); err == nil && len(note) > 32 {
				return hashOf(bytes.NewReader(note))
			}
		}
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	return hashOf(file)
}

func hashOf(r io.Reader) (string, error) {
	hash := sha256.New()
	if _, err := io.Copy(hash, r); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)[:16]), nil
}

// processor says what an app may have found out about the processor: its make and what it can do.
var processor = sync.OnceValue(func() string {
	data, _ := os.ReadFile("/proc/cpuinfo")
	return processorIn(data)
})

// processorIn reads the first processor's entry in /proc/cpuinfo.
func processorIn(cpuinfo []byte) string {
	vendor, features := "", ""
	for lines := bufio.NewScanner(bytes.NewReader(cpuinfo)); lines.Scan() && lines.Text() != ""; {
		name, value, _ := strings.Cut(lines.Text(), ":")
		switch strings.TrimSpace(name) {
		case "vendor_id", "CPU implementer":
			vendor = strings.TrimSpace(value)
		case "flags", "Features":
			words := strings.Fields(value)
			slices.Sort(words)
			features, _ = hashOf(strings.NewReader(strings.Join(words, " ")))
		}
	}
	return vendor + " " + features
}

// digest is a spec's fingerprint, without what may differ between a start and a restore.
func digest(spec sandbox.Spec) string {
	text, _ := json.Marshal(struct { // strings, numbers and lists of them: it cannot fail
		ID, Root string
		Mounts   []sandbox.Mount
		Args     []string
		Env      []string
		Dir      string
		User     string
		Limits   lull.Resources
	}{spec.ID, spec.Root, spec.Mounts, spec.Args, spec.Env, spec.Dir, spec.User, spec.Limits})
	sum, _ := hashOf(bytes.NewReader(text))
	return sum
}
