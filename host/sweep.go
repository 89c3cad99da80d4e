package host

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Sweep removes what nodes that died have left in this slot and in all slots of the machine that nobody holds: the
// processes of their sandboxes, the cgroups, the mounts below their directories and the files in them. It must run before
// this node makes anything in its slot. Each of also is called with the name of each of these slots, after its processes
// have ended: network.Sweep goes there. A slot is held while it is swept, so that nodes that start at the same time do
// not sweep each other. Sweep may be called again at any time and goes on after errors.
//
// Processes join their cgroups themselves, and one that was stopped before it came to that is found by what it was
// started with: bundleOf returns, of a command line, the directory of the sandbox that it is for, or "".
func (s *Slot) Sweep(log *slog.Logger, bundleOf func(args []string) string, also ...func(name string) error) error {
	var errs []error
	for index := range Slots {
		if index == s.index {
			errs = append(errs, sweep(s, log, bundleOf, also))
			continue
		}
		if !used(s.dir, index) {
			continue
		}
		other, err := claimIndex(s.dir, index)
		if errors.Is(err, errHeld) {
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, sweep(other, log, bundleOf, also), other.Release())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	return nil
}

// used reports whether a slot has ever been claimed since the machine started.
func used(dir string, index int) bool {
	_, err := os.Stat(filepath.Join(dir, fmt.Sprintf("slot-%d", index)))
	return err == nil
}

func sweep(s *Slot, log *slog.Logger, bundleOf func([]string) string, also []func(string) error) error {
	strays, err := killStrays(s.Dir(), bundleOf)
	errs := []error{err}
	killed, err := removeCgroups(s.Name())
	killed += strays
	errs = append(errs, err)
	for _, fn := range also {
		errs = append(errs, fn(s.Name()))
	}
	unmounted, err := unmountBelow(s.Dir())
	errs = append(errs, err)
	if err == nil { // else a file may be somebody's through a mount
		errs = append(errs, removeFiles(s.Dir()))
	}
	if killed+unmounted > 0 {
		log.Info("leftovers of a dead node removed", "slot", s.Name(), "processes", killed, "mounts", unmounted)
	}
	return errors.Join(errs...)
}

// unmountBelow unmounts everything mounted at dir or below, the newest first, and says how many mounts that were.
func unmountBelow(dir string) (int, error) {
	mounts, err := Mounts()
	if err != nil {
		return 0, err
	}
	count := 0
	var errs []error
	for i := len(mounts) - 1; i >= 0; i-- {
		point := mounts[i].Point
		if point != dir && !strings.HasPrefix(point, dir+"/") {
			continue
		}
		if err := unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			errs = append(errs, fmt.Errorf("unmount %s: %w", point, err))
			continue
		}
		count++
	}
	return count, errors.Join(errs...)
}

// removeFiles empties dir.
func removeFiles(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, entry := range entries {
		errs = append(errs, os.RemoveAll(filepath.Join(dir, entry.Name())))
	}
	return errors.Join(errs...)
}
