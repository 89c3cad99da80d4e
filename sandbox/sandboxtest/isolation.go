package sandboxtest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/sandbox"
)

func (s *suite) hostIsHidden(t *testing.T) {
	t.Setenv("SUITE_SECRET", "of the host")
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	b := s.serve(t)
	for _, path := range []string{secret, "/etc/shadow", "/etc/hostname~", "/root/.profile", "/var/lib/dpkg/status", "/etc/ssh", "/etc/machine-id"} {
		if got := b.ask("read", path); got.Error != "ENOENT" && got.Error != "EACCES" {
			t.Errorf("reading %s answers %+v, want that it is not there", path, got)
		}
	}
	for _, dir := range []string{"/root", "/home", "/opt", "/var/lib", "/srv", "/mnt", "/sys/class/net"} {
		var names []string
		if got := b.ask("list", dir); got.Error == "" {
			got.into(t, &names)
		}
		for _, name := range names {
			if name != "lo" && name != "eth0" {
				t.Errorf("%s/%s can be seen", dir, name)
			}
		}
	}
	var got given
	b.ask("info").into(t, &got)
	if _, ok := got.Env["SUITE_SECRET"]; ok {
		t.Error("the host's environment can be seen")
	}
	if len(got.Pids) > 3 {
		t.Errorf("sees processes %v", got.Pids)
	}
	if name, _ := os.Hostname(); got.Host == name {
		t.Errorf("has the host's name %s", name)
	}
}

func (s *suite) writable(t *testing.T) {
	b := s.serve(t, func(spec *sandbox.Spec) {
		spec.Env = []string{spec.Env[0], "HOME=/home/of/app"}
	})
	for path, want := range map[string]string{
		"/tmp/file": "", "/home/of/app/file": "", "/dev/shm/file": "", "/dev/null": "",
		"/usr/bin/file": "no", "/etc/file": "no", "/file": "no", "/etc/passwd": "no", "/proc/sysrq-trigger": "no",
	} {
		if got := b.ask("write", path, "text"); (got.Error == "") != (want == "") {
			t.Errorf("writing %s answers %+v", path, got)
		}
	}
	other := s.serve(t)
	if got := other.ask("read", "/tmp/file"); got.Error != "ENOENT" {
		t.Errorf("another sandbox reads /tmp/file: %+v", got)
	}
}

func (s *suite) users(t *testing.T) {
	for user, want := range map[string][2]int{"": {1000, 1000}, "0:0": {0, 0}, "1234:2345": {1234, 2345}, "1234": {1234, 0}} {
		b := s.serve(t, func(spec *sandbox.Spec) { spec.User = user })
		var got given
		b.ask("info").into(t, &got)
		if user == "" && got.UID != 0 && got.GID != 0 {
			continue // the driver's choice
		}
		if diff := cmp.Diff(want, [2]int{got.UID, got.GID}); diff != "" {
			t.Errorf("user %q: (-want +got)\n%s", user, diff)
		}
	}
	spec := s.spec("exit", "0")
	spec.User = "no-such-user"
	s.refused(t, spec, "no-such-user")
}

func (s *suite) mounts(t *testing.T) {
	host := map[sandbox.MountMode]string{}
	for _, mode := range []sandbox.MountMode{sandbox.ReadOnly, sandbox.Layered, sandbox.ReadWrite} {
		host[mode] = t.TempDir()
		if err := os.WriteFile(filepath.Join(host[mode], "file"), []byte("host"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b := s.serve(t, func(spec *sandbox.Spec) {
		spec.User = "0:0"
		spec.Mounts = []sandbox.Mount{
			{Source: host[sandbox.ReadOnly], Target: "/mounted/here/ro", Mode: sandbox.ReadOnly},
			{Source: host[sandbox.Layered], Target: "/app", Mode: sandbox.Layered},
			{Source: host[sandbox.ReadWrite], Target: "/work", Mode: sandbox.ReadWrite},
		}
	})
	for dir, want := range map[string]struct {
		mode         sandbox.MountMode
		inside, host string // content of the file after a write
	}{
		"/mounted/here/ro": {sandbox.ReadOnly, "host", "host"},
		"/app":             {sandbox.Layered, "inside", "host"},
		"/work":            {sandbox.ReadWrite, "inside", "inside"},
	} {
		if got := b.ask("read", dir+"/file").text(t); got != "host" {
			t.Errorf("%s/file holds %q at first", dir, got)
		}
		if got := b.ask("write", dir+"/file", "inside"); (got.Error == "") != (want.inside == "inside") {
			t.Errorf("writing %s/file answers %+v", dir, got)
		}
		if got := b.ask("read", dir+"/file").text(t); got != want.inside {
			t.Errorf("%s/file holds %q after a write, want %q", dir, got, want.inside)
		}
		if got, err := os.ReadFile(filepath.Join(host[want.mode], "file")); err != nil || string(got) != want.host {
			t.Errorf("the host's file of %s holds %q (%v) after a write, want %q", dir, got, err, want.host)
		}
	}
	s.layeredForEverybody(t)
	spec := s.spec("exit", "0")
	spec.Mounts = []sandbox.Mount{{Source: "/no/such/source", Target: "/app"}}
	s.refused(t, spec, "/no/such/source")
}

// A layered mount can be written by the unprivileged user, whoever owns it on the host, also below its top.
func (s *suite) layeredForEverybody(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "data"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "data/file"), []byte("host"), 0o644); err != nil {
		t.Fatal(err)
	}
	b := s.serve(t, func(spec *sandbox.Spec) {
		spec.Mounts = []sandbox.Mount{{Source: dir, Target: "/app", Mode: sandbox.Layered}}
		spec.Dir = "/app"
	})
	for _, path := range []string{"new", "data/new", "data/file"} {
		if got := b.ask("write", path, "inside"); got.Error != "" {
			t.Errorf("writing %s answers %s", path, got.Error)
		}
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 1 {
		t.Errorf("the host sees %v (%v)", names, err)
	}
}

// Whatever the egress, the host's own services are out of reach.
func (s *suite) egress(t *testing.T) {
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	for _, egress := range []lull.Egress{{lull.EgressNone}, {lull.EgressInternet}} {
		b := s.serve(t, func(spec *sandbox.Spec) { spec.Egress = egress })
		addrs, err := net.InterfaceAddrs() // with the host's end of the sandbox's link
		if err != nil {
			t.Fatal(err)
		}
		for _, addr := range addrs {
			ip := addr.(*net.IPNet).IP.To4()
			if ip == nil || ip.IsLoopback() {
				continue
			}
			var got struct{ Error string }
			b.ask("connect", ip.String(), port).into(t, &got)
			if got.Error == "" {
				t.Errorf("egress %v: reached a service of the host on %s", egress, ip)
			}
		}
	}
}

func (s *suite) imageRefused(t *testing.T) {
	spec := s.spec("exit", "0")
	spec.Root = t.TempDir()
	if sb, err := s.driver.Start(t.Context(), spec); !errors.Is(err, sandbox.ErrUnsupported) {
		if err == nil {
			sb.Close()
		}
		t.Errorf("error is %v, want %v", err, sandbox.ErrUnsupported)
	}
}

const imageProgram = `package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Println("user", os.Getuid(), os.Getgid())
	_, err := os.ReadFile("/usr/bin/env")
	fmt.Println("host", err == nil)
	fmt.Println("file", os.WriteFile("/data/file", []byte("inside"), 0o644))
	fmt.Println("new", os.WriteFile("/data/new", nil, 0o644))
	fmt.Println("tmp", os.WriteFile("/tmp/file", nil, 0o644))
	text, _ := os.ReadFile("/data/file")
	fmt.Println("reads", string(text))
	_, err = os.Stat("/etc/resolv.conf")
	fmt.Println("resolver", err == nil)
}
`

// image makes the root file system of a small image and runs its program as a user that only the image knows.
func (s *suite) image(t *testing.T) {
	root := t.TempDir()
	for path, text := range map[string]string{
		"etc/passwd":  "root:x:0:0::/:/none\nsomeone:x:4321:55::/data:/none\n",
		"etc/group":   "root:x:0:\nworkers:x:55:\n",
		"data/file":   "image",
		"src/main.go": imageProgram,
		"src/go.mod":  "module program\n\ngo 1.21\n",
	} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(root, path)), 0o755),
			os.WriteFile(filepath.Join(root, path), []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.Command("go", "build", "-o", filepath.Join(root, "bin/program"), ".")
	build.Dir, build.Env = filepath.Join(root, "src"), append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the image's program: %v\n%s", err, out)
	}
	for _, path := range []string{"data", "data/file"} {
		if err := os.Chown(filepath.Join(root, path), 4321, 55); err != nil {
			t.Fatal(err)
		}
	}
	for user, want := range map[string]string{"someone": "user 4321 55", "4321:workers": "user 4321 55", "4321": "user 4321 55"} {
		spec := s.spec("")
		spec.Root, spec.User, spec.Dir = root, user, "/data"
		spec.Args, spec.Env = []string{"program"}, []string{"PATH=/usr/bin:/bin"}
		b := s.start(t, spec)
		exit := b.ended()
		want = strings.Join([]string{want, "host false", "file <nil>", "new <nil>", "tmp <nil>", "reads inside", "resolver true", ""}, "\n")
		if diff := cmp.Diff(want, b.out.tail()); diff != "" {
			t.Errorf("user %s: %+v (-want +got)\n%s%s", user, exit, diff, b.err.tail())
		}
	}
	if text, err := os.ReadFile(filepath.Join(root, "data/file")); err != nil || string(text) != "image" {
		t.Errorf("the image's file holds %q (%v) afterwards", text, err)
	}
	if _, err := os.Stat(filepath.Join(root, "data/new")); err == nil {
		t.Error("the image has a new file afterwards")
	}
	spec := s.spec("")
	spec.Root, spec.Args = root, []string{"python3", fmt.Sprint(s.can)}
	s.refused(t, spec, "python3")
}
