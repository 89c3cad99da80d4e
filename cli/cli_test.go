package cli

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/lull-dev/lull/control"
)

// The scripts run this test binary as "lull": the command line of a real process, with a node that is not one.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"lull": func() { os.Exit(Main(testEnv())) }})
}

func testEnv() Env {
	env := System(fakeServe)
	env.Version = cmp.Or(os.Getenv("VERSION"), "1.2.3")
	env.UserConfigDir = os.Getenv("CONFIG")
	env.Root = os.Getenv("AS_ROOT") != ""
	terminal := os.Getenv("TERMINAL") != ""
	env.StdinTerminal, env.StdoutTerminal, env.StderrTerminal = terminal, terminal, terminal
	env.Check = func(context.Context) []Finding {
		return []Finding{
			{Name: "cgroups", OK: true, Detail: "version 2"},
			{Name: "nftables", OK: os.Getenv("HOST_OK") != "", Detail: "none", Fix: "apt-get install nftables"},
		}
	}
	return env
}

const testToken = "the-token-of-the-tests-in-this-package"

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:      "testdata",
		Setup:    setUp,
		Deadline: time.Now().Add(2 * time.Minute), // a script that hangs is a failure, not a wait for the whole suite
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"eventually": eventually,
			"given-up":   givenUp,
			"status":     status,
			"announce":   announce,
		},
	})
}

// setUp starts a fake node for one script, behind the real API, and points the script's environment at it.
func setUp(env *testscript.Env) error {
	dir, err := os.MkdirTemp("", "lull-cli-")
	if err != nil {
		return err
	}
	env.Defer(func() { os.RemoveAll(dir) })
	node := newFakeNode(dir)
	server := httptest.NewServer(control.Handler(node, []string{testToken}, nil, slog.New(slog.DiscardHandler)))
	env.Defer(server.Close)
	env.Values["node"] = node
	env.Setenv("GORACE", "atexit_sleep_ms=0") // with the race detector every process would end with a second of sleep
	env.Setenv("LULL_API", server.URL)
	env.Setenv("LULL_TOKEN", testToken)
	env.Setenv("CONFIG", env.WorkDir+"/config")
	return nil
}

// eventually FILE TEXT waits until a file that a background command writes holds the text.
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: eventually FILE TEXT")
	}
	var last []byte
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		last, _ = os.ReadFile(ts.MkAbs(args[0]))
		if strings.Contains(string(last), args[1]) {
			return
		}
		<-time.After(10 * time.Millisecond)
	}
	ts.Fatalf("%s never held %q; it holds:\n%s", args[0], args[1], last)
}

// given-up waits until the node has noticed that the client of a deploy went away.
func givenUp(ts *testscript.TestScript, _ bool, _ []string) {
	select {
	case <-ts.Value("node").(*fakeNode).gone:
	case <-time.After(20 * time.Second):
		ts.Fatalf("the node never noticed")
	}
}

// status CODE COMMAND... runs a command that must end with this exit code.
func status(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status CODE COMMAND...")
	}
	err := ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	got := 0
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("exit code %d, want %s", got, args[0])
	}
}

// announce URL DATA leaves what a node with this data directory leaves for the commands of its user.
func announce(ts *testscript.TestScript, _ bool, args []string) {
	data := ts.MkAbs(args[1])
	ts.Check(os.MkdirAll(data, 0o700))
	ts.Check(os.WriteFile(filepath.Join(data, "token"), []byte(testToken), 0o600))
	ts.Check(control.Announce(ts.Getenv("CONFIG"), args[0], data))
}
