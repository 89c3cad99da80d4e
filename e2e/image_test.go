package e2e

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/lull-dev/lull/e2e/rig"
)

// An image as "docker save" writes it, and one as an OCI layout: its files, and nothing of the host's, are what the
// server sees, and it is started as the image says.
func TestImage(t *testing.T) {
	t.Parallel()
	s := sharedNode(t)
	image := smallImage(t)
	dir := t.TempDir()

	tag, err := name.NewTag("example.com/server:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := tarball.WriteToFile(filepath.Join(dir, "image.tar"), tag, image); err != nil {
		t.Fatal(err)
	}
	index, err := layout.Write(filepath.Join(dir, "layout"), empty.Index)
	if err == nil {
		err = index.AppendImage(image)
	}
	if err != nil {
		t.Fatal(err)
	}

	for app, source := range map[string]string{"from-archive": "./image.tar", "from-layout": "./layout"} {
		writeFile(t, filepath.Join(dir, "lull.yaml"), []byte("image: "+source+"\nenv: {GREETING: hello}\n"))
		s.deploy(dir, app)
		want := map[string]any{
			"args": []any{"/srv/server", "--quiet"}, "dir": "/srv", "greeting": "hello", "motd": "from the image\n",
			"uid": 1234.0, "gid": 4321.0, "hostPython": false,
		}
		got := decode[map[string]any](t, s.get(app, "/").Body)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("what the server of %s sees (-want +got):\n%s", app, diff)
		}
	}
}

// smallImage makes an image with two layers out of the static server in apps/image.
func smallImage(t *testing.T) v1.Image {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "server")
	if err := rig.GoBuild(within(t, 2*time.Minute), ".", "apps/image", binary); err != nil {
		t.Fatal(err)
	}
	server, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	base := layer(t, map[string]string{"etc/passwd": "root:x:0:0::/root:/bin/sh\nserver:x:1234:4321::/srv:/bin/sh\n", "srv/motd.txt": "from the base\n"})
	top := layer(t, map[string]string{"srv/server": string(server), "srv/motd.txt": "from the image\n"})
	image, err := mutate.AppendLayers(empty.Image, base, top)
	if err != nil {
		t.Fatal(err)
	}
	image, err = mutate.Config(image, v1.Config{
		Entrypoint: []string{"/srv/server"}, Cmd: []string{"--quiet"}, WorkingDir: "/srv", User: "server",
		Env:          []string{"PATH=/usr/bin:/bin", "GREETING=overridden by the manifest"},
		ExposedPorts: map[string]struct{}{"9000/tcp": {}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return image
}

func layer(t *testing.T, files map[string]string) v1.Layer {
	t.Helper()
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for path, text := range files {
		if err := w.WriteHeader(&tar.Header{Name: path, Mode: 0o755, Size: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	made, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(archive.Bytes())), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return made
}
