package build

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/sandbox"
)

// isolatedDriver says that it isolates, for builds that start nothing.
type isolatedDriver struct{ *hostDriver }

func (isolatedDriver) Capabilities() sandbox.Capabilities {
	return sandbox.Capabilities{Images: true, Isolation: true}
}

func TestDockerfileWithoutSteps(t *testing.T) {
	text := "FROM scratch\nCOPY server /\nENV PORT=9001 A=1 B=2\nCMD [\"/server\", \"two words\"]\n"
	for name, edit := range map[string]func(*Source){
		"named": func(src *Source) {
			src.Manifest.Dockerfile = "./docker/App"
			check(t, os.MkdirAll(filepath.Join(src.Dir, "docker"), 0o755))
			check(t, os.Rename(filepath.Join(src.Dir, "Dockerfile"), filepath.Join(src.Dir, "docker/App")))
		},
		"found": func(*Source) {},
	} {
		t.Run(name, func(t *testing.T) {
			src := app(t, map[string]string{"Dockerfile": text, "server": "not one for this machine"})
			src.Manifest.Env = map[string]string{"B": "mine"}
			edit(&src)
			b := newBench(t)
			b.config.Driver = isolatedDriver{b.driver}
			result, err := b.Build(t.Context(), src, io.Discard)
			check(t, err)
			want := lull.Process{Args: []string{"/server", "two words"}, Dir: "/", User: "0:0", Root: lull.RootImage, Port: 9001,
				Env: []string{"A=1", "B=mine", "HOME=/root", "PATH=" + toolPath}}
			if diff := cmp.Diff(want, result.Process); diff != "" {
				t.Error(diff)
			}
			if entries, err := os.ReadDir(result.Root); err != nil || len(entries) != 1 || entries[0].Name() != "server" {
				t.Errorf("%v %v", entries, err)
			}
		})
	}
}

func TestDockerfileSaysWhatIsWrong(t *testing.T) {
	for want, edit := range map[string]func(*Source){
		"a Dockerfile says how the app is built, and so does lull.yaml": func(src *Source) { src.Manifest.Dockerfile, src.Manifest.Build = "Dockerfile", "make" },
		"there is no gone":                                    func(src *Source) { src.Manifest.Dockerfile = "gone" },
		"there is no ../../etc/passwd":                        func(src *Source) { src.Manifest.Dockerfile = "../../etc/passwd" },
		"Dockerfile has neither an entry point nor a command": func(*Source) {},
	} {
		src := app(t, map[string]string{"Dockerfile": "FROM scratch\n"})
		edit(&src)
		b := newBench(t)
		b.config.Driver = isolatedDriver{b.driver}
		if _, err := b.Build(t.Context(), src, io.Discard); lull.KindOf(err) != lull.KindInvalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
