package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/lull-dev/lull/e2e/rig"
)

const (
	bigFile = 1 << 30
	flat    = 64 << 20 // by so much the node may grow while a gigabyte passes through it
)

// A gigabyte down and a gigabyte up, whole, in constant memory: in the node and in the environment, which may have 256 MB.
func TestGigabytes(t *testing.T) {
	s := sharedNode(t)
	s.deploy(copyApp(t, "bigfiles", map[string]string{"lull.yaml": "resources: {cpu: 2, memory: 256MB}\n"}), "bigfiles")
	s.get("bigfiles", "/")

	var sent string
	watchMemory(t, s, "the download", func(ctx context.Context) {
		resp := s.transfer(ctx, http.MethodGet, "/down?bytes=1073741824", nil)
		defer resp.Body.Close()
		sum := sha256.New()
		n, err := io.Copy(sum, resp.Body)
		if err != nil || n != bigFile {
			t.Fatalf("of the download %d bytes came: %v", n, err)
		}
		sent = hex.EncodeToString(sum.Sum(nil))
	})
	if want := hex.EncodeToString(hashOf(numbered())); sent != want {
		t.Errorf("the download has the hash %s, want %s", sent, want)
	}
	watchMemory(t, s, "the upload", func(ctx context.Context) {
		resp := s.transfer(ctx, http.MethodPut, "/up", numbered())
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		got := decode[struct {
			Bytes  int64
			SHA256 string
		}](t, string(body))
		if got.Bytes != bigFile || got.SHA256 != sent {
			t.Errorf("of the upload %d bytes came with the hash %s, want %s", got.Bytes, got.SHA256, sent)
		}
	})
}

func (s *stage) transfer(ctx context.Context, method, path string, body io.Reader) *http.Response {
	s.t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, s.URL("bigfiles", path), body)
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := s.Client().Do(req)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(resp.Body)
		s.t.Fatalf("%s %s: %s\n%s", method, path, resp.Status, text)
	}
	return resp
}

// watchMemory checks while work goes on that the node's memory stays where it was.
func watchMemory(t *testing.T, s *stage, what string, work func(context.Context)) {
	t.Helper()
	before, err := rig.RSS(s.PID())
	if err != nil {
		t.Fatal(err)
	}
	peak, done := before, make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		again := time.NewTicker(20 * time.Millisecond)
		defer again.Stop()
		for {
			select {
			case <-done:
				return
			case <-again.C:
			}
			if now, err := rig.RSS(s.PID()); err == nil {
				peak = max(peak, now)
			}
		}
	})
	start := time.Now()
	func() {
		defer watching.Wait()
		defer close(done)
		work(within(t, 2*time.Minute))
	}()
	t.Logf("%s took %s; the node went from %d MB to %d MB at most", what, time.Since(start).Round(time.Millisecond), before>>20, peak>>20)
	if peak-before > flat {
		t.Errorf("during %s the node grew from %d MB to %d MB", what, before>>20, peak>>20)
	}
}

func hashOf(r io.Reader) []byte {
	sum := sha256.New()
	_, _ = io.Copy(sum, r) // neither a hash nor numbered can fail
	return sum.Sum(nil)
}

// numbered is what the app sends: blocks of numbered lines.
func numbered() io.Reader {
	block := make([]byte, 0, 8192*8)
	for i := range 8192 {
		line := []byte("0000000\n")
		for place := 6; i > 0; place, i = place-1, i/10 {
			line[place] = byte('0' + i%10)
		}
		block = append(block, line...)
	}
	return io.LimitReader(&repeating{block: block}, bigFile)
}

// repeating reads a block again and again.
type repeating struct {
	block []byte
	at    int
}

func (r *repeating) Read(p []byte) (int, error) {
	n := copy(p, r.block[r.at:])
	r.at = (r.at + n) % len(r.block)
	return n, nil
}
