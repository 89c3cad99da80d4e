package network

import (
	"testing"

	"github.com/vishvananda/netlink"
)

func TestListIsAskedForUntilItIsWhole(t *testing.T) {
	asked := 0
	list, err := whole(func() ([]int, error) {
		if asked++; asked < 3 {
			return []int{1}, netlink.ErrDumpInterrupted
		}
		return []int{1, 2}, nil
	})
	if err != nil || len(list) != 2 {
		t.Errorf("list is %v, %v", list, err)
	}
	if _, err := whole(func() ([]int, error) { return nil, netlink.ErrDumpInterrupted }); err == nil {
		t.Error("no error for a list that never was whole")
	}
}
