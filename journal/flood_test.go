package journal

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lull-dev/lull/internal/bubble"
)

func TestFloodIsThinnedOutAndSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := open(t, t.TempDir())
		w := j.Writer("chat", "e1", "stdout")
		quiet := j.Writer("chat", "e2", "stdout")
		written := 0
		for range 100 { // ten seconds at ten times the limit
			for range linesPerSecond {
				fmt.Fprintln(w, "flood")
				written++
			}
			fmt.Fprintln(quiet, "a quiet neighbour")
			bubble.Pass(100 * time.Millisecond)
		}
		bubble.Pass(2 * time.Second) // it ends while lines are being dropped, and its writer stays open
		kept, dropped, notes, neighbour := 0, 0, 0, 0
		for _, text := range texts(t, j, "chat", Query{}) {
			var n int
			switch {
			case text == "flood":
				kept++
			case text == "a quiet neighbour":
				neighbour++
			default:
				if _, err := fmt.Sscanf(text, "… %d lines dropped", &n); err != nil {
					t.Errorf("unexpected line %q", text)
				}
				dropped += n
				notes++
			}
		}
		if kept+dropped != written {
			t.Errorf("%d lines written, %d kept, %d said to be dropped", written, kept, dropped)
		}
		if limit := (burstSeconds + 12) * linesPerSecond; kept > limit || kept < limit/2 {
			t.Errorf("%d lines kept, the limit is %d", kept, limit)
		}
		if notes > 40 {
			t.Errorf("%d notes", notes)
		}
		if neighbour != 100 {
			t.Errorf("%d of 100 lines of the neighbour kept", neighbour)
		}
	})
}

func TestLastDropIsNotedAtClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := open(t, t.TempDir())
		print(t, j, "chat", "e1", strings.Repeat("x\n", burstSeconds*linesPerSecond+7))
		got := j.Tail("chat", "e1", 1)
		if len(got) != 1 || got[0].Text != droppedText(7) || got[0].Stream != StreamLull {
			t.Errorf("got %v", got)
		}
	})
}

// TestBurstThatDoesNotFitNamesItsEnvironment: short lines take more room in the file than they are counted for, so that the
// first seconds of a flood are too much at once although they are within its limits.
func TestBurstThatDoesNotFitNamesItsEnvironment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := open(t, t.TempDir())
		var writers []io.Writer
		for env := range 12 {
			writers = append(writers, j.Writer("chat", fmt.Sprintf("e%d", env), "stdout"))
		}
		line := strings.Repeat("\x01", 200) + "\n"
		for _, w := range writers {
			io.WriteString(w, strings.Repeat(line, burstSeconds*linesPerSecond))
		}
		bubble.Pass(time.Second)
		kept, dropped := map[string]int{}, map[string]int{}
		err := j.Read(t.Context(), "chat", Query{}, func(entry Entry) error {
			var n int
			if entry.Stream != StreamLull {
				kept[entry.Environment]++
			} else if _, err := fmt.Sscanf(entry.Text, "… %d lines dropped: it prints faster", &n); err != nil || entry.Environment == "" {
				t.Errorf("%q says %q", entry.Environment, entry.Text)
			}
			dropped[entry.Environment] += n
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for env := range len(writers) {
			id := fmt.Sprintf("e%d", env)
			if got := kept[id] + dropped[id]; got != burstSeconds*linesPerSecond {
				t.Errorf("%s: %d lines kept, %d said to be dropped", id, kept[id], dropped[id])
			}
		}
		if dropped["e11"] == 0 {
			t.Error("everything did fit")
		}
	})
}

// TestFullDiskIsNoted: what could not be written is not said to be the fault of those who printed it.
func TestFullDiskIsNoted(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	b := j.book("chat")
	if err := os.Mkdir(b.path, 0o700); err != nil { // stands for a disk that takes nothing
		t.Fatal(err)
	}
	print(t, j, "chat", "e1", "one\ntwo\n")
	if err := b.flush(); err == nil {
		t.Fatal("written into a directory")
	}
	if err := os.Remove(b.path); err != nil {
		t.Fatal(err)
	}
	print(t, j, "chat", "e1", "three\n")
	if err := b.flush(); err != nil {
		t.Fatal(err)
	}
	got := j.Tail("chat", "", 3)
	if !slices.ContainsFunc(got, func(e Entry) bool {
		return e.Environment == "" && strings.HasSuffix(e.Text, "lines dropped: the disk is full or cannot be written")
	}) {
		t.Errorf("got %v", got)
	}
}

func TestStuckDiskDropsInsteadOfWaiting(t *testing.T) {
	j := open(t, t.TempDir())
	b := j.book("chat")
	b.files.Lock() // as a write that does not return
	line := strings.Repeat("x", maxLine) + "\n"
	for env := range 3 {
		w := j.Writer("chat", fmt.Sprint(env), "stdout")
		fmt.Fprint(w, strings.Repeat(line, 200))
		w.Close()
	}
	b.mu.Lock()
	pending, lost := len(b.pending), b.crowded["2"]
	b.mu.Unlock()
	b.files.Unlock()
	if pending > maxPending || lost == 0 {
		t.Errorf("%d bytes pending, %d lines lost", pending, lost)
	}
	if err := b.flush(); err != nil {
		t.Fatal(err)
	}
	print(t, j, "chat", "e9", "after\n")
	got := j.Tail("chat", "", 2)
	if want := droppedText(lost); got[0].Text != want || got[0].Environment != "2" || got[1].Text != "after" {
		t.Errorf("got %v, want %q", got, want)
	}
}
