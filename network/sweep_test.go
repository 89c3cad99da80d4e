package network

import (
	"bufio"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/host"
)

// TestMain is also the entry of a node that is going to be killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv("LULL_TEST_NODE"); dir != "" {
		runNode(dir)
		return
	}
	os.Exit(m.Run())
}

func TestSweepRemovesWhatAKilledNodeLeft(t *testing.T) {
	needRoot(t)
	own, err := host.Claim(t.TempDir())
	must(t, err)
	defer func() { must(t, own.Release()) }()
	dead := startNode(t, own.Dir()+"-nodes")
	if left := leftovers(t, dead); len(left) < 6 { // two links of two each, the table, the directory
		t.Fatalf("the dead node left only %v", left)
	}

	sweeper, err := host.Claim(own.Dir() + "-nodes")
	must(t, err)
	defer func() { must(t, sweeper.Release()) }()
	must(t, sweeper.Sweep(slog.New(slog.NewTextHandler(t.Output(), nil)), nobody, Sweep))
	if left := leftovers(t, dead); len(left) > 0 {
		t.Errorf("left after the sweep: %v", left)
	}
	must(t, sweeper.Sweep(slog.New(slog.DiscardHandler), nobody, Sweep)) // again does no harm
}

// nobody is what there is of processes.
func nobody([]string) string { return "" }

func TestSweepTakesNoOtherNames(t *testing.T) {
	for _, name := range []string{"", "lull", "eth", "lull1-", "lull1/.."} {
		if Sweep(name) == nil {
			t.Errorf("swept %q", name)
		}
	}
}

// startNode starts a node, kills it once it has two links, and returns the slot it had.
func startNode(t *testing.T, dir string) slotPlace {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "LULL_TEST_NODE="+dir)
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	must(t, err)
	words := strings.Fields(line)
	if len(words) != 2 {
		t.Fatalf("node says %q", line)
	}
	return slotPlace{words[0], words[1]}
}

func runNode(dir string) {
	slot, err := host.Claim(dir)
	check(err)
	n, err := Open(slot, Options{Log: slog.New(slog.DiscardHandler)})
	check(err)
	for _, id := range []string{"one", "two"} {
		_, err := n.Attach(id, lull.Egress{lull.EgressInternet})
		check(err)
	}
	fmt.Println(slot.Name(), slot.Dir())
	select {}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// place is what leftovers needs to know of a slot.
type place interface {
	Name() string
	Dir() string
}

type slotPlace struct{ name, dir string }

func (p slotPlace) Name() string { return p.name }
func (p slotPlace) Dir() string  { return p.dir }
