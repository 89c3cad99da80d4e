package e2e

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/lull-dev/lull/e2e/rig"
)

// deployAll deploys a directory that holds several apps and returns them by name.
func (s *stage) deployAll(dir string, args ...string) map[string]rig.Deployed {
	s.t.Helper()
	result, err := s.Run(within(s.t, 5*time.Minute), append([]string{"deploy", dir, "--json"}, args...)...)
	if err != nil {
		s.t.Fatal(err)
	}
	var list []rig.Deployed
	if err := json.Unmarshal([]byte(result.Stdout), &list); err != nil || result.Code != 0 {
		s.t.Fatalf("%v\n%s", err, result)
	}
	apps := map[string]rig.Deployed{}
	for _, deployed := range list {
		if deployed.URL != s.URL(deployed.App, "/") {
			s.t.Errorf("%+v", deployed)
		}
		apps[deployed.App] = deployed
	}
	return apps
}

func TestGenezioProject(t *testing.T) {
	t.Parallel()
	s := sharedNode(t)
	apps := s.deployAll("apps/genezio-shop")
	for _, app := range []string{"shop-api", "shop-live", "shop-tick", "shop-frontend"} {
		if apps[app].Release != 1 {
			t.Fatalf("%s was not deployed: %+v", app, apps)
		}
	}
	url := strings.TrimSuffix(s.URL("shop-api", "/"), "/")
	type api struct{ Self, Dir string }
	if got := decode[api](t, s.get("shop-api", "/").Body); got != (api{url, "/tmp/package/api"}) {
		t.Errorf("the server on its literal port says %+v", got)
	}
	if page := s.get("shop-frontend", "/some/where"); !strings.Contains(page.Body, "<title>"+url+"</title>") {
		t.Errorf("the page is %q", page.Body)
	}
	s.talk("shop-live")
	type tick struct {
		Ticks  int
		Method string
	}
	eventually(t, 90*time.Second, "the cron has called", func() (bool, any) {
		got := decode[tick](t, s.get("shop-tick", "/").Body)
		return got.Ticks > 0, got
	})
	// Another stage is another set of apps.
	if other := s.deployAll("apps/genezio-shop", "--stage", "test"); other["shop-api-test"].Release != 1 {
		t.Errorf("%+v", other)
	}
}

func TestGenezioPython(t *testing.T) {
	t.Parallel()
	s := sharedNode(t)
	s.deployAll("apps/genezio-python")
	if a := s.must(http.MethodPost, "snakes-wsgi", "/sum", `{"numbers": [1, 2]}`); strings.TrimSpace(a.Body) != `{"sum":3}` {
		t.Errorf("Flask says %s", a.Body)
	}
	if a := s.get("snakes-asgi", "/hello/you"); a.Body != `{"hello":"you","started":true}` {
		t.Errorf("FastAPI says %s", a.Body)
	}
	ctx := within(t, 20*time.Second)
	conn, _, err := websocket.Dial(ctx, s.URL("snakes-asgi", "/echo"), &websocket.DialOptions{HTTPClient: s.Client()})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	if err := conn.Write(ctx, websocket.MessageText, []byte("hi")); err != nil {
		t.Fatal(err)
	}
	if _, got, err := conn.Read(ctx); err != nil || string(got) != "you said hi" {
		t.Errorf("%q %v", got, err)
	}
}

func TestGenezioContainer(t *testing.T) {
	t.Parallel()
	s := sharedNode(t)
	dir := copyApp(t, "genezio-container", nil)
	cmd := exec.CommandContext(within(t, time.Minute), "go", "build", "-o", "server", ".")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s.deployAll(dir)
	if a := s.get("boxed", "/"); a.Body != "from the box in /data" {
		t.Errorf("it says %q", a.Body)
	}
}

// What cannot work is said before anything is built; what the equivalent lull.yaml says is deployed as well.
func TestGenezioMistakesAndMove(t *testing.T) {
	t.Parallel()
	s := sharedNode(t)
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "genezio.yaml"), []byte("name: base\nyamlVersion: 2\nbackend:\n  path: .\n  language: {name: js}\n"+
		"  functions: [{name: f, path: ., entry: index.mjs, handler: handler, type: aws}]\nservices:\n  databases: [{name: main}]\n"))
	writeFile(t, filepath.Join(dir, "index.mjs"), []byte("export const handler = async () => 'hello';\n"))
	result := s.command("deploy", dir)
	if result.Code != 1 || !strings.Contains(result.Stderr, "MAIN_DATABASE_URL") || strings.Contains(result.Stderr, "building") {
		t.Errorf("without its database: %s", result)
	}
	replaceIn(t, filepath.Join(dir, "genezio.yaml"), "  databases: [{name: main}]\n", "  crons: []\n")
	if result := s.command("init", dir, "--from", "genezio"); result.Code != 0 {
		t.Fatalf("%s", result)
	}
	s.deploy(dir, "moved")
	if a := s.get("moved", "/"); a.Body != "hello" {
		t.Errorf("it says %q", a.Body)
	}
}

// framework is how a project of a web framework shows that it works.
type framework struct {
	page, says string // a path, and what is to be in its answer, with how often it was asked
	file       string // expression for the path of a file that the page names, or the path of one
	holds      string // what is to be in that
}

// Web frameworks as their own tools lay them out. Each is built on the node, serves what a server has rendered, and the files that
// came with it.
func TestGenezioFrameworks(t *testing.T) {
	t.Parallel()
	s := sharedNode(t)
	frameworks := map[string]framework{"nitro": {"/", `{"n":%d,"q":{}}`, "/a.txt", "hello file"}}
	if os.Getenv("LULL_E2E_FULL") != "" { // the rest takes minutes to install and to build
		frameworks["next"] = framework{"/", "Hello from Next <!-- -->%d<", `/_next/static/[^"]+\.js`, "self"}
		frameworks["nest"] = framework{"/", "Hello from Nest %d", "", ""}
		frameworks["remix"] = framework{"/", "Hello from Remix <!-- -->%d<", `/assets/[^"]+\.js`, "import"}
		frameworks["nuxt"] = framework{"/", "Hello from Nuxt %d<", `/_nuxt/[^"]+\.js`, "const"}
	}
	for name, f := range frameworks {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s.with(t).checkFramework(name, f)
		})
	}
}

func (s *stage) checkFramework(name string, f framework) {
	app := "fw-" + name
	s.deployAll("apps/genezio-frameworks/" + name)
	page := s.get(app, f.page)
	if want := fmt.Sprintf(f.says, 1); !strings.Contains(page.Body, want) {
		s.t.Fatalf("it does not say %q:\n%s", want, page.Body)
	}
	if f.file != "" {
		path := cmp.Or(regexp.MustCompile(f.file).FindString(page.Body), f.file)
		file := s.get(app, path)
		if !strings.Contains(file.Body, f.holds) || strings.Contains(file.Header.Get("Content-Type"), "html") {
			s.t.Errorf("%s is %s: %.300q", path, file.Header.Get("Content-Type"), file.Body)
		}
	}
	s.awaitState(app, "paused")
	woken := s.get(app, f.page)
	if want := fmt.Sprintf(f.says, 2); !strings.Contains(woken.Body, want) || woken.Environment != page.Environment {
		s.t.Errorf("after a pause it does not say %q in %s: %s\n%s", want, page.Environment, woken.Environment, woken.Body)
	}
}
