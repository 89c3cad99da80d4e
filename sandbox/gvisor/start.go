package gvisor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/runsc/container"

	"github.com/lull-dev/lull/sandbox"
)

// undo is a list of steps back, to be taken in reverse.
type undo []func() error

func (u *undo) add(step func() error) { *u = append(*u, step) }

func (u undo) run() error {
	var errs []error
	for _, step := range slices.Backward(u) {
		errs = append(errs, step())
	}
	return errors.Join(errs...)
}

// start makes the sandbox step by step, of a snapshot if there is one, and then of the spare if that is of use. Each step
// that makes something adds how to undo it, for a later step's failure and for Close.
func (d *Driver) start(ctx context.Context, spec sandbox.Spec, from *snapshot) (*box, error) {
	who, err := d.check(spec)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if from != nil {
		if b := d.takeSpare(ctx, spec); b != nil {
			ready := func() error { return nil }
			err := b.make(ctx, from, ready, func() error { return b.adopt(ctx, spec, who, from) })
			if !errors.Is(err, errUnfit) {
				return b, err
			}
			d.log.Warn("a spare sandbox was of no use", "sandbox", spec.ID, "error", err)
		}
	}
	b := newBox(d, spec)
	return b, b.make(ctx, from, func() error { return b.prepare(who, from) }, func() error {
		if err := b.create(); err != nil {
			return err
		}
		b.output.begin(spec.Stdout, spec.Stderr)
		return nil
	})
}

// make makes the sandbox: what is around it with prepare, its processes with create. If it fails it undoes all that was
// done.
func (b *box) make(ctx context.Context, from *snapshot, prepare, create func() error) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(cmp.Or(ctx.Err(), err), b.undo.run())
		}
	}()
	if err := prepare(); err != nil {
		return err
	}
	// What is under way cannot be called off, but comes to an end at once when its processes do.
	wanted := context.AfterFunc(ctx, b.abort)
	defer wanted()
	check := make(chan error, 1) // has room: the check may come too late
	if from != nil {
		go func() { check <- from.check() }() // ends by itself, and mostly before the sandbox is created
	}
	if err := create(); err != nil {
		return err
	}
	if from != nil {
		err = b.revive(ctx, from, check)
	} else {
		err = b.run()
	}
	if err != nil {
		return err
	}
	if !wanted() {
		return ctx.Err()
	}
	b.kept = false
	b.watch()
	return nil
}

// abort kills the sandbox's processes while it is being made. They join the cgroup themselves, so that one which does not
// get on may not be in it yet.
func (b *box) abort() {
	b.cgroup.kill()
	for _, pid := range partsOf(b.dir) {
		_ = unix.Kill(pid, unix.SIGKILL) // a child of ours that nobody has waited for: the number is still its own
	}
}

// partsOf finds the children of this process that are parts of the sandbox with this bundle.
func partsOf(bundle string) (pids []int) {
	entries, _ := os.ReadDir("/proc")
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || !isChild(pid) {
			continue
		}
		command, _ := os.ReadFile(filepath.Join("/proc", entry.Name(), "cmdline"))
		if BundleOf(strings.Split(string(command), "\x00")) == bundle {
			pids = append(pids, pid)
		}
	}
	return pids
}

func isChild(pid int) bool {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	return strings.Contains(string(status), fmt.Sprintf("\nPPid:\t%d\n", os.Getpid()))
}

// check reports what is wrong with a spec before anything is made, and finds out the user.
func (d *Driver) check(spec sandbox.Spec) (user, error) {
	if err := checkMounts(spec); err != nil {
		return user{}, err
	}
	if spec.Root != "" {
		if _, err := os.Stat(spec.Root); err != nil {
			return user{}, fmt.Errorf("find the image's files: %w", err)
		}
	}
	who, err := findUser(spec.User, cmp.Or(spec.Root, d.etcRoot()))
	if err != nil {
		return user{}, err
	}
	return who, handOver(spec, who)
}

// prepare makes everything around the sandbox: its directory, network and cgroup.
func (b *box) prepare(who user, from *snapshot) error {
	if err := b.makeDir(); err != nil {
		return err
	}
	if err := b.attach(from != nil); err != nil {
		return err
	}
	order := b.order(who)
	if from != nil {
		order.Wider = from.Wider
	}
	return b.surround(order, who, b.link.Namespace())
}

// makeDir makes its directory.
func (b *box) makeDir() error {
	if err := os.MkdirAll(filepath.Join(b.dir, rootDir), 0o711); err != nil {
		return err
	}
	b.undo.add(func() error { return os.RemoveAll(b.dir) })
	return nil
}

// surround makes everything else, with the sandbox's processes in a network namespace.
func (b *box) surround(o order, who user, namespace string) (err error) {
	d := b.driver
	if b.cgroup, err = d.cgroups.make(filepath.Join(d.slot.Name(), b.spec.ID), b.spec.Limits); err != nil {
		return err
	}
	b.undo.add(b.cgroup.remove)
	b.undo.add(func() error { b.cgroup.kill(); return nil })
	o.Cgroups = b.cgroup.joins()
	if b.line, err = newLine(b.dir, b.spec.Limited); err != nil {
		return err
	}
	b.undo.add(b.line.close)
	b.oci = ociSpec(b.spec, who, b.dir, namespace)
	if err := errors.Join(writeSpec(b.oci, b.dir), o.write(b.dir)); err != nil {
		return err
	}
	b.conf, err = configure(b.dir, d.scratch, namespace, b.spec.Limits.Disk, b.spec.WritableRoot)
	return err
}

// attach connects the sandbox to the network: for a restored one with the link that Vacate has kept, if it has.
func (b *box) attach(restored bool) (err error) {
	if restored {
		b.link = b.driver.takeKept(b.spec.ID)
		b.kept = b.link != nil
	}
	if b.link == nil {
		if b.link, err = b.driver.network.Attach(b.spec.ID, b.spec.Egress); err != nil {
			return err
		}
	}
	b.undo = slices.Insert(b.undo, 1, b.leaveLink) // after the directory's: nobody has the link until the processes are gone
	return b.link.Restore()
}

func (b *box) order(who user) order {
	limits := b.spec.Limits
	return order{
		CPUs:   processors(limits.CPU),
		Root:   rootOf(b.spec, who, b.driver.etc()),
		errand: errand{Memory: int64(limits.Memory), Processes: limits.Processes},
	}
}

// processors is how many the app sees with this limit.
func processors(limit float64) int {
	if limit <= 0 {
		return 0
	}
	// With a single processor some programs leave locks out that others count on.
	return min(runtime.NumCPU(), max(2, int(math.Ceil(limit))))
}

// create makes the sandbox's processes. The app's own is not among them yet.
func (b *box) create() error {
	output, err := newOutput()
	if err != nil {
		return err
	}
	b.output = output
	b.undo.add(func() error { output.wait(); return nil })
	c, err := container.New(b.conf, container.Args{ID: b.spec.ID, Spec: b.oci, BundleDir: b.dir, PassFiles: output.files()})
	output.handedOver()
	if err != nil {
		return b.explain(err)
	}
	b.container, b.sentry = c, c.Sandbox
	b.undo.add(c.Destroy)
	if err := b.process.take(b.sentry.Getpid()); err != nil {
		return err
	}
	b.undo.add(b.process.close)
	return b.line.accept()
}

// run starts the app.
func (b *box) run() error {
	if err := b.container.Start(b.conf); err != nil {
		return b.explain(err)
	}
	return b.cgroup.limitCPU()
}

// explain adds what the sandbox's processes have left behind about why they gave up.
func (b *box) explain(err error) error {
	for _, file := range []string{faultFile, gvisorLog, gvisorDump} {
		data, _ := os.ReadFile(filepath.Join(b.dir, file))
		if text := strings.TrimSpace(string(data)); text != "" {
			err = fmt.Errorf("%w: %s", err, text[:min(len(text), 2000)])
		}
	}
	return err
}

// handOver makes the user the owner of the files of layered mounts that belong to root, so that an app that is not root
// can change its own files (in memory: the layer keeps the change). It is done once for each directory; whoever unpacks
// a release with the right owner saves it.
func handOver(spec sandbox.Spec, who user) error {
	if who.UID == 0 || spec.Root != "" {
		return nil
	}
	for _, m := range spec.Mounts {
		var stat unix.Stat_t
		if m.Mode != sandbox.Layered || unix.Stat(m.Source, &stat) != nil || stat.Uid != 0 {
			continue
		}
		if err := chownTree(m.Source, who); err != nil {
			return fmt.Errorf("hand %s over to the app's user: %w", m.Source, err)
		}
	}
	return nil
}

// chownTree changes the owner of everything in dir, dir itself last: its owner says that it is done.
func chownTree(dir string, who user) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, unix.ENOTDIR) {
		return err
	}
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		if entry.IsDir() {
			err = chownTree(path, who)
		} else {
			err = os.Lchown(path, who.UID, who.GID)
		}
		if err != nil {
			return err
		}
	}
	return os.Lchown(dir, who.UID, who.GID)
}
