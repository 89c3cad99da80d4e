package store

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/lull-dev/lull"
)

// writerDir tells the test binary to be a writer that waits to be killed.
const writerDir = "LULL_TEST_STORE_WRITER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(writerDir); dir != "" {
		if err := writeForEver(dir, os.Stdout); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// archiveOf is the content of a release's archive: up to 3 MB that follow from its seed.
func archiveOf(seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 0))
	size := r.IntN(3 * chunkSize)
	if r.IntN(2) == 0 {
		size = r.IntN(1000)
	}
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	return data
}

// writeForEver changes a store in random ways. It says "try ..." before each change and "done ..." as soon as it has been
// acknowledged; a release is named by its app and its seed, which is kept in the manifest.
func writeForEver(dir string, out io.Writer) error {
	ctx := context.Background()
	s, err := Open(ctx, dir, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	for seed := uint64(time.Now().UnixNano()); ; seed++ {
		app := fmt.Sprintf("app%d", seed%3)
		releases, err := s.Releases(ctx, app)
		if err != nil && lull.KindOf(err) != lull.KindNotFound {
			return err
		}
		switch choice := rand.IntN(12); {
		case choice == 0 && len(releases) > 0:
			err = say(out, "removeapp "+app, func() error { return s.RemoveApp(ctx, app) })
		case choice < 4 && len(releases) > 1:
			rel := releases[0]
			if err := s.Promote(ctx, app, releases[1].Number); err != nil {
				return err
			}
			err = say(out, fmt.Sprintf("remove %s %s", app, rel.Manifest.Run), func() error {
				return s.RemoveRelease(ctx, app, rel.Number)
			})
		default:
			rel := release(app)
			rel.Manifest.Run = fmt.Sprint(seed)
			err = say(out, fmt.Sprintf("add %s %d", app, seed), func() error {
				_, err := s.AddRelease(ctx, rel, bytes.NewReader(archiveOf(seed)))
				return err
			})
		}
		if err != nil {
			return err
		}
	}
}

func say(out io.Writer, what string, do func() error) error {
	fmt.Fprintln(out, "try", what)
	err := do()
	if err == nil {
		fmt.Fprintln(out, "done", what)
	}
	return err
}

// ledger is what a reader of the writer's output knows: which releases must be there, and which may be because the change
// was under way when the writer was killed.
type ledger struct {
	must, may map[string]string // seed → app
}

// read takes one line.
func (l *ledger) read(line string) error {
	word := strings.Fields(line + " - -")
	app, seed := word[2], word[3]
	switch word[0] + " " + word[1] {
	case "try add":
		l.may[seed] = app
	case "done add":
		l.must[seed] = app
		delete(l.may, seed)
	case "try remove":
		l.doubt(seed)
	case "done remove":
		delete(l.may, seed)
	case "try removeapp", "done removeapp":
		for seed, owner := range l.must {
			if owner == app {
				l.doubt(seed)
			}
		}
		for seed, owner := range l.may {
			if owner == app && word[0] == "done" {
				delete(l.may, seed)
			}
		}
	default:
		return fmt.Errorf("the writer says %q", line)
	}
	return nil
}

func (l *ledger) doubt(seed string) {
	l.may[seed] = l.must[seed]
	delete(l.must, seed)
}

// check compares a store with the ledger, which afterwards is certain of everything.
func (l *ledger) check(t *testing.T, s *Store) {
	t.Helper()
	there := map[string]string{}
	var all []lull.Release
	apps, err := s.Apps(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, app := range apps {
		releases, err := s.Releases(t.Context(), app.Name)
		if err != nil {
			t.Fatal(err)
		}
		for _, rel := range releases {
			there[rel.Manifest.Run] = rel.App
			all = append(all, rel)
			var seed uint64
			fmt.Sscan(rel.Manifest.Run, &seed)
			if !bytes.Equal(content(t, s, rel), archiveOf(seed)) {
				t.Errorf("%s does not hold its files", rel)
			}
			if _, maybe := l.may[rel.Manifest.Run]; l.must[rel.Manifest.Run] == "" && !maybe {
				t.Errorf("%s was removed, or never added, and is there", rel)
			}
		}
	}
	for seed, app := range l.must {
		if there[seed] != app {
			t.Errorf("acknowledged release %s of %s is lost", seed, app)
		}
	}
	wantStored(t, s, all...)
	l.must, l.may = there, map[string]string{}
}

func TestKilledWriterLosesNothingAcknowledged(t *testing.T) {
	dir := t.TempDir()
	known := &ledger{must: map[string]string{}, may: map[string]string{}}
	changes := 0
	for range 12 {
		writer := exec.CommandContext(t.Context(), os.Args[0])
		writer.Env = append(os.Environ(), writerDir+"="+dir)
		output, err := writer.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := writer.Start(); err != nil {
			t.Fatal(err)
		}
		// Killed somewhere in the middle of a change: the pause after the line is part of the randomness under test.
		kill := rand.IntN(30)
		lines := bufio.NewScanner(output)
		for n := 0; lines.Scan(); n++ {
			if err := known.read(lines.Text()); err != nil {
				t.Fatal(err)
			}
			if changes++; n == kill {
				time.AfterFunc(time.Duration(rand.IntN(5000))*time.Microsecond, func() { writer.Process.Kill() })
			}
		}
		writer.Wait()
		s := open(t, dir)
		known.check(t, s)
		closed(t, s)
	}
	t.Logf("%d lines, %d releases at the end", changes, len(known.must))
}
