package journal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/lull-dev/lull/internal/bubble"
)

func open(t testing.TB, dir string) *Journal {
	t.Helper()
	j, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, j) })
	return j
}

func closed(t testing.TB, j *Journal) {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Errorf("close journal: %v", err)
	}
}

// print writes text as stdout of an environment and ends it.
func print(t testing.TB, j *Journal, app, env, text string) {
	t.Helper()
	w := j.Writer(app, env, "stdout")
	if n, err := w.Write([]byte(text)); n != len(text) || err != nil {
		t.Errorf("write took %d of %d bytes, %v", n, len(text), err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

// texts reads what a query gives.
func texts(t testing.TB, j *Journal, app string, q Query) []string {
	t.Helper()
	var got []string
	err := j.Read(t.Context(), app, q, func(e Entry) error {
		got = append(got, e.Text)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func wantTexts(t testing.TB, what string, got []string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func numbers(from, to, step int) []string {
	var list []string
	for n := from; n <= to; n += step {
		list = append(list, fmt.Sprint(n))
	}
	return list
}

func TestOutputBecomesLines(t *testing.T) {
	for name, c := range map[string]struct {
		writes []string
		want   []string
	}{
		"whole lines":           {[]string{"one\ntwo\n"}, []string{"one", "two"}},
		"in pieces":             {[]string{"o", "ne\nt", "wo", "\n"}, []string{"one", "two"}},
		"without an end":        {[]string{"one\ntwo"}, []string{"one", "two"}},
		"empty lines":           {[]string{"\n\none\n"}, []string{"", "", "one"}},
		"nothing":               {[]string{"", ""}, nil},
		"windows":               {[]string{"one\r\ntwo\r", "\n"}, []string{"one", "two"}},
		"control characters":    {[]string{"\x1b[31mred\x00\t\n"}, []string{"\x1b[31mred\x00\t"}},
		"not UTF-8":             {[]string{"a\xff\xfeb\n"}, []string{"a\uFFFDb"}},
		"a character in pieces": {[]string{"\xe2\x82", "\xac\n"}, []string{"€"}},
		"as long as may be":     {[]string{strings.Repeat("x", maxLine), "\n"}, []string{strings.Repeat("x", maxLine)}},
		"too long": {[]string{strings.Repeat("x", maxLine), "yy", "y\nnext\n"},
			[]string{strings.Repeat("x", maxLine) + " … (3 bytes more)", "next"}},
		"too long, cut in a character": {[]string{strings.Repeat("x", maxLine-1) + "€\n"},
			[]string{strings.Repeat("x", maxLine-1) + " … (3 bytes more)"}},
	} {
		t.Run(name, func(t *testing.T) {
			j := open(t, t.TempDir())
			w := j.Writer("chat", "e1", "stderr")
			for _, p := range c.writes {
				fmt.Fprint(w, p)
			}
			w.Close()
			wantTexts(t, "read", texts(t, j, "chat", Query{}), c.want...)
		})
	}
}

func TestEntriesSayWhereTheyComeFrom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := open(t, t.TempDir())
		w := j.Writer("chat", "e1", "stderr")
		fmt.Fprintln(w, "hello")
		bubble.Pass(time.Second)
		j.Note("chat", "e2", "started\nand ready\n")
		start := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
		want := []Entry{
			{start, "e1", "stderr", "hello"},
			{start.Add(time.Second), "e2", StreamLull, "started"},
			{start.Add(time.Second), "e2", StreamLull, "and ready"},
		}
		if diff := cmp.Diff(want, j.Tail("chat", "", 10)); diff != "" {
			t.Errorf("tail (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(want[1:2], j.Tail("chat", "e2", 2)[:1]); diff != "" {
			t.Errorf("tail of e2 (-want +got):\n%s", diff)
		}
		if got := j.Tail("other", "", 10); len(got) != 0 {
			t.Errorf("tail of an app without output: %v", got)
		}
	})
}

func TestQueries(t *testing.T) {
	j := open(t, t.TempDir())
	w1, w2 := j.Writer("chat", "e1", "stdout"), j.Writer("chat", "e2", "stdout")
	for n := 1; n <= 1000; n++ { // more than is in memory
		w := w1
		if n%2 == 0 {
			w = w2
		}
		fmt.Fprintln(w, n)
	}
	for name, c := range map[string]struct {
		query Query
		want  []string
	}{
		"everything":               {Query{}, numbers(1, 1000, 1)},
		"the last":                 {Query{Last: 3}, numbers(998, 1000, 1)},
		"more than is in memory":   {Query{Last: 500}, numbers(501, 1000, 1)},
		"more than there is":       {Query{Last: 5000}, numbers(1, 1000, 1)},
		"nothing":                  {Query{Last: -1}, nil},
		"of one":                   {Query{Last: 2, Environment: "e1"}, []string{"997", "999"}},
		"of one that is not there": {Query{Last: 2, Environment: "e3"}, nil},
		"more than memory of one":  {Query{Last: 400, Environment: "e2"}, numbers(202, 1000, 2)},
		"everything of one":        {Query{Environment: "e2"}, numbers(2, 1000, 2)},
	} {
		got := texts(t, j, "chat", c.query)
		wantTexts(t, name, got, c.want...)
	}
}

func TestOutputSurvivesARestart(t *testing.T) {
	dir := t.TempDir()
	var want []string
	for run := range 4 {
		j := open(t, dir)
		// In every second run something is asked for before there is new output.
		if run%2 == 0 {
			wantTexts(t, "before", texts(t, j, "chat", Query{Last: 1000}), want...)
		}
		for n := range 150 {
			text := fmt.Sprintf("run %d line %d", run, n)
			print(t, j, "chat", "e1", text)
			want = append(want, text)
		}
		wantTexts(t, "last 200", texts(t, j, "chat", Query{Last: 200}), want[max(0, len(want)-200):]...)
		wantTexts(t, "everything", texts(t, j, "chat", Query{}), want...)
		closed(t, j)
	}
}

func TestLineOfAKilledProcessIsLeftOut(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	print(t, j, "chat", "e1", "one\ntwo\n")
	closed(t, j)
	path := filepath.Join(dir, "chat.log")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data[:len(data)-5], 0o600); err != nil {
		t.Fatal(err)
	}
	j = open(t, dir)
	print(t, j, "chat", "e1", "three\n")
	closed(t, j)
	wantTexts(t, "after", texts(t, open(t, dir), "chat", Query{}), "one", "three")
}

func TestOutputIsOnDiskSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		j := open(t, dir)
		fmt.Fprintln(j.Writer("chat", "e1", "stdout"), "hello")
		bubble.Pass(time.Second)
		synctest.Wait()
		data, err := os.ReadFile(filepath.Join(dir, "chat.log"))
		if err != nil || !strings.Contains(string(data), "hello") {
			t.Errorf("after a second the file holds %q, %v", data, err)
		}
	})
}

func TestDiskUseIsBounded(t *testing.T) {
	dir := t.TempDir()
	text := strings.Repeat("x", maxLine-10)
	for run := range 3 { // within what an environment may write at once
		j := open(t, dir)
		w := j.Writer("chat", "e1", "stdout")
		for n := range 240 {
			fmt.Fprintf(w, "%d %03d %s\n", run, n, text)
		}
		w.Close()
		closed(t, j)
	}
	var size int64
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", entry.Name(), info.Mode())
		}
		size += info.Size()
	}
	if size > 2*maxFile || size < maxFile {
		t.Errorf("%d MB on disk", size>>20)
	}
	got := texts(t, open(t, dir), "chat", Query{})
	if last := got[len(got)-1]; !strings.HasPrefix(last, "2 239") {
		t.Errorf("the newest line is %.10q", last)
	}
	if !slices.IsSortedFunc(got, func(a, b string) int { return strings.Compare(a[:1], b[:1]) }) {
		t.Error("lines of the runs are mixed")
	}
}

// TestFollowMissesNothing starts readers at random moments of a steady output: each must see all of it from its first
// entry on, once.
func TestFollowMissesNothing(t *testing.T) {
	const lines = 3000
	j := open(t, t.TempDir())
	w := j.Writer("chat", "e1", "stdout")
	var readers sync.WaitGroup
	for n := range lines {
		fmt.Fprintln(w, n)
		if n%200 != 0 {
			continue
		}
		if n%400 == 0 {
			if err := j.book("chat").flush(); err != nil {
				t.Fatal(err)
			}
		}
		readers.Go(func() {
			next := 0
			err := j.Read(t.Context(), "chat", Query{Follow: true}, func(e Entry) error {
				if e.Text != fmt.Sprint(next) {
					return fmt.Errorf("got %q, want %d", e.Text, next)
				}
				if next++; next == lines {
					return errDone
				}
				return nil
			})
			if !errors.Is(err, errDone) {
				t.Errorf("reader from %d: %v", n, err)
			}
		})
	}
	readers.Wait()
}

var errDone = errors.New("done")

func TestFollowEnds(t *testing.T) {
	for name, end := range map[string]struct {
		end  func(j *Journal, cancel context.CancelFunc)
		want error
	}{
		"with its context": {func(_ *Journal, cancel context.CancelFunc) { cancel() }, context.Canceled},
		"with the app":     {func(j *Journal, _ context.CancelFunc) { j.Remove("chat") }, nil},
		"with the journal": {func(j *Journal, _ context.CancelFunc) { j.Close() }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				j := open(t, t.TempDir())
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				result := make(chan error)
				var got []string
				go func() {
					result <- j.Read(ctx, "chat", Query{Last: -1, Follow: true, Environment: "e1"}, func(e Entry) error {
						got = append(got, e.Text)
						return nil
					})
				}()
				synctest.Wait()
				print(t, j, "chat", "e1", "one\n")
				print(t, j, "chat", "e2", "of another\n")
				synctest.Wait()
				end.end(j, cancel)
				if err := <-result; !errors.Is(err, end.want) {
					t.Errorf("it ended with %v", err)
				}
				wantTexts(t, "followed", got, "one")
			})
		})
	}
}

func TestSlowReaderIsToldWhatItMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := open(t, t.TempDir())
		var got []string
		result := make(chan error)
		go func() {
			result <- j.Read(t.Context(), "chat", Query{Follow: true}, func(e Entry) error {
				if got = append(got, e.Text); len(got) == 1 {
					bubble.Pass(time.Minute)
				}
				return nil
			})
		}()
		synctest.Wait()
		print(t, j, "chat", "e1", "first\n")
		synctest.Wait()
		for env := range 2 {
			print(t, j, "chat", fmt.Sprint(env), strings.Repeat("x\n", 3000))
		}
		bubble.Pass(2 * time.Minute)
		synctest.Wait()
		j.Close()
		if err := <-result; err != nil {
			t.Fatal(err)
		}
		if len(got) != 1+readerLines+1 || got[len(got)-1] != "… 2000 lines skipped: they came faster than they were read" {
			t.Errorf("%d entries, the last is %q", len(got), got[len(got)-1])
		}
	})
}

func TestRemoveDeletesEverything(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	w := j.Writer("chat", "e1", "stdout")
	fmt.Fprintln(w, "one")
	print(t, j, "blog", "e2", "kept\n")
	if err := j.book("chat").flush(); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(w, "two")
	for range 2 { // a second time is harmless
		if err := j.Remove("chat"); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Fprintln(w, "written into nothing")
	w.Close()
	wantTexts(t, "removed app", texts(t, j, "chat", Query{}))
	wantTexts(t, "other app", texts(t, j, "blog", Query{}), "kept")
	closed(t, j)
	if _, err := os.Stat(filepath.Join(dir, "chat.log")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its file is still there: %v", err)
	}
}

func TestNamesThatAreNotAppsAreKeptNowhere(t *testing.T) {
	dir := t.TempDir()
	j := open(t, filepath.Join(dir, "logs"))
	for _, app := range []string{"", "../x", "a/b", "A", "a.log"} {
		print(t, j, app, "e1", "x\n")
		wantTexts(t, app, texts(t, j, app, Query{}))
		if err := j.Remove(app); err != nil {
			t.Error(err)
		}
	}
	closed(t, j)
	print(t, j, "chat", "e1", "after the end\n")
	if entries, err := os.ReadDir(filepath.Join(dir, "logs")); err != nil || len(entries) != 0 {
		t.Errorf("files %v, %v", entries, err)
	}
}

func TestMemoryOfAnAppIsBounded(t *testing.T) {
	j := open(t, t.TempDir())
	print(t, j, "chat", "e1", strings.Repeat(strings.Repeat("x", maxLine)+"\n", 100))
	b := j.book("chat")
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.recent.size > recentBytes {
		t.Errorf("%d bytes in memory", b.recent.size)
	}
}

func FuzzWriterMakesValidLines(f *testing.F) {
	f.Add([]byte("one\ntwo"), uint8(3))
	f.Add([]byte("a\xff\r\n\xe2\x82"), uint8(1))
	f.Add([]byte(strings.Repeat("€", maxLine)), uint8(200))
	f.Fuzz(func(t *testing.T, output []byte, step uint8) {
		b := newBook("never written", func() {})
		w := &writer{book: b, meter: b.openMeter("e1"), env: "e1", stream: "stdout"}
		for rest := output; len(rest) > 0; {
			n := min(len(rest), int(step)+1)
			w.Write(rest[:n])
			rest = rest[n:]
		}
		w.Close()
		for _, entry := range b.recent.list() {
			if !utf8.ValidString(entry.Text) || strings.Contains(entry.Text, "\n") || len(entry.Text) > 3*maxLine+40 {
				t.Errorf("entry %q", entry.Text)
			}
		}
	})
}

func FuzzDamagedFileIsRead(f *testing.F) {
	f.Add([]byte(`{"time":"2026-01-01T00:00:00Z","environment":"e1","stream":"stdout","text":"x"}` + "\n"))
	f.Add([]byte("{}\nnull\n[]\n\n\x00"))
	f.Add([]byte(strings.Repeat("x", longestLine+1) + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "chat.log"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		j := open(t, dir)
		print(t, j, "chat", "e1", "new\n")
		if err := j.book("chat").flush(); err != nil {
			t.Fatal(err)
		}
		got := texts(t, j, "chat", Query{})
		if len(got) == 0 || got[len(got)-1] != "new" {
			t.Errorf("got %q", got)
		}
		for _, text := range got {
			if !utf8.ValidString(text) {
				t.Errorf("entry %q", text)
			}
		}
	})
}

func BenchmarkWriter(b *testing.B) {
	j := open(b, b.TempDir())
	bk := j.book("chat")
	line := []byte(strings.Repeat("x", 99) + "\n")
	w := &writer{book: bk, meter: bk.openMeter("e1"), env: "e1", stream: "stdout"}
	b.SetBytes(int64(len(line)))
	for n := 0; b.Loop(); n++ {
		if n%1000 == 0 {
			w.meter.last = time.Time{} // let it all through
			bk.mu.Lock()
			bk.pending = bk.pending[:0]
			bk.mu.Unlock()
		}
		w.Write(line)
	}
}

func BenchmarkFloodThatIsDropped(b *testing.B) {
	j := open(b, b.TempDir())
	w := j.Writer("chat", "e1", "stdout")
	line := []byte(strings.Repeat("x", 99) + "\n")
	b.SetBytes(int64(len(line)))
	for b.Loop() {
		w.Write(line)
	}
}

func BenchmarkTail(b *testing.B) {
	j := open(b, b.TempDir())
	print(b, j, "chat", "e1", strings.Repeat("some line of output\n", 3000))
	for b.Loop() {
		if got := j.Tail("chat", "", 20); len(got) != 20 {
			b.Fatal(len(got))
		}
	}
}
