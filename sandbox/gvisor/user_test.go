package gvisor

import (
	"os"
	"path/filepath"
	"testing"
)

func TestFindUser(t *testing.T) {
	root := t.TempDir()
	writeFiles(t, root, map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/sh\nbroken\napp:x:1500:1600:app:/app:/bin/sh\n12:x:77:78::/:\nodd:x:many:1::/:\n",
		"etc/group":  "root:x:0:\nworkers:x:55:app\nbroken:x\n",
	})
	for text, want := range map[string]user{
		"":             {1000, 1000},
		"0:0":          {0, 0},
		"app":          {1500, 1600},
		"app:workers":  {1500, 55},
		"app:9":        {1500, 9},
		"1500":         {1500, 1600}, // its group is in passwd
		"4000":         {4000, 0},
		"4000:workers": {4000, 55},
		"12":           {12, 78}, // a number is a number, also if somebody is called that
	} {
		if got, err := findUser(text, root); err != nil || got != want {
			t.Errorf("%q: got %+v, %v, want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"nobody-here", "app:nobody-here", "-1", "4294967295", "odd", ":5", "0:-1"} {
		if got, err := findUser(text, root); err == nil {
			t.Errorf("%q: got %+v, want an error", text, got)
		}
	}
	if _, err := findUser("app", t.TempDir()); err == nil {
		t.Error("found a name without /etc/passwd")
	}
}

// An image's files are not to be trusted: a link must not lead to the host's.
func TestFindUserStaysInRoot(t *testing.T) {
	root, outside := t.TempDir(), t.TempDir()
	writeFiles(t, outside, map[string]string{"passwd": "spy:x:1:1::/:\n"})
	if err := os.Symlink(outside, filepath.Join(root, "etc")); err != nil {
		t.Fatal(err)
	}
	if got, err := findUser("spy", root); err == nil {
		t.Errorf("got %+v from outside the root", got)
	}
}

func FuzzFindUser(f *testing.F) {
	f.Add("app", "app:x:1:2:::\n")
	f.Add("app:staff", ":::::\napp")
	f.Fuzz(func(t *testing.T, text, passwd string) {
		root := t.TempDir()
		writeFiles(t, root, map[string]string{"etc/passwd": passwd, "etc/group": passwd})
		if who, err := findUser(text, root); err == nil && (who.UID < 0 || who.UID > maxID || who.GID < 0 || who.GID > maxID) {
			t.Errorf("got %+v", who)
		}
	})
}

func writeFiles(t testing.TB, root string, files map[string]string) {
	t.Helper()
	for path, text := range files {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
