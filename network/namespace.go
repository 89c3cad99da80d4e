package network

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/lull-dev/lull/host"
)

// newNamespace makes a network namespace with its loopback interface up and returns a descriptor that keeps it alive.
// The namespace's eth0, which is yet to come, will have no IPv6; its loopback has, for apps that listen on ::1.
func newNamespace() (*os.File, error) {
	var made *os.File
	err := host.Elsewhere(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		var err error
		if made, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		if err := setSysctl("net/ipv6/conf/default/disable_ipv6", "1"); err != nil {
			return err
		}
		return linkUp("lo")
	})
	if err != nil {
		if made != nil {
			_ = made.Close()
		}
		return nil, fmt.Errorf("make network namespace: %w", err)
	}
	return made, nil
}

// inside runs fn on a thread that is in the namespace.
func inside(namespace *os.File, fn func() error) error {
	return host.Elsewhere(func() error {
		if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return fn()
	})
}
