package network

import (
	"errors"

	"github.com/vishvananda/netlink"
)

// dumpTries is how often a list is asked for that changes while the kernel is telling it, as it does where environments
// come and go all the time.
const dumpTries = 50

// whole asks for a list of the kernel's until it got one that did not change meanwhile.
func whole[T any](list func() ([]T, error)) (all []T, err error) {
	for range dumpTries {
		if all, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return all, err
		}
	}
	return all, err
}
