package sandboxtest

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const writableProgram = `package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Println("new", os.WriteFile("/new", []byte("inside"), 0o640))
	fmt.Println("owner", os.Chown("/new", 4321, 55))
	fmt.Println("link", os.Symlink("/etc/passwd", "/link"))
	fmt.Println("remove", os.Remove("/old"))
	null, err := os.OpenFile("/dev/null", os.O_WRONLY, 0)
	fmt.Println("null", err)
	_, err = null.WriteString("x")
	fmt.Println("null", err)
	_, err = os.Stat("/proc/self/status")
	fmt.Println("proc", err)
	text, err := os.ReadFile("/etc/resolv.conf")
	fmt.Println("resolver", len(text) > 0, err)
	fmt.Println("resolver is everybody's", os.WriteFile("/etc/resolv.conf", nil, 0o644) != nil)
	fmt.Println("tmp", os.WriteFile("/tmp/file", nil, 0o644))
}
`

// writableRoot runs a program as a build's step: what it writes is in the image's files afterwards, with its owner.
func (s *suite) writableRoot(t *testing.T) {
	root, outside := t.TempDir(), t.TempDir()
	source := filepath.Join(outside, "src")
	if err := errors.Join(os.MkdirAll(source, 0o755), os.WriteFile(filepath.Join(root, "old"), nil, 0o644),
		os.WriteFile(filepath.Join(source, "main.go"), []byte(writableProgram), 0o644),
		os.WriteFile(filepath.Join(source, "go.mod"), []byte("module program\n\ngo 1.21\n"), 0o644),
		// Links of an earlier step that lead out must not make anything on the host.
		os.Symlink(outside, filepath.Join(root, "var")), os.Symlink(filepath.Join(outside, "made"), filepath.Join(root, "run"))); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", filepath.Join(root, "bin/program"), ".")
	build.Dir, build.Env = source, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the image's program: %v\n%s", err, out)
	}
	spec := s.spec("")
	spec.Root, spec.WritableRoot, spec.User, spec.Dir, spec.Mounts = root, true, "0:0", "/", nil
	spec.Args, spec.Env = []string{"program"}, []string{"PATH=/usr/bin:/bin"}
	b := s.start(t, spec)
	exit := b.ended()
	want := strings.Join([]string{"new <nil>", "owner <nil>", "link <nil>", "remove <nil>", "null <nil>", "null <nil>", "proc <nil>",
		"resolver true <nil>", "resolver is everybody's true", "tmp <nil>", ""}, "\n")
	if diff := cmp.Diff(want, b.out.tail()); diff != "" {
		t.Errorf("%+v (-want +got)\n%s%s", exit, diff, b.err.tail())
	}
	info, err := os.Lstat(filepath.Join(root, "new"))
	if err != nil {
		t.Fatal(err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || stat.Uid != 4321 || stat.Gid != 55 || info.Mode() != 0o640 {
		t.Errorf("the new file is %v of %+v", info.Mode(), stat)
	}
	if to, err := os.Readlink(filepath.Join(root, "link")); err != nil || to != "/etc/passwd" {
		t.Errorf("the link leads to %q: %v", to, err)
	}
	if _, err := os.Lstat(filepath.Join(root, "old")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what was removed is there: %v", err)
	}
	entries, err := os.ReadDir(outside)
	if err != nil || len(entries) != 1 {
		t.Errorf("outside are %v: %v", entries, err)
	}
}
