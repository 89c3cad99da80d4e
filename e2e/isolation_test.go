package e2e

import (
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// attempt is what the intruder reports of one try.
type attempt[T any] struct {
	Result T
	Error  string
}

// intrude lets an intruder try something: key, value, key, value …
func intrude[T any](s *stage, app, what string, params ...string) attempt[T] {
	s.t.Helper()
	query := url.Values{}
	for i := 0; i < len(params); i += 2 {
		query.Set(params[i], params[i+1])
	}
	return decode[attempt[T]](s.t, s.get(app, "/"+what+"?"+query.Encode()).Body)
}

// What an environment sees of files: its own, the runtime's, and nothing of the host, of Lull or of other apps.
func TestFilesOutsideAreInvisible(t *testing.T) {
	t.Parallel()
	s := sharedNode(t)
	s.deploy("apps/intruder", "intruder")
	s.deploy(copyApp(t, "versions", map[string]string{"neighbours-secret.txt": "of another release"}), "neighbour")
	s.get("neighbour", "/")
	writeFile(t, filepath.Join(t.TempDir(), "hosts-secret.txt"), []byte("on the host"))

	for _, path := range []string{"/etc/shadow", "/root", "/home", "/var/lib", s.Data, scene.dir, "/run/lull", "/sys/fs/cgroup/unified", "/proc/1/root/root"} {
		if got := intrude[any](s, "intruder", "read", "path", path); got.Error == "" && !isEmpty(got.Result) {
			t.Errorf("the app reads %s: %.200v", path, got.Result)
		}
	}
	for _, word := range []string{"neighbours-secret", "hosts-secret"} {
		if got := intrude[[]string](s, "intruder", "find", "word", word); got.Error != "" || len(got.Result) > 0 {
			t.Errorf("the app finds %q %s", got.Result, got.Error)
		}
	}
	if got := intrude[[]string](s, "intruder", "find", "word", "/app/server.js"); len(got.Result) != 1 {
		t.Errorf("the app does not find its own file, so that the finding above proves nothing: %+v", got)
	}
	for _, path := range []string{"/usr/bin/intruder", "/etc/intruder", "/intruder"} {
		if got := intrude[string](s, "intruder", "write", "path", path); got.Error == "" {
			if _, err := os.Stat(path); err == nil {
				t.Errorf("the app wrote to the host's %s", path)
			}
		}
	}
	if got := intrude[string](s, "intruder", "write", "path", "/app/written-inside"); got.Result != "written" {
		t.Errorf("the app cannot write to its working directory: %+v", got)
	}
	if kept := pathsWith(t, s.Data, "written-inside"); len(kept) > 0 {
		t.Errorf("what an app writes to its working directory reaches the host: %q", kept)
	}
}

func isEmpty(listing any) bool {
	names, ok := listing.([]any)
	return ok && len(names) == 0
}

// pathsWith lists the paths below dir that hold a word.
func pathsWith(t *testing.T, dir, word string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if rest, _ := strings.CutPrefix(path, dir); strings.Contains(rest, word) {
			found = append(found, path)
		}
		if os.IsNotExist(err) {
			return nil // gone meanwhile
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// Who an app is inside: nobody special, and told nothing of the node's own environment.
func TestIdentityInside(t *testing.T) {
	t.Parallel()
	s := sharedNode(t)
	s.deploy(copyApp(t, "intruder", map[string]string{"lull.yaml": "env: {COLOUR: green}\n"}), "identity")

	me := intrude[struct {
		UID, GID int
		Groups   []int
		Host     string
		Env      map[string]string
	}](s, "identity", "identity").Result
	host, _ := os.Hostname()
	if me.UID == 0 || me.GID == 0 || me.Host == host {
		t.Errorf("the app runs as %d:%d on %q", me.UID, me.GID, me.Host)
	}
	if me.Env["COLOUR"] != "green" || me.Env["PORT"] != "8080" {
		t.Errorf("the app was not told its own settings: %v", me.Env)
	}
	for name := range me.Env {
		if strings.HasPrefix(name, "XDG_") || strings.HasPrefix(name, "LULL_") || name == "GOPATH" || name == "SSH_AUTH_SOCK" {
			t.Errorf("the app sees the node's own %s", name)
		}
	}
}

// Where an environment may connect to. Every address has a server that answers, and somebody who may reach it, so that
// a refusal means something. No packet leaves the machine: the networks are made for the test.
func TestNetworkOutsideIsRefused(t *testing.T) {
	s := sharedNode(t)
	out := openOutside(t)
	port := strconv.Itoa(out.port)
	s.deploy("apps/intruder", "at-large")
	s.deploy(copyApp(t, "intruder", map[string]string{"lull.yaml": "egress: none\n"}), "confined")
	s.deploy(copyApp(t, "intruder", map[string]string{
		"lull.yaml": "egress: ['" + lanAddress + ":" + port + "', " + metadataAddress + "/32]\n"}), "invited")
	connect := func(app, host, port string) string {
		t.Helper()
		got := intrude[string](s, app, "connect", "host", host, "port", port)
		return got.Result + got.Error
	}
	expect := func(reached bool, app, host, port string) {
		t.Helper()
		if got := connect(app, host, port); (got == "connected") != reached {
			t.Errorf("%s connects to %s:%s: %s", app, host, port, got)
		}
	}

	expect(true, "at-large", publicAddress, port)
	expect(false, "confined", publicAddress, port)
	expect(false, "invited", publicAddress, port)
	expect(true, "invited", lanAddress, port)
	expect(false, "invited", lanAddress, strconv.Itoa(out.otherPort))
	expect(true, "invited", metadataAddress, port)
	for _, address := range []string{lanAddress, metadataAddress, private172, private192} {
		expect(false, "at-large", address, port)
		expect(false, "confined", address, port)
	}

	me, neighbour := network(s, "at-large"), network(s, "confined")
	_, http, _ := net.SplitHostPort(s.HTTP)
	api, err := url.Parse(s.API)
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range append(hostAddresses(t), me.Gateways[0], neighbour.Gateways[0]) {
		for _, hostPort := range []string{strconv.Itoa(out.hostPort), http, api.Port()} {
			expect(false, "at-large", address, hostPort)
		}
	}
	expect(false, "at-large", neighbour.Addresses[0], "8080")
	expect(true, "at-large", me.Addresses[0], "8080")

	if got := intrude[[]string](s, "at-large", "resolve", "name", "example.com"); got.Error != "" {
		t.Errorf("the name server does not answer: %+v", got)
	}
	if got := intrude[[]string](s, "confined", "resolve", "name", "example.com"); got.Error == "" {
		t.Errorf("with egress none the name server answers: %+v", got)
	}
}

// inside is what an app knows of its network.
type inside struct{ Addresses, Gateways []string }

func network(s *stage, app string) inside {
	s.t.Helper()
	got := intrude[inside](s, app, "network")
	if len(got.Result.Addresses) == 0 || len(got.Result.Gateways) == 0 {
		s.t.Fatalf("%s has no network: %+v", app, got)
	}
	return got.Result
}

// hostAddresses lists the host's IPv4 addresses, loopback first.
func hostAddresses(t *testing.T) []string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, addr := range addrs {
		if ip, _, err := net.ParseCIDR(addr.String()); err == nil && ip.To4() != nil && !strings.HasPrefix(ip.String(), "198.18.") {
			found = append(found, ip.String())
		}
	}
	return found
}

// The answer to a request from outside does not depend on what the app may reach.
func TestConfinedAppIsReached(t *testing.T) {
	t.Parallel()
	s := sharedNode(t)
	s.deploy(copyApp(t, "versions", map[string]string{"lull.yaml": "egress: none\n"}), "hermit")
	if got := s.must(http.MethodGet, "hermit", "/", ""); got.Body != "1.0.0" {
		t.Errorf("the answer is %q", got.Body)
	}
}
