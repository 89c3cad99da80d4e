package build

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/lull-dev/lull"
)

// writeImage writes the output of "docker save" of an image with a few files.
func writeImage(t *testing.T, file string, config v1.Config) {
	t.Helper()
	var data bytes.Buffer
	out := tar.NewWriter(&data)
	for name, body := range map[string]string{"etc/passwd": "web:x:33:34::/var/www:/bin/sh\n", "srv/server": "#!/bin/sh\n"} {
		check(t, out.WriteHeader(&tar.Header{Name: name, Size: int64(len(body)), Mode: 0o755}))
		_, err := io.WriteString(out, body)
		check(t, err)
	}
	check(t, out.Close())
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data.Bytes())), nil })
	check(t, err)
	image, err := mutate.AppendLayers(empty.Image, layer)
	check(t, err)
	described, err := image.ConfigFile()
	check(t, err)
	described = described.DeepCopy()
	described.OS, described.Architecture, described.Config = "linux", runtime.GOARCH, config
	image, err = mutate.ConfigFile(image, described)
	check(t, err)
	tag, err := name.NewTag("app:1")
	check(t, err)
	check(t, tarball.WriteToFile(file, tag, image))
}

func TestImage(t *testing.T) {
	config := v1.Config{Entrypoint: []string{"/srv/server"}, Cmd: []string{"--say", "two words"}, Env: []string{"A=1", "B=2", "PORT=9999"}, WorkingDir: "/srv",
		User: "web", ExposedPorts: map[string]struct{}{"3000/tcp": {}}}
	src := app(t, nil)
	writeImage(t, filepath.Join(src.Dir, "app.tar"), config)
	src.Manifest.Image = "./app.tar"
	src.Manifest.Env = map[string]string{"B": "mine"}
	result, _ := build(t, newBench(t), src)
	want := lull.Process{Args: []string{"/srv/server", "--say", "two words"}, Dir: "/srv", User: "33:34", Root: lull.RootImage, Port: 9999,
		Env: []string{"A=1", "B=mine", "HOME=/var/www", "PATH=" + toolPath}}
	if diff := cmp.Diff(want, result.Process); diff != "" {
		t.Error(diff)
	}
	if result.Manifest.Run != "/srv/server --say 'two words'" || result.Manifest.Port != 9999 {
		t.Errorf("%+v", result.Manifest)
	}
	if text, err := os.ReadFile(filepath.Join(result.Root, "srv/server")); err != nil || string(text) != "#!/bin/sh\n" {
		t.Errorf("%q %v", text, err)
	}
	if _, err := os.Stat(filepath.Join(src.Dir, ownDir, "scratch")); !errors.Is(err, os.ErrNotExist) {
		t.Error("files of the build are left")
	}
}

func TestImageWithItsOwnRun(t *testing.T) {
	src := app(t, nil)
	writeImage(t, filepath.Join(src.Dir, "app.tar"), v1.Config{Entrypoint: []string{"/entry"}, Cmd: []string{"cmd"}})
	src.Manifest.Image, src.Manifest.Run = "app.tar", "/srv/server -x"
	result, _ := build(t, newBench(t), src)
	want := lull.Process{Args: []string{"/srv/server", "-x"}, Dir: "/", User: "0:0", Root: lull.RootImage, Port: 8080, Env: []string{"HOME=/root", "PATH=" + toolPath}}
	if diff := cmp.Diff(want, result.Process); diff != "" {
		t.Error(diff)
	}
}

func TestImageSaysWhatIsWrong(t *testing.T) {
	for want, config := range map[string]v1.Config{
		"image: ./app.tar has neither an entry point nor a command": {},
		`image: there is no user "nobody-here" in the image`:        {Cmd: []string{"x"}, User: "nobody-here"},
	} {
		src := app(t, nil)
		writeImage(t, filepath.Join(src.Dir, "app.tar"), config)
		src.Manifest.Image = "./app.tar"
		if _, err := newBench(t).Build(t.Context(), src, io.Discard); err == nil || err.Error() != want || lull.KindOf(err) != lull.KindInvalid {
			t.Error(err)
		}
	}
}
