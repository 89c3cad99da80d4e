package network

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Link is one environment's network. Its methods may be called concurrently.
type Link struct {
	id      string
	network *Network
	path    string
	policy  policy
	wire    *wire

	mu        sync.Mutex       // guards what follows, and orders changes of the link's rules
	endpoints []netip.AddrPort // that the listed targets stand for, as the rules have them
	admitted  bool             // the policy and networks are in the rules
	silent    bool             // Silence is in the rules
	closed    bool
	closeErr  error
}

// Namespace is the path of the file that stands for the namespace, as an OCI specification wants it.
func (l *Link) Namespace() string { return l.path }

// Addr is the environment's address. The host reaches it while the link is open.
func (l *Link) Addr() netip.Addr { return l.wire.subnet.environment() }

// Gateway is the host's address on the link: the source of its connections to the environment.
func (l *Link) Gateway() netip.Addr { return l.wire.subnet.gateway() }

// Restore puts the address and the default route back, which a gVisor sandbox takes away from the namespace when it
// starts. It must be called before every start or restore of a sandbox in the namespace after the first.
func (l *Link) Restore() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return errors.New("restore network: link is closed")
	}
	if err := l.wire.setUpInside(); err != nil {
		return fmt.Errorf("restore network of %s: %w", l.id, err)
	}
	return nil
}

// Silence keeps all packets from the environment, for the time when nobody is there who knows its connections. One that
// arrived meanwhile, if only a late acknowledgement, would be answered with a reset: by the namespace's own kernel once it
// has the address back, or by a sandbox that has not read its connections yet. What is lost is sent again later.
func (l *Link) Silence() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return errors.New("silence network: link is closed")
	case l.silent:
		return nil
	}
	if err := l.network.rules.add(l.network.rules.silence(l.Addr())); err != nil {
		return fmt.Errorf("silence network of %s: %w", l.id, err)
	}
	l.silent = true
	return nil
}

// Unsilence undoes Silence, if there is anything to undo.
func (l *Link) Unsilence() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || !l.silent {
		return nil
	}
	l.silent = false
	if err := l.network.rules.remove(l.network.rules.silence(l.Addr())); err != nil {
		return fmt.Errorf("end the silence in the network of %s: %w", l.id, err)
	}
	return nil
}

// Close removes the namespace's file, the interfaces and the rules. It returns when they are gone, and may be called
// more than once. The namespace itself ends with the last process in it.
func (l *Link) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return l.closeErr
	}
	l.closed = true
	var policy []change
	if l.admitted {
		policy = l.changes()
	}
	if l.silent {
		policy = append(policy, l.network.rules.silence(l.Addr()))
	}
	err := errors.Join(unmount(l.path), l.network.wires.give(l.wire, policy...))
	l.network.unregister(l)
	if err != nil {
		l.closeErr = fmt.Errorf("close network of %s: %w", l.id, err)
	}
	return l.closeErr
}

// open gives the namespace its file and the address its policy.
func (l *Link) open() error {
	if err := mountNamespace(l.wire.namespace, l.path); err != nil {
		return err
	}
	endpoints := l.network.names.resolve(l.policy.targets, time.Now())
	l.mu.Lock()
	defer l.mu.Unlock()
	l.endpoints = endpoints
	if err := l.network.rules.add(l.changes()...); err != nil {
		return err
	}
	l.admitted = true
	return nil
}

// changes are what the link adds to the rules. l.mu is held.
func (l *Link) changes() []change {
	rules, from := l.network.rules, l.Addr()
	return []change{
		rules.policy(from, l.policy.kind),
		rules.reach(from, l.policy.networks),
		rules.connect(from, l.endpoints),
	}
}

// update brings the rules in line with what the names of the policy stand for now.
func (l *Link) update() error {
	endpoints := l.network.names.endpoints(l.policy.targets)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || !l.admitted {
		return nil
	}
	added, removed := missing(endpoints, l.endpoints), missing(l.endpoints, endpoints)
	if err := l.network.rules.add(l.network.rules.connect(l.Addr(), added)); err != nil {
		return err
	}
	l.endpoints = append(l.endpoints, added...)
	if err := l.network.rules.remove(l.network.rules.connect(l.Addr(), removed)); err != nil {
		return err
	}
	l.endpoints = endpoints
	return nil
}

// missing returns what is in all but not in some.
func missing(all, some []netip.AddrPort) []netip.AddrPort {
	return slices.DeleteFunc(slices.Clone(all), func(e netip.AddrPort) bool { return slices.Contains(some, e) })
}

// mountNamespace makes path stand for the namespace.
func mountNamespace(namespace *os.File, path string) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY|unix.O_CLOEXEC, 0o444)
	if err != nil {
		return err
	}
	_ = file.Close()
	source := fmt.Sprintf("/proc/self/fd/%d", namespace.Fd())
	if err := unix.Mount(source, path, "", unix.MS_BIND, ""); err != nil {
		return errors.Join(fmt.Errorf("mount namespace on %s: %w", path, err), os.Remove(path))
	}
	return nil
}

// unmount undoes mountNamespace, and does nothing if that has not happened.
func unmount(path string) error {
	err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) { // EINVAL: not mounted
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
