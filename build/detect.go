package build

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"github.com/lull-dev/lull"
)

const recognised = "a directory with package.json (Node), requirements.txt or pyproject.toml (Python), go.mod (Go), a single executable, or a Dockerfile; " +
	"anything else with a lull.yaml that has run: or image:"

// detect finds out what kind of app the directory holds.
func (j *job) detect() (language, error) {
	found, err := j.candidates()
	if err != nil {
		return nil, err
	}
	run := j.manifest.Run
	for _, lang := range found {
		if slices.Contains(lang.tools(), firstWord(inPlace(run))) {
			return lang, nil
		}
	}
	// A Go or Python server often has a package.json for its pages: the one that can be started is the app.
	for _, lang := range found {
		if _, err := lang.command(j); err == nil && run == "" && j.manifest.Build == "" {
			return lang, nil
		}
	}
	if len(found) > 0 {
		return found[0], nil
	}
	if run != "" {
		return filesApp{}, nil
	}
	return j.program()
}

// candidate is a language with the commands that its apps are started with.
type candidate interface {
	language
	tools() []string
}

func (j *job) candidates() ([]candidate, error) {
	var found []candidate
	node, err := findNode(j)
	if err != nil {
		return nil, err
	}
	if node != nil {
		found = append(found, node)
	}
	if python := findPython(j); python != nil {
		found = append(found, python)
	}
	if j.has("go.mod") {
		found = append(found, &goApp{})
	}
	return found, nil
}

// entering is how a command begins that is run in a directory of the app.
var entering = regexp.MustCompile(`^\s*cd\s+(?:'[^']*'|"[^"]*"|\\.|[^\s'"\\;&|])+\s*&&\s*(?:exec\s+)?`)

// inPlace is a command without the way into its directory.
func inPlace(command string) string { return command[len(entering.FindString(command)):] }

func firstWord(command string) string {
	word, _, _ := strings.Cut(strings.TrimSpace(command), " ")
	return word
}

// program finds the one executable of a directory, or says why there is no app here.
func (j *job) program() (language, error) {
	entries, err := fs.ReadDir(j.root.FS(), ".")
	if err != nil {
		return nil, fmt.Errorf("read app: %w", err)
	}
	var programs, others []string
	var problem error
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), ".") && entry.Name() != "lull.yaml" {
			others = append(others, entry.Name())
		}
		is, err := j.isProgram(entry)
		if err != nil {
			problem = err
		} else if is {
			programs = append(programs, entry.Name())
		}
	}
	switch {
	case len(programs) == 1:
		return programApp{programs[0]}, nil
	case j.has("Dockerfile"):
		return nil, errDockerfile
	case len(programs) > 1:
		return nil, invalid("say which one in lull.yaml, such as run: ./"+programs[0], "there are %d programs in the directory: %s",
			len(programs), strings.Join(programs, ", "))
	case problem != nil:
		return nil, problem
	case len(others) == 0:
		return nil, invalid("deploy "+recognised, "the directory is empty: there is nothing to deploy")
	}
	return nil, invalid("deploy "+recognised, "there is no app in the directory that Lull recognises (it has %s)", list(others))
}

// list writes the first names of many.
func list(names []string) string {
	if len(names) > 8 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:8], ", "), len(names)-8)
	}
	return strings.Join(names, ", ")
}

// isProgram recognises a program for this machine. One for another machine is an error.
func (j *job) isProgram(entry fs.DirEntry) (bool, error) {
	if !entry.Type().IsRegular() {
		return false, nil
	}
	file, err := j.root.Open(entry.Name())
	if err != nil {
		return false, fmt.Errorf("read app: %w", err)
	}
	defer file.Close()
	start := make([]byte, 4)
	if _, err := io.ReadFull(file, start); err != nil {
		return false, nil
	}
	for _, magic := range []string{"\xcf\xfa\xed\xfe", "\xca\xfe\xba\xbe", "MZ"} {
		if bytes.HasPrefix(start, []byte(magic)) {
			return false, invalid("build it for Linux: GOOS=linux, or --target for other compilers", "%s is a program for another operating system", entry.Name())
		}
	}
	header, err := elf.NewFile(file)
	if err != nil || header.Type != elf.ET_EXEC && header.Type != elf.ET_DYN || !hasEntry(header) {
		return false, nil // a shared library has no place to start at
	}
	if want, known := machines[runtime.GOARCH]; known && header.Machine != want {
		return false, invalid("build it for "+runtime.GOARCH, "%s is a program for %s; this node is %s", entry.Name(), header.Machine, runtime.GOARCH)
	}
	return true, nil
}

func hasEntry(file *elf.File) bool {
	if file.Entry == 0 {
		return false
	}
	return file.Type == elf.ET_EXEC || slices.ContainsFunc(file.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) || isStaticPIE(file)
}

// isStaticPIE tells a program without an interpreter from a shared library: the flag is the linker's own word for it.
func isStaticPIE(file *elf.File) bool {
	flags, err := file.DynValue(elf.DT_FLAGS_1)
	return err == nil && len(flags) > 0 && flags[0]&uint64(elf.DF_1_PIE) != 0
}

var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64, "386": elf.EM_386, "arm": elf.EM_ARM,
	"riscv64": elf.EM_RISCV, "ppc64le": elf.EM_PPC64, "s390x": elf.EM_S390}

// programApp is a compiled program that needs nothing else.
type programApp struct{ file string }

func (p programApp) name() string                 { return "a program: " + p.file }
func (programApp) env(*job) []string              { return nil }
func (p programApp) command(*job) (string, error) { return joinWords([]string{"./" + p.file}), nil }
func (p programApp) build(_ context.Context, j *job) error {
	if err := j.root.Chmod(p.file, 0o755); err != nil && !errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("make %s executable: %w", p.file, err)
	}
	return nil
}

// filesApp is a directory whose manifest says how to run it, and nothing else is known.
type filesApp struct{}

func (filesApp) name() string                      { return "files, and how to run them in lull.yaml" }
func (filesApp) build(context.Context, *job) error { return nil }
func (filesApp) env(*job) []string                 { return nil }
func (filesApp) command(*job) (string, error) {
	return "", &lull.Error{Kind: lull.KindInvalid, Message: "nothing says how to start the app", Hint: "write run: into lull.yaml"}
}
