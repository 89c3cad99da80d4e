package sandboxtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/lull-dev/lull/sandbox"
)

// frozen is what is left of a vacated sandbox.
type frozen struct {
	body  *fakeBody
	token string // of its snapshot
	kept  bool   // its address: nobody has released it
}

// fakeSnapshot is the file in a snapshot's directory. It names the process and the moment.
const fakeSnapshot = "fake"

func writeFakeSnapshot(dir, id string) (token string, err error) {
	token = rand.Text()
	return token, os.WriteFile(filepath.Join(dir, fakeSnapshot), []byte(id+" "+token), 0o600)
}

func readFakeSnapshot(dir string) (id, token string) {
	data, _ := os.ReadFile(filepath.Join(dir, fakeSnapshot))
	id, token, _ = strings.Cut(string(data), " ")
	return id, token
}

// vacate takes over what is left of s.
func (f *Fake) vacate(s *FakeSandbox) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return fmt.Errorf("vacate %s: driver is closed", s.ID())
	}
	token, err := s.leave()
	if err != nil {
		return err
	}
	delete(f.sandboxes, s.ID())
	f.frozen[s.ID()] = frozen{body: s.fakeBody, token: token, kept: true}
	return nil
}

// Restore is part of sandbox.Driver. After Release the process is still there, but its connections are not. A snapshot
// that is restored for the second time is a trespass.
func (f *Fake) Restore(ctx context.Context, spec sandbox.Spec, dir string) (sandbox.Sandbox, error) {
	if !f.Capabilities().Snapshot {
		return nil, sandbox.ErrUnsupported
	}
	if err := sandbox.CheckSpec(spec); err != nil {
		return nil, err
	}
	if err := f.before(ctx, "restore", spec); err != nil {
		return nil, err
	}
	s, err := f.thaw(spec, dir)
	if err != nil {
		return nil, fmt.Errorf("restore %s: %w", spec.ID, err)
	}
	s.resume()
	return s, nil
}

func (f *Fake) thaw(spec sandbox.Spec, dir string) (*FakeSandbox, error) {
	id, token := readFakeSnapshot(dir)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.used[token] {
		f.trespass()
	}
	left, ok := f.frozen[spec.ID]
	switch {
	case f.closed:
		return nil, errors.New("driver is closed")
	case f.sandboxes[spec.ID] != nil && !f.used[token]:
		return nil, fmt.Errorf("there is a sandbox %s already", spec.ID)
	case !ok || id != spec.ID || token != left.token:
		return nil, sandbox.ErrSnapshot
	}
	delete(f.frozen, spec.ID)
	f.used[token] = true
	s := newFakeSandbox(left.body)
	left.body.adopt(s, spec, left.kept)
	f.sandboxes[spec.ID] = s
	f.restores++
	f.peak = max(f.peak, len(f.sandboxes))
	return s, nil
}

// Release is part of sandbox.Driver.
func (f *Fake) Release(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if left, ok := f.frozen[id]; ok {
		left.kept = false
		f.frozen[id] = left
	}
}

// Kept returns the ids of the sandboxes that were vacated, and neither restored nor released since, in order.
func (f *Fake) Kept() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var ids []string
	for id, left := range f.frozen {
		if left.kept {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// killFrozen ends the processes of the sandboxes that were vacated.
func (f *Fake) killFrozen() {
	f.mu.Lock()
	left := f.frozen
	f.frozen = nil
	f.mu.Unlock()
	for _, each := range left {
		each.body.kill()
	}
}
