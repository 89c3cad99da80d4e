package manifest

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lull-dev/lull"
)

const complete = `
name: chat
run: node server.js
build: npm ci --omit=dev
port: 3000
env: {LOG: debug, PORT_2: 3000, DEBUG: true, RATE: 1.50, EMPTY: ""}
concurrency: 50
streams: 200
scale: {min: 1, max: 3}
idle:
  pause: 500ms
  hibernate: 10m
  stop: 7d
stream: {quiet: 5s, hold: memory, tick: 1s, timeout: 0}
affinity: cookie
timeout: {start: 30s, request: 60s, queue: 10s}
queue: 100
resources: {memory: 1GB, cpu: 0.5, disk: 100MB, processes: 64}
ready: /health
egress: [10.1.0.0/16, "db.example.com:5432"]
domains:
  - chat.example.com
  - talk.example.com
`

func TestParseReadsEveryKey(t *testing.T) {
	got, err := Parse([]byte(complete), FileName)
	if err != nil {
		t.Fatal(err)
	}
	second := lull.Duration(time.Second)
	want := lull.Manifest{
		Name: "chat", Run: "node server.js", Build: "npm ci --omit=dev", Port: 3000,
		Env:         map[string]string{"LOG": "debug", "PORT_2": "3000", "DEBUG": "true", "RATE": "1.50", "EMPTY": ""},
		Concurrency: 50, Streams: 200, Scale: lull.Scale{Min: 1, Max: 3},
		Idle:      lull.Idle{Pause: second / 2, Hibernate: 600 * second, Stop: 7 * 24 * 3600 * second},
		Stream:    lull.Stream{Quiet: 5 * second, Hold: "memory", Tick: second},
		Affinity:  "cookie",
		Timeout:   lull.Timeout{Start: 30 * second, Request: 60 * second, Queue: 10 * second},
		Queue:     100,
		Resources: lull.Resources{Memory: lull.GB, CPU: 0.5, Disk: 100 * lull.MB, Processes: 64},
		Ready:     "/health",
		Egress:    lull.Egress{"10.1.0.0/16", "db.example.com:5432"},
		Domains:   []string{"chat.example.com", "talk.example.com"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestParseKeepsDefaults(t *testing.T) {
	for _, text := range []string{"", "\n", "# only a comment\n", "---\n", "null\n", "\ufeff", "{}"} {
		got, err := Parse([]byte(text), FileName)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if diff := cmp.Diff(lull.DefaultManifest(), got); diff != "" {
			t.Errorf("%q: %s", text, diff)
		}
	}
	got, err := Parse([]byte("scale: {max: 3}\negress: none"), FileName)
	want := lull.DefaultManifest()
	want.Scale.Max, want.Egress = 3, lull.Egress{"none"}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
}

func TestParseReportsEveryProblem(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"three mistakes", "nmae: chat\nscale:\n  max: ten\n  mni: 1\nresources: {memory: 12 parsecs}\n", `
lull.yaml:1:1: nmae: is not a known key: did you mean name?
lull.yaml:3:8: scale.max: is "ten": it must be a whole number
lull.yaml:4:3: scale.mni: is not a known key: did you mean scale.min?
lull.yaml:5:21: resources.memory: "12 parsecs" is not a size: write a number and a unit, such as 256MB`},
		{"values", "port: 70000\nscale: {min: 20}\nready: health\nenv: {1A: x}\ndomains: [ok.example.com, Bad]\n", `
lull.yaml:1:7: port: is 70000: it must be from 1 to 65535
lull.yaml:2:14: scale.min: is 20, more than scale.max (10)
lull.yaml:3:8: ready: is "health": it must be a path that begins with /
lull.yaml:4:7: env.1A: is not a name for an environment variable
lull.yaml:5:27: domains[1]: "Bad" is not a host name in lower case`},
		{"types", "name: 12\nport: \"3000\"\nscale: 3\nenv: [A]\nidle: {pause: [1]}\ndomains: a.example.com\nqueue: 1.5\n", `
lull.yaml:1:7: name: must be text: write "12", in quotes
lull.yaml:2:7: port: is text: leave out the quotes, 3000
lull.yaml:3:8: scale: must be a group of keys: max, min
lull.yaml:4:6: env: must be names and values, such as {LOG: debug}
lull.yaml:5:15: idle.pause: must be a duration, such as 500ms, 2s, 5m, 7d
lull.yaml:6:10: domains: must be a list, such as [a, b]
lull.yaml:7:8: queue: is "1.5": it must be a whole number`},
		{"twice", "name: a\nname: b\nenv:\n  A: 1\n  A: 2\n", `
lull.yaml:2:1: name: is given twice; the first is on line 1
lull.yaml:5:3: env.A: is given twice; the first is on line 4`},
		{"nothing", "name:\nenv:\n  A:\n", `
lull.yaml:1:6: name: has no value: give it one or leave the key out
lull.yaml:3:3: env.A: has no value: write "" if it is meant to be empty`},
		{"half a function", "function: {handler: index.handler}\n", `
lull.yaml:1:1: function.runtime: is missing: name one, such as nodejs20.x, python3.11 or provided.al2023`},
		{"function", "run: x\nfunction:\n  runtime: java21\n  payload: '3.0'\n  layers: [../x]\n  websocket: {routes: [say]}\n", `
lull.yaml:1:6: run: cannot be given together with function: an app is one of them
lull.yaml:2:1: function.handler: is missing: name the file and the function in it, such as index.handler
lull.yaml:3:12: function.runtime: is "java21": it must be a Node, Python or custom runtime of AWS Lambda, such as nodejs20.x, python3.11 or provided.al2023
lull.yaml:4:12: function.payload: is "3.0": it must be "2.0", "1.0" or alb
lull.yaml:5:12: function.layers[0]: "../x" is not a path inside the app's directory
lull.yaml:6:3: function.websocket.route: is missing: say what chooses the route, such as $request.body.action`},
		{"schedules", "schedules:\n  - {cron: '61 * * * *', event: '{}'}\n  - {name: A b, crom: x, zone: Mars}\n  - 5 4 * * *\n", `
lull.yaml:2:12: schedules[0].cron: is "61 * * * *": end of range (61) above maximum (59): "61"
lull.yaml:2:33: schedules[0].event: is for functions: give a path that gets a request
lull.yaml:3:6: schedules[1].cron: is missing: say when, such as "*/5 * * * *"
lull.yaml:3:12: schedules[1].name: "A b" is not a name: use up to 40 lower-case letters, digits and single hyphens
lull.yaml:3:17: schedules[1].crom: is not a known key: did you mean schedules[1].cron?
lull.yaml:4:5: schedules[2]: must be a group of keys: cron, event, method, name, path, zone`},
		{"a schedule is no list", "schedules: {cron: x}\n", `
lull.yaml:1:13: schedules: must be a list, each with some of cron, event, method, name, path, zone`},
		{"switches", "function: {runtime: python3.11, handler: a.b, websocket: {route: $default, replies: yes}}\n", `
lull.yaml:1:85: function.websocket.replies: is "yes": it must be true or false`},
		{"one bad value does not cause a second", "scale: {min: 20, max: many}\n", `
lull.yaml:1:23: scale.max: is "many": it must be a whole number`},
		{"elsewhere", "memory: 1GB\ncommand: x\nscale: {replicas: 1}\n", `
lull.yaml:1:1: memory: is not a known key: did you mean resources.memory?
lull.yaml:2:1: command: is not a known key: did you mean run?
lull.yaml:3:9: scale.replicas: is not a known key: scale has max, min`},
		{"egress", "egress: [internet, 'x y']\n", `
lull.yaml:1:9: egress: "internet" cannot be given together with others
lull.yaml:1:20: egress[1]: "x y" is not internet, none, a CIDR such as 10.1.0.0/16 or host:port such as db.example.com:5432`},
		{"egress empty", "egress: []\n", `
lull.yaml:1:9: egress: is empty: write none`},
		{"alias", "env: &a {A: b}\n", `
lull.yaml:1:6: anchors, aliases and merge keys are not supported: write the value out`},
		{"not a mapping", "- a\n- b\n", `
lull.yaml:1:1: is not a list of keys and values, such as name: my-app`},
		{"two documents", "name: a\n---\nname: b\n", `
lull.yaml:3:5: only one document is allowed`},
		{"not a number", "resources: {cpu: .nan}\n", `
lull.yaml:1:18: resources.cpu: is ".nan": it must be a number`},
		{"infinite", "resources: {cpu: .inf}\n", `
lull.yaml:1:18: resources.cpu: is ".inf": it must be a number`},
		{"image and build", "image: ./a.tar\nbuild: make\n", `
lull.yaml:2:8: build: cannot be given together with image`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse([]byte(c.text), FileName)
			if err == nil {
				t.Fatal("no error")
			}
			if diff := cmp.Diff(strings.TrimSpace(c.want), err.Error()); diff != "" {
				t.Error(diff)
			}
			if kind := lull.KindOf(err); kind != lull.KindInvalid {
				t.Errorf("kind %q", kind)
			}
		})
	}
}

func TestParseRefusesBombs(t *testing.T) {
	for name, text := range map[string]string{
		"size":    strings.Repeat("#\n", MaxSize),
		"flow":    strings.Repeat("[", 100_000),
		"map":     strings.Repeat("{a: ", 50_000),
		"dashes":  strings.Repeat("- ", 100_000),
		"keys":    strings.Repeat("? ", 100_000),
		"aliases": "a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n",
		"entries": strings.Repeat("a: b\n", 50_000),
		"tags":    strings.Repeat("!a ", 80_000),
		"binary":  "\x00\x01\xff\xfe",
	} {
		start := time.Now()
		if _, err := Parse([]byte(text), FileName); err == nil {
			t.Errorf("%s: no error", name)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%s took %s", name, took)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	if m, found, err := Load(dir); err != nil || found || m.Port != lull.DefaultPort {
		t.Errorf("empty directory: %+v %v %v", m, found, err)
	}
	write(t, filepath.Join(dir, FileName), "name: a\n")
	if m, found, err := Load(dir); err != nil || !found || m.Name != "a" {
		t.Errorf("with manifest: %+v %v %v", m, found, err)
	}
	if Sets(dir, "port") || !Sets(dir, "name") {
		t.Error("Sets does not tell what the file says")
	}

	other := t.TempDir()
	write(t, filepath.Join(other, "lull.yml"), "name: a\n")
	if _, _, err := Load(other); lull.KindOf(err) != lull.KindInvalid || lull.HintOf(err) == "" {
		t.Errorf("lull.yml: %v", err)
	}
}

func TestLoadStaysInside(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "secret")
	write(t, outside, "name: stolen\n")
	dir := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(dir, FileName)); err != nil {
		t.Fatal(err)
	}
	if m, _, err := Load(dir); err == nil {
		t.Errorf("read a manifest outside of the directory: %+v", m)
	}
}

func TestNameFor(t *testing.T) {
	for dir, want := range map[string]string{
		"/home/x/chat": "chat", "/x/My Chat_2": "my-chat-2", "/x/__a--b..c__": "a-b-c", "/": "app", "/x/äöü": "app",
		"/" + strings.Repeat("a", 60): strings.Repeat("a", 40), "/" + strings.Repeat("ab-", 30): strings.Repeat("ab-", 13) + "a",
	} {
		if got := NameFor(dir); got != want || !lull.ValidName(got) {
			t.Errorf("%s: got %s, want %s", dir, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(complete))
	for _, seed := range []string{"a: [1, {b: c}]", "env:\n  A: |\n    x\n", "? a\n: b\n", "'", "a: *b", "%YAML 1.2\n---\n", "- - -",
		"egress: 1", "scale: {max: !!int 3}", "\"a\\0b\": c", "stream:\n- x"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Parse(data, FileName)
		if err == nil {
			if problems := m.Validate(); problems != nil {
				t.Errorf("accepted with problems: %v", problems)
			}
			return
		}
		var all *Error
		if !errors.As(err, &all) || len(all.Problems) == 0 {
			t.Fatalf("error without problems: %#v", err)
		}
		for _, p := range all.Problems {
			if p.Line < 1 || p.Column < 1 || p.Message == "" {
				t.Errorf("problem without a place or message: %+v", p)
			}
		}
	})
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
