package gvisor

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/sentry/usage"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/sandbox"
)

// A spare is a sandbox without an app, made ahead: to start its processes takes longer than to restore an app into them.
// It can become any environment that is restored and has the host's runtime for its root. What of that depends on the
// environment comes to it then: the link by connectNetwork, the release by graft, the limits in its cgroup and over the
// line.

const (
	spareLimit = 10 * time.Second // for making one
	adoptLimit = time.Second      // for one to become an environment's, of which it takes 5 ms: with more something is wrong
)

// spareSpec is what a spare is until it becomes something else. No environment's id has a dot.
func spareSpec(number int64) sandbox.Spec {
	return sandbox.Spec{
		ID: fmt.Sprintf("spare.%d", number), Args: []string{"/"}, Dir: "/",
		Limits: lull.Resources{CPU: lull.DefaultManifest().Resources.CPU},
	}
}

// errUnfit means that an environment could not be had in a spare, and has to be made anew.
var errUnfit = errors.New("adopt a spare sandbox")

// spareNumber is what the latest spare's id ends with.
var spareNumber atomic.Int64

// makeSpare makes a spare.
func (d *Driver) makeSpare() (_ *box, err error) {
	here, err := thisMaker()
	if err != nil {
		return nil, err
	}
	b := newBox(d, spareSpec(spareNumber.Add(1)))
	b.maker = here
	defer func() {
		if err != nil {
			err = fmt.Errorf("make a spare sandbox: %w", errors.Join(err, b.undo.run()))
		}
	}()
	if err := b.makeDir(); err != nil {
		return nil, err
	}
	nobody := user{unprivileged, unprivileged} // the app has the user that is in its snapshot
	if err := b.surround(b.order(nobody), nobody, ""); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), spareLimit)
	defer cancel()
	wanted := context.AfterFunc(ctx, b.abort)
	if err := b.create(); err != nil {
		return nil, err
	}
	if !wanted() {
		return nil, ctx.Err()
	}
	return b, nil
}

// takeSpare returns the spare if it is there and can become what spec says, or else nil. The caller owns it.
func (d *Driver) takeSpare(ctx context.Context, spec sandbox.Spec) *box {
	here, err := thisMaker()
	if err != nil || spec.Root != "" || processors(spec.Limits.CPU) != processors(spareSpec(0).Limits.CPU) || !graftable(spec) {
		return nil
	}
	b := d.spares.take(ctx)
	if b == nil {
		return nil
	}
	if b.maker == here && isUp(b.sentry.Getpid()) && isUp(b.container.GoferPid.Load()) {
		return b
	}
	d.log.Warn("a spare sandbox was of no use", "error", errors.Join(errGone, b.undo.run()))
	return nil
}

var errGone = errors.New("it has ended, was stopped, or is of another build")

// isUp reports whether a child has neither ended nor been stopped.
func isUp(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, found := bytes.Cut(stat, []byte(") ")) // the name before it may hold anything
	return err == nil && found && bytes.IndexAny(rest[:1], "RSDI") == 0
}

// graftable reports whether what an environment has besides the host's runtime can be put into a spare's root: mounts
// that gVisor makes itself cannot, nor what lies in places that are shown from the host, or in each other.
func graftable(spec sandbox.Spec) bool {
	place := rootOf(spareSpec(0), user{}, "")
	for _, m := range spec.Mounts {
		target := path.Clean(m.Target)
		if m.Mode != sandbox.Layered || !place.lacks(target) {
			return false
		}
		if slices.ContainsFunc(place.Binds, func(b bind) bool { return within(b.Target, target) }) {
			return false
		}
		place.Binds = append(place.Binds, bind{Target: target})
	}
	return true
}

// adopt makes the spare the sandbox of spec, up to the point where the app is to be restored. It fails with errUnfit if
// that may be the spare's fault.
func (b *box) adopt(ctx context.Context, spec sandbox.Spec, who user, from *snapshot) error {
	base := b.order(who).Root
	b.spec = spec
	name := filepath.Join(b.driver.dir, sandboxesDir, spec.ID) // for those who look: whose sandbox this is
	if err := os.Symlink(filepath.Base(b.dir), name); err != nil {
		return fmt.Errorf("%w: %w", errUnfit, err)
	}
	b.undo.add(func() error { return os.Remove(name) })
	order := b.order(who)
	order.Wider = from.Wider
	grafted := make(chan error, 1)
	go func() { // the receive below waits
		grafted <- graft(b.container.GoferPid.Load(), order.Root.Dirs[len(base.Dirs):], order.Root.Binds[len(base.Binds):])
	}()
	err := b.attach(true)
	if err == nil {
		b.cgroup.cpu = spec.Limits.CPU
		err = b.cgroup.apply(b.cgroup.host.limits(spec.Limits))
	}
	b.output.begin(spec.Stdout, spec.Stderr)
	b.line.tellOf(spec.Limited)
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, adoptLimit)
		defer cancel()
		_, err = b.line.request(ctx, order.errand.question())
	}
	if err = errors.Join(err, <-grafted); err != nil {
		return fmt.Errorf("%w: %w", errUnfit, err)
	}
	if !isUp(b.container.GoferPid.Load()) { // it has no part in the above, and its sentry would wait for it
		return fmt.Errorf("%w: %w", errUnfit, errGone)
	}
	return nil
}

// question returns the errand as it is sent: its length, then JSON.
func (e errand) question() []byte {
	text, _ := json.Marshal(e) // numbers, addresses and lists of them: it cannot fail
	return append(binary.NativeEndian.AppendUint32([]byte{askAdopt}, uint32(len(text))), text...)
}

// adopt reads the errand that follows askAdopt.
func (in *inside) adopt() error {
	var size [4]byte
	if err := in.read(size[:]); err != nil {
		return err
	}
	text := make([]byte, binary.NativeEndian.Uint32(size[:]))
	if err := in.read(text); err != nil {
		return err
	}
	var e errand
	if err := json.NewDecoder(bytes.NewReader(text)).Decode(&e); err != nil {
		return err
	}
	postponeGC()
	in.began = time.Now() // gVisor makes the app's clock anew
	in.take(e)
	if e.Memory > 0 {
		usage.MinimumTotalMemoryBytes, usage.MaximumTotalMemoryBytes = uint64(e.Memory), uint64(e.Memory)
	}
	return nil
}

// read fills data from the line.
func (in *inside) read(data []byte) error {
	for len(data) > 0 {
		n, err := unix.Read(in.line, data)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return err
		case n == 0:
			return io.ErrUnexpectedEOF
		default:
			data = data[n:]
		}
	}
	return nil
}

// take does as the errand says, before there is an app.
func (in *inside) take(e errand) {
	in.processes.Store(int64(e.Processes))
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, w := range e.Wider {
		in.wider[boundPort{w.Inet6, w.Port}] = w.Asked
	}
}
