package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"pgregory.net/rapid"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/build/archive"
)

var here = v1.Platform{OS: "linux", Architecture: runtime.GOARCH}

// entry is one entry of a layer. Without kind it is a file, or a directory if its name ends in a slash.
type entry struct {
	name, link, body string
	kind             byte
	mode             int64
	uid, gid         int
}

func layerOf(t testing.TB, entries []entry) []byte {
	t.Helper()
	var data bytes.Buffer
	out := tar.NewWriter(&data)
	for _, e := range entries {
		header := &tar.Header{Name: e.name, Linkname: e.link, Typeflag: e.kind, Size: int64(len(e.body)), Mode: e.mode, Uid: e.uid, Gid: e.gid}
		if header.Typeflag == 0 && strings.HasSuffix(e.name, "/") {
			header.Typeflag = tar.TypeDir
		}
		if header.Mode == 0 {
			header.Mode = 0o755
		}
		check(t, out.WriteHeader(header))
		_, err := io.WriteString(out, e.body)
		check(t, err)
	}
	check(t, out.Close())
	return data.Bytes()
}

func imageOf(t testing.TB, config v1.Config, layers ...[]entry) v1.Image {
	t.Helper()
	image := empty.Image
	for _, entries := range layers {
		data := layerOf(t, entries)
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil })
		check(t, err)
		image, err = mutate.AppendLayers(image, layer)
		check(t, err)
	}
	file, err := image.ConfigFile()
	check(t, err)
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config = here.OS, here.Architecture, config
	image, err = mutate.ConfigFile(image, file)
	check(t, err)
	return image
}

func TestLayersOnTopOfEachOther(t *testing.T) {
	for _, c := range []struct {
		name   string
		layers [][]entry
		want   map[string]string
	}{
		{"files", [][]entry{{{name: "a", body: "1", mode: 0o640}, {name: "d/", mode: 0o700}, {name: "d/x", body: "x"}}, {{name: "a", body: "2"}}},
			map[string]string{"a": "-rwxr-xr-x 2", "d/": "drwx------", "d/x": "-rwxr-xr-x x"}},
		{"whiteout", [][]entry{{{name: "a"}, {name: "d/x"}, {name: "d/y"}}, {{name: ".wh.a"}, {name: "d/.wh.x"}, {name: "d/.wh.none"}}},
			map[string]string{"d/": "drwxr-xr-x", "d/y": "-rwxr-xr-x "}},
		{"whiteout of a directory and its return", [][]entry{{{name: "d/x"}, {name: "d/e/y"}}, {{name: ".wh.d"}}, {{name: "d/z"}}},
			map[string]string{"d/": "drwxr-xr-x", "d/z": "-rwxr-xr-x "}},
		{"whiteout does not touch its own layer", [][]entry{{{name: "d/x"}, {name: "f", body: "old"}}, {{name: "d/new"}, {name: "f", body: "new"}, {name: ".wh.d"}, {name: ".wh.f"}}},
			map[string]string{"d/": "drwxr-xr-x", "d/new": "-rwxr-xr-x ", "f": "-rwxr-xr-x new"}},
		{"opaque", [][]entry{{{name: "d/x"}, {name: "d/e/y"}, {name: "k"}}, {{name: "d/"}, {name: "d/n"}, {name: "d/e/m"}, {name: "d/.wh..wh..opq"}}},
			map[string]string{"d/": "drwxr-xr-x", "d/n": "-rwxr-xr-x ", "d/e/": "drwxr-xr-x", "d/e/m": "-rwxr-xr-x ", "k": "-rwxr-xr-x "}},
		{"a directory instead of a file and back", [][]entry{{{name: "a"}, {name: "b/x"}}, {{name: "a/"}, {name: "a/y"}, {name: "b"}}},
			map[string]string{"a/": "drwxr-xr-x", "a/y": "-rwxr-xr-x ", "b": "-rwxr-xr-x "}},
		{"a directory instead of a link", [][]entry{{{name: "l", link: "d", kind: tar.TypeSymlink}, {name: "d/x"}}, {{name: "l/"}, {name: "l/y"}}},
			map[string]string{"d/": "drwxr-xr-x", "d/x": "-rwxr-xr-x ", "l/": "drwxr-xr-x", "l/y": "-rwxr-xr-x "}},
		{"below links", [][]entry{{{name: "usr/lib/"}, {name: "lib", link: "usr/lib", kind: tar.TypeSymlink}, {name: "run/"}, {name: "var/run", link: "/run", kind: tar.TypeSymlink}},
			{{name: "lib/a.so"}, {name: "var/run/pid"}, {name: "lib/.wh.none"}}},
			map[string]string{"usr/": "drwxr-xr-x", "usr/lib/": "drwxr-xr-x", "usr/lib/a.so": "-rwxr-xr-x ", "lib": "-> usr/lib",
				"run/": "drwxr-xr-x", "run/pid": "-rwxr-xr-x ", "var/": "drwxr-xr-x", "var/run": "-> /run"}},
		{"links stay as they are", [][]entry{{{name: "a", link: "/etc/passwd", kind: tar.TypeSymlink}, {name: "b", link: "../../..", kind: tar.TypeSymlink}}},
			map[string]string{"a": "-> /etc/passwd", "b": "-> ../../.."}},
		{"hard links", [][]entry{{{name: "a", body: "1"}, {name: "b", link: "/a", kind: tar.TypeLink}, {name: "l", link: "a", kind: tar.TypeSymlink}, {name: "m", link: "l", kind: tar.TypeLink}}},
			map[string]string{"a": "-rwxr-xr-x 1", "b": "-rwxr-xr-x 1", "l": "-> a", "m": "-> a"}},
		{"setuid is dropped, sticky stays", [][]entry{{{name: "su", mode: 0o6755}, {name: "tmp/", mode: 0o1777}}},
			map[string]string{"su": "-rwxr-xr-x ", "tmp/": "dtrwxrwxrwx"}},
		{"devices are left out", [][]entry{{{name: "dev/sda", kind: tar.TypeBlock}, {name: "dev/p", kind: tar.TypeFifo}, {name: "/x"}}},
			map[string]string{"dev/": "drwxr-xr-x", "x": "-rwxr-xr-x "}},
		{"read-only directories", [][]entry{{{name: "ro/", mode: 0o555}, {name: "ro/x"}}}, map[string]string{"ro/": "dr-xr-xr-x", "ro/x": "-rwxr-xr-x "}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, err := unpack(t, imageOf(t, v1.Config{}, c.layers...))
			check(t, err)
			if diff := cmp.Diff(c.want, contents(t, dir)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestOwnersAreKept(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("owners can only be set as root: nothing to see here")
		return
	}
	dir, err := unpack(t, imageOf(t, v1.Config{}, []entry{{name: "d/", uid: 5, gid: 6}, {name: "d/f", uid: 7, gid: 8}, {name: "l", link: "/x", kind: tar.TypeSymlink, uid: 9}}))
	check(t, err)
	for file, want := range map[string][2]uint32{"d": {5, 6}, "d/f": {7, 8}, "l": {9, 0}} {
		info, err := os.Lstat(filepath.Join(dir, file))
		check(t, err)
		if owner := info.Sys().(*syscall.Stat_t); owner.Uid != want[0] || owner.Gid != want[1] {
			t.Errorf("%s belongs to %d:%d, want %v", file, owner.Uid, owner.Gid, want)
		}
	}
}

func TestLayersThatMeanHarm(t *testing.T) {
	for _, c := range []struct {
		name    string
		entries []entry
		want    string
	}{
		{"upwards", []entry{{name: "../../etc/passwd"}}, "would be written outside"},
		{"hard link upwards", []entry{{name: "x", link: "../../etc/passwd", kind: tar.TypeLink}}, "would be written outside"},
		{"hard link to nothing", []entry{{name: "x", link: "etc/passwd", kind: tar.TypeLink}}, "is not a file"},
		{"a loop", []entry{{name: "a", link: "b", kind: tar.TypeSymlink}, {name: "b", link: "a", kind: tar.TypeSymlink}, {name: "a/x"}}, "too many links"},
		{"below a file", []entry{{name: "a"}, {name: "a/x"}}, "not a directory"},
		{"whiteout of the parent", []entry{{name: "a/.wh..."}}, "takes away"},
		{"whiteout of itself", []entry{{name: "a/.wh.."}}, "takes away"},
		{"too many", []entry{{name: "1"}, {name: "2"}, {name: "3"}, {name: "4"}, {name: "5"}, {name: "6"}}, "holds more than"},
		{"too much", []entry{{name: "1", body: strings.Repeat("x", 101)}}, "holds more than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			tree, err := newTree(dir, archive.Limits{Bytes: 100, Entries: 5})
			check(t, err)
			defer tree.root.Close()
			err = tree.apply(t.Context(), bytes.NewReader(layerOf(t, c.entries)))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if kind := lull.KindOf(err); kind != lull.KindInvalid && kind != lull.KindTooLarge {
				t.Errorf("kind %q", kind)
			}
		})
	}
}

// TestLayersForgetHeaders: a directory's mode is set at the end, but its header, of up to 1 MB, is not kept until then.
func TestLayersForgetHeaders(t *testing.T) {
	var data bytes.Buffer
	out := tar.NewWriter(&data)
	for i := range 16 {
		check(t, out.WriteHeader(&tar.Header{Name: fmt.Sprintf("ü%d/", i), Typeflag: tar.TypeDir, Mode: 0o700,
			PAXRecords: map[string]string{"LULL.note": strings.Repeat("x", 1_000_000)}}))
	}
	check(t, out.Close())
	tree, err := newTree(t.TempDir(), archive.Limits{})
	check(t, err)
	defer tree.root.Close()
	before := heap()
	check(t, tree.apply(t.Context(), bytes.NewReader(data.Bytes())))
	if after := heap(); after > before+8<<20 {
		t.Errorf("%d bytes of %d are kept", after-before, data.Len())
	}
	check(t, tree.finish())
}

// heap returns how many bytes are in use.
func heap() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

// TestLayersStayInside writes below links that lead out on this machine, and inside in the image.
func TestLayersStayInside(t *testing.T) {
	part := rapid.SampledFrom([]string{"a", "b", "..", ".wh.a", ".wh..wh..opq", ""})
	rapid.Check(t, func(rt *rapid.T) {
		parent, err := os.MkdirTemp(t.TempDir(), "")
		check(t, err)
		check(t, os.WriteFile(filepath.Join(parent, "a"), []byte("untouched"), 0o600))
		dir := filepath.Join(parent, "in", "side")
		check(t, os.MkdirAll(dir, 0o755))
		for range rapid.IntRange(1, 3).Draw(rt, "layers") {
			var entries []entry
			for range rapid.IntRange(1, 8).Draw(rt, "entries") {
				e := entry{name: strings.Join(rapid.SliceOfN(part, 1, 4).Draw(rt, "name"), "/"), link: strings.Join(rapid.SliceOfN(part, 1, 5).Draw(rt, "link"), "/")}
				e.kind = rapid.SampledFrom([]byte{tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeSymlink, tar.TypeLink}).Draw(rt, "kind")
				if e.kind == tar.TypeReg {
					e.name = strings.TrimRight(e.name, "/") + "a"
				}
				if e.kind == tar.TypeSymlink && rapid.Bool().Draw(rt, "out") {
					e.link = parent
				}
				entries = append(entries, e)
			}
			tree, err := newTree(dir, archive.Limits{Entries: 100})
			check(t, err)
			tree.apply(t.Context(), bytes.NewReader(layerOf(t, entries)))
			tree.finish()
			tree.root.Close()
		}
		body, err := os.ReadFile(filepath.Join(parent, "a"))
		if beside, _ := os.ReadDir(parent); err != nil || string(body) != "untouched" || len(beside) != 2 {
			rt.Fatalf("something outside was changed: %v %q %v", beside, body, err)
		}
		if beside, _ := os.ReadDir(filepath.Join(parent, "in")); len(beside) != 1 {
			rt.Fatalf("something was written beside it: %v", beside)
		}
	})
}

func TestEveryForm(t *testing.T) {
	image := imageOf(t, v1.Config{Entrypoint: []string{"/serve"}, Cmd: []string{"-v"}, Env: []string{"A=b"}, WorkingDir: "/srv/app", User: "web",
		ExposedPorts: map[string]struct{}{"80/tcp": {}, "53/udp": {}, "443": {}}}, []entry{{name: "serve", body: "x"}})
	other, err := mutate.ConfigFile(image, &v1.ConfigFile{OS: "linux", Architecture: "s390x"})
	check(t, err)
	index := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: other, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "s390x"}}},
		mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: &here}},
		mutate.IndexAddendum{Add: other, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "unknown", Architecture: "unknown"}}})

	server := httptest.NewServer(registry.New())
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	forms := map[string]func(dir string) string{
		"docker save": func(dir string) string { return dockerArchive(t, image, dir) },
		"docker save, compressed": func(dir string) string {
			plain, err := os.ReadFile(filepath.Join(dir, dockerArchive(t, image, dir)))
			check(t, err)
			return compressed(t, plain, dir)
		},
		"layout": func(dir string) string {
			writeLayout(t, mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: image}), filepath.Join(dir, "layout"))
			return "./layout"
		},
		"layout of several platforms": func(dir string) string {
			writeLayout(t, index, filepath.Join(dir, "layout"))
			return "layout"
		},
		"layout as a file, with an index in the index": func(dir string) string {
			writeLayout(t, mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: index}), filepath.Join(dir, "layout"))
			var plain bytes.Buffer
			check(t, archive.Pack(&plain, filepath.Join(dir, "layout"), archive.Options{}))
			check(t, os.WriteFile(filepath.Join(dir, "oci.tar.zst"), plain.Bytes(), 0o644))
			return "./oci.tar.zst"
		},
		"registry": func(string) string {
			push(t, host+"/team/app:1", func(ref name.Reference) error { return remote.Write(ref, image) })
			return host + "/team/app:1"
		},
		"registry, several platforms": func(string) string {
			push(t, host+"/team/many:1", func(ref name.Reference) error { return remote.WriteIndex(ref, index) })
			return host + "/team/many:1"
		},
	}
	for form, prepare := range forms {
		t.Run(form, func(t *testing.T) {
			dir := t.TempDir()
			opened, err := Open(t.Context(), sourceOf(t, prepare(dir), dir))
			check(t, err)
			defer opened.Close()
			want := Config{Args: []string{"/serve", "-v"}, Env: []string{"A=b"}, Dir: "/srv/app", User: "web", Ports: []int{80, 443}}
			if diff := cmp.Diff(want, opened.Config()); diff != "" {
				t.Error(diff)
			}
			out := t.TempDir()
			check(t, opened.Unpack(t.Context(), out))
			files := map[string]string{"serve": "-rwxr-xr-x x", "srv/": "drwxr-xr-x", "srv/app/": "drwxr-xr-x"}
			if diff := cmp.Diff(files, contents(t, out)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	image := imageOf(t, v1.Config{}, []entry{{name: "x"}})
	foreign, err := mutate.ConfigFile(image, &v1.ConfigFile{OS: "linux", Architecture: "s390x"})
	check(t, err)
	server := httptest.NewServer(registry.New())
	host := strings.TrimPrefix(server.URL, "http://")
	defer server.Close()
	closed := httptest.NewServer(registry.New())
	unreachable := strings.TrimPrefix(closed.URL, "http://") + "/app:1"
	closed.Close()

	for _, c := range []struct {
		name    string
		prepare func(dir string) string
		kind    lull.Kind
		want    string
	}{
		{"no file", func(string) string { return "./missing.tar" }, lull.KindInvalid, "there is no image file ./missing.tar"},
		{"no file, no dot", func(string) string { return "missing.tar" }, lull.KindInvalid, "there is no image file missing.tar"},
		{"outside", func(string) string { return "../../etc" }, lull.KindInvalid, "there is no image file"},
		{"not a tar", func(dir string) string { return file(t, dir, "a.tar", strings.Repeat("garbage", 200)) }, lull.KindInvalid, "not a tar file"},
		{"cut gzip", func(dir string) string { return file(t, dir, "a.tgz", "\x1f\x8b\x08\x00") }, lull.KindInvalid, "gzip"},
		{"another tar", func(dir string) string { return file(t, dir, "a.tar", string(layerOf(t, []entry{{name: "x"}}))) },
			lull.KindInvalid, "holds neither manifest.json nor index.json"},
		{"huge configuration", func(dir string) string {
			return file(t, dir, "a.tar", string(layerOf(t, []entry{{name: "manifest.json", body: `[{"Config":"c"}]`}, {name: "c", body: strings.Repeat(" ", maxDocument+1)}})))
		}, lull.KindInvalid, "no configuration of at most 4MB"},
		{"broken manifest", func(dir string) string {
			return file(t, dir, "a.tar", string(layerOf(t, []entry{{name: "manifest.json", body: `[{]`}})))
		}, lull.KindInvalid, "manifest.json"},
		{"long name", func(dir string) string {
			return file(t, dir, "a.tar", string(layerOf(t, []entry{{name: strings.Repeat("n/", 2100) + "x"}})))
		}, lull.KindInvalid, "longer than 4096 bytes"},
		{"two manifests", func(dir string) string {
			return file(t, dir, "a.tar", string(layerOf(t, []entry{{name: "manifest.json", body: `[{"Config":"c"}]`}, {name: "./manifest.json", body: "[]"}})))
		}, lull.KindInvalid, `holds "manifest.json" twice`},
		{"link and configuration", func(dir string) string {
			return file(t, dir, "a.tar", string(layerOf(t, []entry{{name: "manifest.json", body: `[{"Config":"c"}]`}, {name: "c", link: "large", kind: tar.TypeSymlink}, {name: "c", body: "{}"}})))
		}, lull.KindInvalid, `holds "c" twice`},
		{"linked manifest", func(dir string) string {
			return file(t, dir, "a.tar", string(layerOf(t, []entry{{name: "manifest.json", link: "m", kind: tar.TypeSymlink}, {name: "m", body: `[{"Config":"c"}]`}})))
		}, lull.KindInvalid, "holds neither manifest.json nor index.json"},
		{"linked configuration", func(dir string) string {
			return file(t, dir, "a.tar", string(layerOf(t, []entry{{name: "manifest.json", body: `[{"Config":"c"}]`}, {name: "c", link: "x", kind: tar.TypeLink}, {name: "x", body: "{}"}})))
		}, lull.KindInvalid, "no configuration of at most 4MB"},
		{"directories twice", func(dir string) string {
			return file(t, dir, "a.tar", string(layerOf(t, []entry{{name: "d/"}, {name: "./d/"}, {name: "d/x"}})))
		}, lull.KindInvalid, "holds neither manifest.json nor index.json"},
		{"two images", func(dir string) string {
			one, _ := name.NewTag("one:1")
			two, _ := name.NewTag("two:2")
			check(t, tarball.MultiWriteToFile(filepath.Join(dir, "a.tar"), map[name.Tag]v1.Image{one: image, two: foreign}))
			return "a.tar"
		}, lull.KindInvalid, "holds 2 images"},
		{"other platform", func(dir string) string { return dockerArchive(t, foreign, dir) }, lull.KindInvalid, "is for linux/s390x; this node is linux/"},
		{"not a layout", func(dir string) string { check(t, os.Mkdir(filepath.Join(dir, "l"), 0o755)); return "l" }, lull.KindInvalid, "oci-layout is missing"},
		{"not in the registry", func(string) string { return host + "/team/none:1" }, lull.KindInvalid, "has no image"},
		{"registry out of reach", func(string) string { return unreachable }, lull.KindBuild, "image: fetch"},
		{"not a name", func(string) string { return "Not A Name" }, lull.KindInvalid, "neither a file of the app nor the name of an image"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			opened, err := Open(t.Context(), sourceOf(t, c.prepare(dir), dir))
			if err == nil {
				opened.Close()
				t.Fatal("no error")
			}
			if lull.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.want) {
				t.Errorf("kind %q: %v", lull.KindOf(err), err)
			}
		})
	}
}

// TestLayoutLeadsNowhereElse: what a build has put into a layout is not followed on this machine, and not waited for.
func TestLayoutLeadsNowhereElse(t *testing.T) {
	image := imageOf(t, v1.Config{}, []entry{{name: "x"}})
	manifest, err := image.Manifest()
	check(t, err)
	digest, err := image.Digest()
	check(t, err)
	for place, want := range map[string]string{
		"oci-layout": "oci-layout is not a regular file", "index.json": "index.json is not a regular file",
		"blobs": "blobs is not a directory", "blobs/sha256": "blobs/sha256 is not a directory",
		blob(digest): "is not a regular file", blob(manifest.Config.Digest): "is not a regular file",
		blob(manifest.Layers[0].Digest): "is not a regular file",
	} {
		for what, put := range map[string]func(moved, full string) error{
			"link": os.Symlink,
			"pipe": func(_, full string) error { return syscall.Mkfifo(full, 0o600) },
		} {
			dir := t.TempDir()
			writeLayout(t, mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: image}), filepath.Join(dir, "layout"))
			moved, full := filepath.Join(t.TempDir(), "moved"), filepath.Join(dir, "layout", place)
			check(t, os.Rename(full, moved))
			check(t, put(moved, full))
			opened, err := Open(t.Context(), sourceOf(t, "./layout", dir))
			if err == nil {
				opened.Close()
			}
			if lull.KindOf(err) != lull.KindInvalid || !strings.Contains(err.Error(), want) {
				t.Errorf("a %s at %s: %v", what, place, err)
			}
		}
	}
}

func TestLayoutIsBounded(t *testing.T) {
	dir := t.TempDir()
	image := imageOf(t, v1.Config{}, []entry{{name: "x", body: strings.Repeat("x", 1000)}})
	writeLayout(t, mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: image}), filepath.Join(dir, "layout"))
	for _, limits := range []archive.Limits{{Bytes: 100}, {Entries: 4}} { // there are five files
		source := sourceOf(t, "layout", dir)
		source.Limits = limits
		if _, err := Open(t.Context(), source); lull.KindOf(err) != lull.KindTooLarge {
			t.Errorf("%+v: %v", limits, err)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("the client has gone")
	cancel(gone)
	if _, err := Open(ctx, sourceOf(t, "layout", dir)); !errors.Is(err, gone) {
		t.Error(err)
	}
}

func TestUnpackStopsWithItsContext(t *testing.T) {
	dir := t.TempDir()
	opened, err := Open(t.Context(), sourceOf(t, dockerArchive(t, imageOf(t, v1.Config{}, []entry{{name: "x"}}), dir), dir))
	check(t, err)
	defer opened.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("the client has gone")
	cancel(gone)
	if err := opened.Unpack(ctx, t.TempDir()); !errors.Is(err, gone) {
		t.Error(err)
	}
}

func TestLookUp(t *testing.T) {
	dir, err := unpack(t, imageOf(t, v1.Config{}, []entry{{name: "real/passwd", body: "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/var/www:/bin/sh\nbad:x:y:0::/:\n"},
		{name: "etc", link: "/real", kind: tar.TypeSymlink}, {name: "real/group", body: "root:x:0:\nstaff:x:50:web\n"}}))
	check(t, err)
	for name, want := range map[string]User{
		"": {0, 0, "/root"}, "root": {0, 0, "/root"}, "web": {33, 34, "/var/www"}, "33": {33, 34, "/var/www"}, "web:staff": {33, 50, "/var/www"},
		"1000": {1000, 0, "/"}, "1000:7": {1000, 7, "/"}, "33:staff": {33, 50, "/var/www"},
	} {
		if got, err := LookUp(dir, name); got != want || err != nil {
			t.Errorf("%q: got %+v %v, want %+v", name, got, err, want)
		}
	}
	for _, name := range []string{"nobody", "web:nobody", "bad", "-1", "9999999999"} {
		if got, err := LookUp(dir, name); lull.KindOf(err) != lull.KindInvalid {
			t.Errorf("%q: %+v %v", name, got, err)
		}
	}
}

// FuzzLayer reads damaged layers.
func FuzzLayer(f *testing.F) {
	f.Add(layerOf(f, []entry{{name: "a/b", body: "x"}, {name: ".wh.a"}, {name: "l", link: "/", kind: tar.TypeSymlink}, {name: "l/x"}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		parent := t.TempDir()
		check(t, os.Mkdir(filepath.Join(parent, "inside"), 0o755))
		tree, err := newTree(filepath.Join(parent, "inside"), archive.Limits{Bytes: 1 << 20, Entries: 100})
		check(t, err)
		defer tree.root.Close()
		tree.apply(t.Context(), bytes.NewReader(data))
		if beside, _ := os.ReadDir(parent); len(beside) != 1 {
			t.Fatalf("written outside: %v", beside)
		}
	})
}

func sourceOf(t *testing.T, name, dir string) Source {
	t.Helper()
	return Source{Name: name, Dir: dir, Scratch: t.TempDir(), Platform: here, Limits: archive.Release().Limits}
}

func unpack(t *testing.T, image v1.Image) (string, error) {
	t.Helper()
	dir := t.TempDir()
	opened, err := Open(t.Context(), sourceOf(t, dockerArchive(t, image, dir), dir))
	check(t, err)
	defer opened.Close()
	out := t.TempDir()
	return out, opened.Unpack(t.Context(), out)
}

func dockerArchive(t *testing.T, image v1.Image, dir string) string {
	t.Helper()
	tag, err := name.NewTag("app:1")
	check(t, err)
	check(t, tarball.WriteToFile(filepath.Join(dir, "app.tar"), tag, image))
	return "./app.tar"
}

func writeLayout(t *testing.T, index v1.ImageIndex, dir string) {
	t.Helper()
	_, err := layout.Write(dir, index)
	check(t, err)
}

func compressed(t *testing.T, plain []byte, dir string) string {
	t.Helper()
	var data bytes.Buffer
	w := gzip.NewWriter(&data)
	w.Write(plain)
	check(t, w.Close())
	return file(t, dir, "app.tar.gz", data.String())
}

func push(t *testing.T, reference string, write func(name.Reference) error) {
	t.Helper()
	ref, err := name.ParseReference(reference)
	check(t, err)
	check(t, write(ref))
}

func file(t *testing.T, dir, name, body string) string {
	t.Helper()
	check(t, os.WriteFile(filepath.Join(dir, name), []byte(body), 0o644))
	return name
}

// contents describes what is in a directory, by name.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	check(t, filepath.WalkDir(dir, func(full string, d fs.DirEntry, err error) error {
		name, _ := filepath.Rel(dir, full)
		if err != nil || name == "." {
			return err
		}
		info, err := d.Info()
		check(t, err)
		switch {
		case d.IsDir():
			found[name+"/"] = info.Mode().String()
		case d.Type() == fs.ModeSymlink:
			target, err := os.Readlink(full)
			check(t, err)
			found[name] = "-> " + target
		default:
			body, err := os.ReadFile(full)
			check(t, err)
			found[name] = info.Mode().String() + " " + string(body)
		}
		return nil
	}))
	return found
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
