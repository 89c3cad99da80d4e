package control

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lull-dev/lull"
)

func writeText(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func token(t testing.TB, data string) string {
	t.Helper()
	token, err := LoadOrCreateToken(data)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestTokenIsMadeOnceAndForTheOwner(t *testing.T) {
	data := t.TempDir()
	first := token(t, data)
	if len(first) != 43 || !wellFormed(first) || first == token(t, t.TempDir()) {
		t.Errorf("token %q", first)
	}
	path := filepath.Join(data, "token")
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if again := token(t, data); again != first {
		t.Errorf("the second start has another token")
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if entries, err := os.ReadDir(data); err != nil || len(entries) != 1 {
		t.Errorf("directory holds %v, %v", entries, err)
	}
}

func TestBrokenTokenIsNotReplaced(t *testing.T) {
	for _, text := range []string{"", "short", strings.Repeat("x", 300), strings.Repeat("x", 40) + "\r\nInjected: 1"} {
		data := t.TempDir()
		writeText(t, filepath.Join(data, "token"), text)
		_, err := LoadOrCreateToken(data)
		wantKind(t, err, lull.KindInvalid)
	}
}

func TestFindPrefersWhatTheUserHasSet(t *testing.T) {
	config, data := t.TempDir(), t.TempDir()
	secret := token(t, data)
	if err := Announce(config, "http://127.0.0.1:9999", data); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, config, api, token, wantURL, wantToken string
	}{
		{"nothing set", config, "", "", "http://127.0.0.1:9999", secret},
		{"all set", config, "https://far.example", "t", "https://far.example", "t"},
		{"token set", config, "", "t", "http://127.0.0.1:9999", "t"},
		{"the same node set", config, "http://127.0.0.1:9999/", "", "http://127.0.0.1:9999", secret},
		{"another node set: our token is not for it", config, "http://far.example", "", "http://far.example", ""},
		{"all set, nothing known", t.TempDir(), "http://far.example", "t", "http://far.example", "t"},
		{"token set, nothing known", "", "", "t", DefaultAPI, "t"},
		{"node set, nothing known", "", "http://far.example", "", "http://far.example", ""},
	} {
		url, token, err := Find(c.config, c.api, c.token)
		if url != c.wantURL || token != c.wantToken || err != nil {
			t.Errorf("%s: got %q %q, %v", c.name, url, token, err)
		}
	}
	info, err := os.Stat(locationFile(config))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info, err)
	}
}

func TestFindSaysWhatIsMissing(t *testing.T) {
	broken := t.TempDir()
	writeText(t, locationFile(broken), "{")
	gone := t.TempDir()
	if err := Announce(gone, DefaultAPI, filepath.Join(t.TempDir(), "gone")); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		config string
		kind   lull.Kind
		hint   string
	}{
		"no directory":  {"", lull.KindNotFound, "LULL_API"},
		"no node":       {t.TempDir(), lull.KindNotFound, "lull serve"},
		"broken file":   {broken, lull.KindInvalid, "LULL_API"},
		"token is gone": {gone, lull.KindUnauthorized, "lull serve"},
	} {
		_, _, err := Find(c.config, "", "")
		if lull.KindOf(err) != c.kind || !strings.Contains(lull.HintOf(err), c.hint) {
			t.Errorf("%s: got %v, hint %q", name, err, lull.HintOf(err))
		}
	}
	_, _, err := Find(gone, "", "")
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the cause is lost: %v", err)
	}
}
