package network

import (
	"errors"
	"fmt"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// cutter removes wires. The kernel takes some 20 ms to remove an interface, as long for many in one go, and nobody else
// can change an interface meanwhile. So whoever has the turn removes those of all who wait for it.
type cutter struct {
	group uint32 // of interfaces about to be removed; no other node's

	mu      sync.Mutex // guards waiting
	waiting []*cutting

	turn sync.Mutex // held while interfaces are removed
}

// firstGroup is the group of slot 0. Group 0 is every other interface's; people use small numbers.
const firstGroup = 0x6c750000

type cutting struct {
	name string
	done bool // guarded by turn
	err  error
}

// cut removes the pair and lets go of the namespace, which ends with the last process in it.
func (c *cutter) cut(w *wire) error {
	own := &cutting{name: w.name}
	c.mu.Lock()
	c.waiting = append(c.waiting, own)
	c.mu.Unlock()

	c.turn.Lock()
	defer c.turn.Unlock()
	if !own.done {
		c.mu.Lock()
		batch := c.waiting
		c.waiting = nil
		c.mu.Unlock()
		c.removeAll(batch)
	}
	return errors.Join(own.err, w.namespace.Close())
}

// removeAll removes interfaces together if it can, and in any case one by one. c.turn is held.
func (c *cutter) removeAll(batch []*cutting) {
	if len(batch) > 1 {
		for _, each := range batch {
			_ = setGroup(each.name, c.group) // the last loop finds what stays behind
		}
		_ = removeGroup(c.group)
	}
	for _, each := range batch {
		each.err = removeLink(each.name)
		each.done = true
	}
}

func setGroup(name string, group uint32) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetGroup(link, int(group))
}

// removeGroup removes all interfaces of a group.
func removeGroup(group uint32) error {
	request := nl.NewNetlinkRequest(unix.RTM_DELLINK, unix.NLM_F_ACK)
	request.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	request.AddData(nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(group)))
	if _, err := request.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		return fmt.Errorf("remove interfaces of group %d: %w", group, err)
	}
	return nil
}
