// Package sandboxed_test builds Dockerfiles in real sandboxes. It is apart from build/dockerfile because what links gVisor
// can be tested neither with the race detector nor by fuzzing.
package sandboxed_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/build"
	"github.com/lull-dev/lull/host"
	"github.com/lull-dev/lull/network"
	"github.com/lull-dev/lull/sandbox"
	"github.com/lull-dev/lull/sandbox/gvisor"
)

// newDriver makes a gVisor driver with a slot and a network of its own.
func newDriver(t *testing.T) sandbox.Driver {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("gvisor sandboxes need root")
		}
		t.Skip("gvisor sandboxes need root")
	}
	part := filepath.Join(t.TempDir(), "part")
	goBuild(t, "../../../sandbox/gvisor/testdata/part", part)
	slot, err := host.Claim(t.TempDir())
	check(t, err)
	check(t, slot.Sweep(slog.New(slog.DiscardHandler), gvisor.BundleOf, network.Sweep))
	net, err := network.Open(slot, network.Options{})
	if err != nil {
		t.Fatal(errors.Join(err, slot.Release()))
	}
	driver, err := gvisor.New(gvisor.Options{Slot: slot, Network: net, Executable: part, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(errors.Join(err, net.Close(), slot.Release()))
	}
	t.Cleanup(func() { check(t, errors.Join(driver.Close(), net.Close(), slot.Release())) })
	return driver
}

func goBuild(t *testing.T, source, target string) {
	t.Helper()
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", target, ".")
	cmd.Dir, cmd.Env = source, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
}

// baseImage is Debian's static busybox with its applets that a Dockerfile here needs.
func baseImage(t *testing.T) v1.Image {
	t.Helper()
	busybox, err := os.ReadFile("/usr/bin/busybox")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("busybox-static is missing")
		}
		t.Skip("busybox-static is missing")
	}
	var data bytes.Buffer
	out := tar.NewWriter(&data)
	put := func(header tar.Header, body []byte) {
		header.Size = int64(len(body))
		check(t, out.WriteHeader(&header))
		_, err := out.Write(body)
		check(t, err)
	}
	put(tar.Header{Name: "bin/busybox", Mode: 0o755}, busybox)
	for _, applet := range strings.Fields("sh cat chown chmod mkdir ln cp rm id echo ls test mkfifo stat touch sleep") {
		put(tar.Header{Name: "bin/" + applet, Typeflag: tar.TypeSymlink, Linkname: "busybox"}, nil)
	}
	put(tar.Header{Name: "etc/passwd", Mode: 0o644}, []byte("root:x:0:0::/root:/bin/sh\nweb:x:1234:4321::/srv:/bin/sh\n"))
	put(tar.Header{Name: "etc/group", Mode: 0o644}, []byte("root:x:0:\nweb:x:4321:\n"))
	check(t, out.Close())
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data.Bytes())), nil })
	check(t, err)
	image, err := mutate.AppendLayers(empty.Image, layer)
	check(t, err)
	described, err := image.ConfigFile()
	check(t, err)
	described = described.DeepCopy()
	described.OS, described.Architecture = "linux", runtime.GOARCH
	described.Config = v1.Config{Env: []string{"PATH=/bin", "FROM_BASE=yes"}, Cmd: []string{"/bin/sh"}}
	image, err = mutate.ConfigFile(image, described)
	check(t, err)
	return image
}

// inRegistry pushes an image to a registry in this process and returns its name.
func inRegistry(t *testing.T, image v1.Image) string {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo))))
	t.Cleanup(server.Close)
	reference, err := name.ParseReference(strings.TrimPrefix(server.URL, "http://") + "/base:1")
	check(t, err)
	check(t, remote.Write(reference, image))
	return reference.String()
}

func builds(t *testing.T, driver sandbox.Driver, files map[string]string, edit func(*lull.Manifest)) (build.Result, string, error) {
	t.Helper()
	src := build.Source{App: "app", Dir: t.TempDir(), Manifest: lull.DefaultManifest()}
	for path, text := range files {
		full := filepath.Join(src.Dir, path)
		check(t, errors.Join(os.MkdirAll(filepath.Dir(full), 0o755), os.WriteFile(full, []byte(text), 0o755)))
	}
	if edit != nil {
		edit(&src.Manifest)
	}
	var out bytes.Buffer
	result, err := build.New(build.Config{Driver: driver, Dir: t.TempDir()}).Build(t.Context(), src, &out)
	return result, out.String(), err
}

// get starts what was built and returns what it answers.
func get(t *testing.T, driver sandbox.Driver, result build.Result) string {
	t.Helper()
	p := result.Process
	var printed bytes.Buffer
	running, err := driver.Start(t.Context(), sandbox.Spec{ID: "app", Root: result.Root, Args: p.Args, Env: append(p.Env, fmt.Sprint("PORT=", p.Port)),
		Dir: p.Dir, User: p.User, Limits: lull.DefaultManifest().Resources, Egress: lull.Egress{lull.EgressNone}, Stdout: &printed, Stderr: &printed})
	check(t, err)
	defer running.Close()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for deadline := time.After(20 * time.Second); ; {
		found, err := running.Listeners(t.Context())
		if err == nil && len(found) > 0 {
			break
		}
		select {
		case <-again.C:
		case <-running.Done():
			t.Fatalf("the app has ended: %+v\n%s", running.Exit(), printed.String())
		case <-deadline:
			t.Fatalf("the app does not listen: %v %v", found, err)
		}
	}
	conn, err := running.Dial(t.Context(), p.Port)
	check(t, err)
	defer conn.Close()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil }}}
	answer, err := client.Get("http://app/")
	check(t, err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	check(t, err)
	return string(body)
}

func TestStagesAreBuiltAndServe(t *testing.T) {
	driver := newDriver(t)
	base := inRegistry(t, baseImage(t))
	binary := filepath.Join(t.TempDir(), "server")
	goBuild(t, "testdata/server", binary)
	server, err := os.ReadFile(binary)
	check(t, err)
	files := map[string]string{"server": string(server), "Dockerfile": `
ARG BASE=` + base + `
FROM $BASE AS made
ARG WORD=hello
WORKDIR /made-in
RUN test "$WORD $FROM_BASE $(id -u) $PWD" = "hello yes 0 /made-in" && echo "$WORD" >made
RUN ["/bin/busybox", "chown", "1234:4321", "/made-in/made"]
RUN <<EOF
set -e
chmod 4750 made
mkfifo pipe
ln -s /etc/passwd leads-out
cat /etc/resolv.conf >/dev/null
EOF
USER web
RUN test "$(id -u):$(id -g) $HOME" = 1234:4321\ /srv && touch /tmp/mine

FROM made AS unused
RUN false

FROM scratch
COPY server /server
COPY --from=made /etc/passwd /etc/
COPY --from=made /made-in/ /srv/
ENV GREETING="hello  there"
EXPOSE 9000
USER web
ENTRYPOINT ["/server"]
CMD ["--quiet"]
`}
	result, out, err := builds(t, driver, files, func(m *lull.Manifest) { m.Dockerfile = "Dockerfile" })
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if result.Process.Port != 9000 || result.Process.User != "1234:4321" || result.Process.Root != lull.RootImage {
		t.Errorf("%+v", result.Process)
	}
	for path, want := range map[string]os.FileMode{"srv/made": 0o750, "srv/leads-out": os.ModeSymlink | 0o777} {
		if info, err := os.Lstat(filepath.Join(result.Root, path)); err != nil || info.Mode() != want {
			t.Errorf("%s: %v %v", path, info, err)
		}
	}
	if _, err := os.Lstat(filepath.Join(result.Root, "srv/pipe")); err == nil {
		t.Error("a pipe is in the release")
	}
	if strings.Contains(out, "RUN false") {
		t.Errorf("a stage that nobody needs was built:\n%s", out)
	}
	want := `1234:4321 [--quiet] "hello\n" <nil> false hello  there`
	if got := get(t, driver, result); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestStageOnTopOfAnother(t *testing.T) {
	driver := newDriver(t)
	src := t.TempDir()
	path, err := layout.Write(src, empty.Index)
	check(t, err)
	check(t, path.AppendImage(baseImage(t)))
	files := map[string]string{"sub/Dockerfile.app": "FROM ./base AS a\nRUN echo one >/one\nFROM a AS b\nRUN rm /one && echo two >/two\nFROM a\nCOPY --from=b /two /\nRUN test -e /one -a -e /two\n"}
	check(t, filepath.WalkDir(src, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		files["base/"+strings.TrimPrefix(path, src+"/")] = string(data)
		return err
	}))
	result, out, err := builds(t, driver, files, func(m *lull.Manifest) { m.Dockerfile = "./sub/Dockerfile.app" })
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if result.Manifest.Run != "/bin/sh" {
		t.Errorf("%+v", result.Manifest)
	}
}

func TestStepsThatFail(t *testing.T) {
	driver := newDriver(t)
	base := inRegistry(t, baseImage(t))
	// The steps that fail take a moment: of one that fails at once the code may not be heard.
	for text, want := range map[string]string{
		"FROM " + base + "\nRUN echo broken; exit 3\n": "build: RUN echo broken; exit 3 exited with code 3\n  RUN echo broken; exit 3\n  broken",
		"FROM scratch\nRUN true\n":                     "build: RUN true",
		"FROM scratch\n":                               "has neither an entry point nor a command",
		// What a step leaves must not lead later ones, or us, out of the stage.
		"FROM " + base + "\nRUN rm -rf /etc && ln -s / /etc && rm -rf /tmp && ln -s /proc /tmp\nCOPY Dockerfile /etc/\nRUN test -e /Dockerfile && exit 4\n": "exited with code 4",
		"FROM " + base + "\nRUN rm -rf /dev && ln -s /etc /dev; exit 0\nRUN exit 5":                                                                         "exited with code 5",
	} {
		_, out, err := builds(t, driver, map[string]string{"Dockerfile": text}, nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n%v\nwant %s\n%s", text, err, want, out)
		}
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
