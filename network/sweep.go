package network

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"github.com/lull-dev/lull/host"
)

// namespaceDir holds the namespace files in a slot's directory.
const namespaceDir = "netns"

var slotName = regexp.MustCompile(`^lull[0-9]+$`)

// Sweep removes the namespaces' files, interfaces and rules that a node in the slot of that name has left in the
// kernel. No living node may hold the slot.
func Sweep(name string) error {
	if !slotName.MatchString(name) {
		return fmt.Errorf("sweep network: %q is not the name of a slot", name)
	}
	if err := errors.Join(sweepNamespaces(name), sweepLinks(name), sweepTable(name)); err != nil {
		return fmt.Errorf("sweep network of %s: %w", name, err)
	}
	return nil
}

func sweepNamespaces(name string) error {
	mounts, err := host.Mounts()
	if err != nil {
		return err
	}
	var errs []error
	for _, mount := range mounts {
		if mount.Type == "nsfs" && strings.Contains(mount.Point, "/"+name+"/"+namespaceDir+"/") {
			errs = append(errs, unmount(mount.Point))
		}
	}
	return errors.Join(errs...)
}

func sweepLinks(name string) error {
	links, err := whole(netlink.LinkList)
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	var errs []error
	for _, link := range links {
		if strings.HasPrefix(link.Attrs().Name, name+"-") {
			errs = append(errs, removeLink(link.Attrs().Name))
		}
	}
	return errors.Join(errs...)
}

func sweepTable(name string) error {
	exists, err := tableExists(name)
	if err != nil || !exists {
		return err
	}
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	conn.DelTable(&nftables.Table{Name: name, Family: nftables.TableFamilyINet})
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("remove nftables table: %w", err)
	}
	return nil
}

func tableExists(name string) (bool, error) {
	conn, err := nftables.New()
	if err != nil {
		return false, err
	}
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return false, fmt.Errorf("list nftables tables: %w", err)
	}
	return slices.ContainsFunc(tables, func(table *nftables.Table) bool { return table.Name == name }), nil
}
