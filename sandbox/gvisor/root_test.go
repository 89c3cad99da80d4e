package gvisor

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lull-dev/lull/sandbox"
)

func TestRootMakesWhatTheProcessNeeds(t *testing.T) {
	spec := sandbox.Spec{
		Dir: "/srv/here", Env: []string{"HOME=/x", "HOME=/home/app"},
		Mounts: []sandbox.Mount{{Source: "/a", Target: "/app/deep", Mode: sandbox.Layered}, {Source: "/b", Target: "/app"}},
	}
	r := rootOf(spec, user{7, 8}, "/etc-of-ours")
	for _, path := range []string{"/home/app", "/srv/here"} {
		if !slices.Contains(r.Dirs, dir{Path: path, Mode: 0o755, UID: 7, GID: 8}) {
			t.Errorf("%s is not made for the user: %+v", path, r.Dirs)
		}
	}
	outer := slices.IndexFunc(r.Binds, func(b bind) bool { return b.Target == "/app" })
	inner := slices.IndexFunc(r.Binds, func(b bind) bool { return b.Target == "/app/deep" })
	if outer < 0 || inner < outer || r.Binds[outer].Shown || !r.Binds[inner].Shown {
		t.Errorf("mounts are %+v", r.Binds)
	}
	for _, place := range []string{"/", "/usr/local", "/etc/x", "/app", "/app/sub", "/bin/x", "/tmp", "relative"} {
		if r.lacks(place) {
			t.Errorf("%s would be made", place)
		}
	}
}

func TestCheckMounts(t *testing.T) {
	source := t.TempDir()
	writeFiles(t, source, map[string]string{"there/file": ""})
	for name, c := range map[string]struct {
		mounts []sandbox.Mount
		want   string // in the error; "": none
	}{
		"none":            {nil, ""},
		"plain":           {[]sandbox.Mount{{Source: source, Target: "/app"}}, ""},
		"nested":          {[]sandbox.Mount{{Source: source, Target: "/app"}, {Source: source, Target: "/app/there"}}, ""},
		"no place inside": {[]sandbox.Mount{{Source: source, Target: "/app/not-there"}, {Source: source, Target: "/app"}}, "there is no not-there"},
		"nothing in usr":  {[]sandbox.Mount{{Source: source, Target: "/usr/not-there"}}, "there is no not-there"},
		"in usr":          {[]sandbox.Mount{{Source: source, Target: "/usr/lib"}}, ""},
		"relative target": {[]sandbox.Mount{{Source: source, Target: "app"}}, "not an absolute path"},
		"root":            {[]sandbox.Mount{{Source: source, Target: "/x/.."}}, "not an absolute path below the root"},
		"no source":       {[]sandbox.Mount{{Source: source + "/no", Target: "/app"}}, source + "/no"},
		"twice":           {[]sandbox.Mount{{Source: source, Target: "/app"}, {Source: "/usr", Target: "/app/"}}, "mounted on /app/ already"},
	} {
		err := checkMounts(sandbox.Spec{Mounts: c.mounts})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error is %v, want %q", name, err, c.want)
		}
	}
}

func TestHostZone(t *testing.T) {
	linked := t.TempDir()
	if err := os.Symlink("../usr/share/zoneinfo/Etc/UTC", filepath.Join(linked, "localtime")); err != nil {
		t.Fatal(err)
	}
	named := t.TempDir()
	writeFiles(t, named, map[string]string{"localtime": "TZif", "timezone": "Etc/UTC\n"})
	wild := t.TempDir()
	writeFiles(t, wild, map[string]string{"timezone": "../../../etc/passwd\n"})
	for etc, want := range map[string]string{linked: "Etc/UTC", named: "Etc/UTC", wild: "UTC", t.TempDir(): "UTC"} {
		if got := hostZone(etc); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestMakeEtcTellsNothingOfTheHost(t *testing.T) {
	etc := filepath.Join(t.TempDir(), "etc")
	if err := makeEtc(etc, nil); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"shadow", "machine-id", "fstab", "ssh", "ssl/private"} {
		if exists(filepath.Join(etc, name)) {
			t.Errorf("%s is there", name)
		}
	}
	hostPasswd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	if passwd, err := os.ReadFile(filepath.Join(etc, "passwd")); err != nil || string(passwd) == string(hostPasswd) {
		t.Errorf("passwd is the host's (%v)", err)
	}
}
