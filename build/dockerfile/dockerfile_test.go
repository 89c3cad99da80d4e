package dockerfile_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/build/archive"
	"github.com/lull-dev/lull/build/dockerfile"
)

// plan is a build whose steps are Go functions, by the first argument.
type plan struct {
	files map[string]string // a value that begins with "-> " is a link, "fifo" a pipe
	steps map[string]func(root string) error
	limit archive.Limits
}

func (p plan) build(t *testing.T) (result dockerfile.Result, ran []dockerfile.Step, notes string, err error) {
	t.Helper()
	options := dockerfile.Options{Context: t.TempDir(), Work: t.TempDir(), File: "Dockerfile", Limits: p.limit}
	for name, text := range p.files {
		full := filepath.Join(options.Context, name)
		check(t, os.MkdirAll(filepath.Dir(full), 0o755))
		if to, ok := strings.CutPrefix(text, "-> "); ok {
			check(t, os.Symlink(to, full))
		} else {
			check(t, os.WriteFile(full, []byte(text), 0o644))
		}
	}
	options.Note = func(format string, args ...any) { notes += fmt.Sprintf(format, args...) + "\n" }
	options.Run = func(_ context.Context, step dockerfile.Step) error {
		ran = append(ran, step)
		if do := p.steps[step.Args[0]]; do != nil {
			return do(step.Root)
		}
		return nil
	}
	result, err = dockerfile.Build(t.Context(), options)
	return result, ran, notes, err
}

// tree lists a file system: files with their text, links with where they lead, directories that are empty.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	check(t, filepath.WalkDir(dir, func(full string, entry fs.DirEntry, err error) error {
		name := strings.TrimPrefix(full, dir+"/")
		switch {
		case err != nil || full == dir:
			return err
		case entry.Type()&fs.ModeSymlink != 0:
			to, err := os.Readlink(full)
			found[name] = "-> " + to
			return err
		case entry.IsDir():
			if inside, _ := os.ReadDir(full); len(inside) == 0 {
				found[name+"/"] = ""
			}
			return nil
		}
		text, err := os.ReadFile(full)
		found[name] = string(text)
		return err
	}))
	return found
}

func TestCopy(t *testing.T) {
	files := map[string]string{"a.txt": "a", "b.txt": "b", "dir/c": "c", "dir/sub/d": "d", "dir/link": "-> /etc/passwd", "to-a": "-> /a.txt",
		".dockerignore": "**/secret\nleft\n!left/kept\n", "secret": "x", "dir/sub/secret": "x", "left/gone": "x", "left/kept": "k"}
	for text, want := range map[string]map[string]string{
		"COPY a.txt /x":                       {"x": "a"},
		"COPY a.txt /x/":                      {"x/a.txt": "a"},
		"COPY ./a.txt /b.txt ./":              {"a.txt": "a", "b.txt": "b"},
		"COPY *.txt /":                        {"a.txt": "a", "b.txt": "b"},
		"COPY [ab].txt to-a /x/":              {"x/a.txt": "a", "x/b.txt": "b", "x/to-a": "a"},
		"COPY dir /":                          {"c": "c", "sub/d": "d", "link": "-> /etc/passwd"},
		"COPY dir/ x":                         {"x/c": "c", "x/sub/d": "d", "x/link": "-> /etc/passwd"},
		"COPY ../../dir/c /":                  {"c": "c"},
		"COPY left /l":                        {"l/kept": "k"},
		"WORKDIR /w\nWORKDIR v\nCOPY a.txt .": {"w/v/a.txt": "a"},
		"WORKDIR /w\nCOPY a.txt dir/c x/":     {"w/x/a.txt": "a", "w/x/c": "c"},
		"ENV D=/e/f\nARG N=a\nCOPY ${N}.txt $D/${X:-n}":                   {"e/f/n": "a"},
		"COPY [\"a.txt\", \"/with space/\"]":                              {"with space/a.txt": "a"},
		"COPY a.txt /x\nCOPY b.txt /x":                                    {"x": "b"},
		"COPY <<EOF <<'RAW' /x/\nhello $HOME${N:-you}\nEOF\nkeep $N\nRAW": {"x/EOF": "hello you\n", "x/RAW": "keep $N\n"},
		"COPY --from=other /o /p":                                         {"p": "a"},
		"COPY --from=0 / /all":                                            {"all/o": "a", "all/e/": ""},
	} {
		all := map[string]string{"Dockerfile": "FROM scratch AS other\nCOPY a.txt /o\nWORKDIR /e\nFROM scratch\n" + text + "\n"}
		for name, text := range files {
			all[name] = text
		}
		result, _, _, err := plan{files: all}.build(t)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if diff := cmp.Diff(want, tree(t, result.Root)); diff != "" {
			t.Errorf("%s (-want +got)\n%s", text, diff)
		}
	}
}

func TestSaysWhatIsWrong(t *testing.T) {
	for text, want := range map[string]string{
		"":                                             "dockerfile parse error", // of the parser: the file is empty
		"RUN x":                                        "Dockerfile:1: no build stage in current context",
		"FROM scratch\nCOPPY a b":                      "Dockerfile:2: unknown instruction: COPPY (did you mean COPY?)",
		"FROM scratch\n\nCOPY gone /":                  `Dockerfile:3: there is no "gone" to copy`,
		"FROM scratch\nCOPY secret /":                  `Dockerfile:2: there is no "secret" to copy`,
		"FROM scratch\nCOPY a b /x":                    `Dockerfile:2: several files are copied to "/x", which is not a directory`,
		"FROM scratch AS me\nCOPY --from=me / /":       "Dockerfile:2: --from=me names the stage that it is in",
		"FROM ./gone.tar":                              "Dockerfile:1: image: there is no image file ./gone.tar",
		"FROM ../../etc":                               "Dockerfile:1: image: there is no image file ../../etc",
		"FROM $NONE":                                   "Dockerfile:1: FROM has no name of an image",
		"FROM --platform=windows/amd64 scratch":        "Dockerfile:1: --platform=windows/amd64 is not what this node is",
		"FROM scratch\nADD http://x/y /":               "Dockerfile:2: ADD of http://x/y: only files of the app can be added",
		"FROM scratch\nONBUILD RUN x":                  "Dockerfile:2: ONBUILD is not carried out",
		"FROM scratch\nRUN --mount=type=secret,id=x y": "Dockerfile:2: RUN --mount=type=secret is not supported",
		"FROM scratch\nRUN --network=host y":           "Dockerfile:2: RUN --network=host is not supported",
		"FROM scratch\nCOPY --chown=gone a /":          `Dockerfile:2: image: there is no user "gone"`,
		"FROM scratch\nCOPY --chmod=u+x a /":           "Dockerfile:2: --chmod=u+x is not an octal mode",
		"FROM scratch\nUSER gone\nRUN x":               `Dockerfile:3: image: there is no user "gone"`,
		"FROM scratch\nEXPOSE http":                    `Dockerfile:2: EXPOSE: "http" is not a port`,
		"FROM scratch\nENV A=" + strings.Repeat("x", 40<<10) + "\nENV B=$A$A": "is longer than 64KB",
	} {
		_, _, _, err := plan{files: map[string]string{"Dockerfile": text, "a": "", "b": "", "secret": "", ".dockerignore": "secret"}}.build(t)
		if err == nil || !strings.Contains(err.Error(), strings.TrimPrefix(want, "dockerfile parse error")) || lull.KindOf(err) != lull.KindInvalid {
			t.Errorf("%.60q: kind %q: %v", text, lull.KindOf(err), err)
		}
	}
}

func TestWhatStepsSee(t *testing.T) {
	text := `# syntax=docker/dockerfile:1
ARG VERSION=1
ARG ONLY_GLOBAL=x
FROM --platform=$BUILDPLATFORM scratch
ARG VERSION
ARG OTHER=$VERSION-2
ARG TARGETOS
ENV A=a OTHER=env
COPY <<EOF /etc/passwd
web:x:7:8::/srv:/bin/sh
EOF
WORKDIR /w
RUN echo \
  # a comment
  $VERSION
SHELL ["/bin/bash", "-ec"]
USER web
RUN one <<EOF && two
text
EOF
RUN ["exec", "$A"]
RUN --network=none --mount=type=cache,target=/c x
CMD serve "$A"
ENTRYPOINT ["/entry"]
CMD ["a b"]
EXPOSE 80 8443/tcp ${PORTS:-53/udp}
HEALTHCHECK CMD x
VOLUME /data
STOPSIGNAL SIGQUIT
LABEL a=b
`
	result, ran, notes, err := plan{files: map[string]string{"Dockerfile": text}}.build(t)
	check(t, err)
	var args [][]string
	for _, step := range ran {
		args = append(args, step.Args)
	}
	want := [][]string{{"/bin/sh", "-c", "echo   $VERSION"}, {"/bin/bash", "-ec", "one <<EOF && two\ntext\nEOF"}, {"exec", "$A"}, {"/bin/bash", "-ec", "x"}}
	if diff := cmp.Diff(want, args); diff != "" {
		t.Error(diff)
	}
	env := []string{"A=a", "HOME=/srv", "OTHER=env", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TARGETOS=linux", "VERSION=1"}
	last := ran[3]
	slices.Sort(last.Env)
	if diff := cmp.Diff(env, last.Env); diff != "" {
		t.Error(diff)
	}
	if ran[0].User != "0:0" || last.User != "7:8" || last.Dir != "/w" || !last.Offline || ran[2].Offline {
		t.Errorf("%+v", ran)
	}
	if diff := cmp.Diff([]string{"/entry", "a b"}, result.Config.Args); diff != "" {
		t.Error(diff)
	}
	if !slices.Equal(result.Config.Ports, []int{80, 8443}) || result.Config.User != "web" || result.Config.Dir != "/w" {
		t.Errorf("%+v", result.Config)
	}
	for _, left := range []string{"--mount=type=cache", "HEALTHCHECK", "VOLUME", "STOPSIGNAL"} {
		if !strings.Contains(notes, left+" is left out") {
			t.Errorf("nothing says that %s is left out:\n%s", left, notes)
		}
	}
}

// What a step leaves behind must lead neither reads nor writes out of its stage.
func TestHostileSteps(t *testing.T) {
	outside := t.TempDir()
	check(t, os.WriteFile(filepath.Join(outside, "host"), []byte("host"), 0o644))
	steps := map[string]func(string) error{"hostile": func(root string) error {
		return errors.Join(
			os.Symlink(outside, filepath.Join(root, "out")),
			os.Symlink("../../../../../../.."+outside, filepath.Join(root, "up")),
			os.Symlink(filepath.Join(outside, "host"), filepath.Join(root, "file")),
			os.Symlink("loop", filepath.Join(root, "loop")),
			syscall.Mkfifo(filepath.Join(root, "pipe"), 0o644),
			os.WriteFile(filepath.Join(root, "setuid"), nil, 0o755),
			syscall.Chmod(filepath.Join(root, "setuid"), 0o6755),
		)
	}}
	base := "FROM scratch AS bad\nRUN [\"hostile\"]\n"
	for text, want := range map[string]string{
		"COPY a /out/":      "",
		"COPY a /up/x/y":    "",
		"COPY a /file":      "",
		"COPY dir /out":     "",
		"ADD a.tar /out/":   "",
		"WORKDIR /out/made": "",
		"COPY a /loop/x":    "too many links",
		"FROM scratch\nCOPY --from=bad /out/host /":           `there is no "/out/host"`,
		"FROM scratch\nCOPY --from=bad /file /":               `there is no "/file"`,
		"FROM scratch\nCOPY --from=bad /up/host /":            `there is no "/up/host"`,
		"FROM scratch\nCOPY --from=bad / /":                   "",
		"FROM scratch\nCOPY --from=bad /pipe /":               "",
		"COPY <<EOF /etc/passwd\nx:x:0:0::/:\nEOF\nUSER x":    "",
		"RUN [\"hostile-etc\"]\nUSER root\nRUN [\"nothing\"]": `there is no user "root"`,
	} {
		steps["hostile-etc"] = func(root string) error { return os.Symlink(outside, filepath.Join(root, "etc")) }
		result, _, _, err := plan{steps: steps, files: map[string]string{"a": "a", "dir/b": "b", "a.tar": tarOf(t, "c", "c"), "Dockerfile": base + text}}.build(t)
		if want == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
		if left := tree(t, outside); len(left) != 1 || left["host"] != "host" {
			t.Fatalf("%s: outside is %v", text, left)
		}
		if err != nil {
			continue
		}
		check(t, filepath.WalkDir(result.Root, func(name string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := entry.Info()
			if mode := info.Mode(); mode&(fs.ModeSetuid|fs.ModeSetgid|fs.ModeNamedPipe) != 0 {
				t.Errorf("%s: %s is %v", text, name, mode)
			}
			return err
		}))
	}
}

func TestLimits(t *testing.T) {
	huge := map[string]func(string) error{
		"sparse": func(root string) error {
			file := filepath.Join(root, "sparse")
			return errors.Join(os.WriteFile(file, nil, 0o644), os.Truncate(file, 1<<40))
		},
		"many": func(root string) (err error) {
			for i := range 60 {
				err = errors.Join(err, os.Mkdir(filepath.Join(root, fmt.Sprint(i)), 0o755))
			}
			return err
		},
	}
	limit := archive.Limits{Bytes: lull.MB, Entries: 50}
	for _, text := range []string{"RUN [\"sparse\"]", "RUN [\"many\"]", "COPY big /1\nCOPY big /2\nCOPY big /3", "COPY big /1\nFROM scratch\nCOPY --from=0 /1 /2\nCOPY --from=0 /1 /3",
		"ADD bomb.tar.gz /"} {
		var bomb bytes.Buffer
		packed := gzip.NewWriter(&bomb)
		_, err := packed.Write([]byte(tarOf(t, "x", strings.Repeat("x", 2<<20))))
		check(t, errors.Join(err, packed.Close()))
		_, _, _, err = plan{steps: huge, limit: limit, files: map[string]string{"Dockerfile": "FROM scratch\n" + text, "big": strings.Repeat("x", 400<<10), "bomb.tar.gz": bomb.String()}}.build(t)
		if lull.KindOf(err) != lull.KindTooLarge {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestOwnersAndModes(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("owners need root")
		}
		t.Skip("owners need root")
	}
	passwd := "web:x:7:8::/srv:/bin/sh\n"
	result, _, _, err := plan{files: map[string]string{"passwd": passwd, "a": "a", "dir/b": "b", "x.tar": tarOf(t, "d/c", "c"), "Dockerfile": `FROM scratch AS one
COPY passwd /etc/
COPY --chown=web --chmod=640 a /named
COPY --chown=5 dir /number
COPY --chown=web:9 a /group
ADD x.tar /unpacked/
FROM scratch
COPY --from=one / /
`}}.build(t)
	check(t, err)
	for name, want := range map[string]string{"etc/passwd": "0:0 644", "named": "7:8 640", "number/b": "5:5 644", "number": "5:5 755", "group": "7:9 644", "unpacked/d/c": "12:34 751"} {
		info, err := os.Lstat(filepath.Join(result.Root, name))
		check(t, err)
		stat := info.Sys().(*syscall.Stat_t)
		if got := fmt.Sprintf("%d:%d %o", stat.Uid, stat.Gid, info.Mode().Perm()); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
}

func tarOf(t *testing.T, name, body string) string {
	t.Helper()
	var data bytes.Buffer
	out := tar.NewWriter(&data)
	check(t, out.WriteHeader(&tar.Header{Name: name, Size: int64(len(body)), Mode: 0o751, Uid: 12, Gid: 34}))
	_, err := out.Write([]byte(body))
	check(t, errors.Join(err, out.Close()))
	return data.String()
}

func FuzzBuild(f *testing.F) {
	for _, text := range []string{"FROM scratch\nCOPY a /\n", "ARG A=1\nFROM scratch AS x\nENV B=${A:-$C}\nADD [\"a\", \"b\"]\n", "FROM scratch\nCOPY <<X /y\nz\nX\nEXPOSE 80-90\n"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.ContainsAny(text, "\\`") { // a line that goes on may name an image in a registry
			return
		}
		for line := range strings.Lines(strings.ToUpper(text)) {
			if strings.Contains(line, "FROM") && strings.TrimSpace(line) != "FROM SCRATCH" {
				return // may name an image in a registry
			}
		}
		_, _, _, _ = plan{files: map[string]string{"Dockerfile": text, "a": "a"}, limit: archive.Limits{Bytes: lull.MB, Entries: 1000}}.build(t)
	})
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
