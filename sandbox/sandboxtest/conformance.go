// Package sandboxtest holds what all sandbox drivers have in common: the suite that says what package sandbox promises,
// and a driver for the tests of other packages.
package sandboxtest

import (
	"testing"

	"github.com/lull-dev/lull/sandbox"
)

// Run checks a driver against everything that package sandbox promises. What the driver's capabilities leave out is not
// checked, except that it is refused. newDriver may be called several times; the suite closes what it makes.
//
// Unless the driver plays the suite's program itself (ParseCommand), python3 must be in the runtime that Spec.Root ""
// stands for.
func Run(t *testing.T, newDriver func(t *testing.T) sandbox.Driver) {
	driver := newDriver(t)
	s := &suite{driver: driver, can: driver.Capabilities(), newDriver: newDriver}
	t.Cleanup(func() {
		if err := driver.Close(); err != nil {
			t.Errorf("close driver: %v", err)
		}
	})
	for _, check := range checks {
		t.Run(check.name, func(t *testing.T) {
			if check.needs != nil && !check.needs(s.can) {
				t.Logf("not among the capabilities of %s", driver.Name())
				return
			}
			check.run(s, t)
		})
	}
}

type check struct {
	name  string
	needs func(sandbox.Capabilities) bool // nil: every driver must pass
	run   func(*suite, *testing.T)
}

func isolation(c sandbox.Capabilities) bool         { return c.Isolation }
func limits(c sandbox.Capabilities) bool            { return c.Limits }
func egress(c sandbox.Capabilities) bool            { return c.Egress }
func images(c sandbox.Capabilities) bool            { return c.Images }
func noImages(c sandbox.Capabilities) bool          { return !c.Images }
func ownPorts(c sandbox.Capabilities) bool          { return c.Ports }
func snapshots(c sandbox.Capabilities) bool         { return c.Snapshot }
func noSnapshots(c sandbox.Capabilities) bool       { return !c.Snapshot }
func isolatedSnapshots(c sandbox.Capabilities) bool { return c.Snapshot && c.Isolation }
func limitedSnapshots(c sandbox.Capabilities) bool  { return c.Snapshot && c.Limits }

var checks = []check{
	{"ExitCode", nil, (*suite).exitCode},
	{"EndedBySignal", nil, (*suite).endedBySignal},
	{"OutputIsWhole", nil, (*suite).outputIsWhole},
	{"OutputFlood", nil, (*suite).outputFlood},
	{"OrphanDoesNotDelayDone", nil, (*suite).orphan},
	{"WhatTheProcessIsGiven", nil, (*suite).given},
	{"MissingProgram", nil, (*suite).missingProgram},
	{"BadSpec", nil, (*suite).badSpec},
	{"SameIDTwice", nil, (*suite).sameID},
	{"StartCalledOff", nil, (*suite).startCalledOff},
	{"StopAsks", nil, (*suite).stopAsks},
	{"StopInsists", nil, (*suite).stopInsists},
	{"StopAtOnce", nil, (*suite).stopAtOnce},
	{"StopPaused", nil, (*suite).stopPaused},
	{"CloseTwice", nil, (*suite).closeTwice},
	{"ClosePaused", nil, (*suite).closePaused},
	{"AfterDeath", nil, (*suite).afterDeath},
	{"EightAtOnce", nil, (*suite).eightAtOnce},
	{"DriverClose", nil, (*suite).driverClose},

	{"Listeners", nil, (*suite).listeners},
	{"ManyListeners", nil, (*suite).manyListeners},
	{"FixedPorts", ownPorts, (*suite).fixedPorts},
	{"DialNobody", nil, (*suite).dialNobody},
	{"DialIsSilent", nil, (*suite).dialIsSilent},

	{"Pause", nil, (*suite).pause},
	{"PauseTwice", nil, (*suite).pauseTwice},
	{"PauseUnderFire", nil, (*suite).pauseUnderFire},
	{"PauseUsesNoCPU", nil, (*suite).pauseUsesNoCPU},
	{"ListenersWhilePaused", nil, (*suite).listenersWhilePaused},
	{"Usage", nil, (*suite).usage},

	{"SnapshotRefused", noSnapshots, (*suite).snapshotRefused},
	{"Hibernate", snapshots, (*suite).hibernate},
	{"HibernateConnections", snapshots, (*suite).hibernateConnections},
	{"HibernateAgain", snapshots, (*suite).hibernateAgain},
	{"HibernateUsesNothing", snapshots, (*suite).hibernateUsesNothing},
	{"RestoredListeners", snapshots, (*suite).restoredListeners},
	{"ResumeAfterSnapshot", snapshots, (*suite).resumeAfterSnapshot},
	{"SnapshotOutOfTurn", snapshots, (*suite).snapshotOutOfTurn},
	{"SnapshotCalledOff", snapshots, (*suite).snapshotCalledOff},
	{"SnapshotOntoFullDisk", isolatedSnapshots, (*suite).snapshotOntoFullDisk},
	{"Vacated", snapshots, (*suite).vacated},
	{"RestoreElsewhere", snapshots, (*suite).restoreElsewhere},
	{"RestoreDamaged", snapshots, (*suite).restoreDamaged},
	{"RestoreOtherSpec", isolatedSnapshots, (*suite).restoreOtherSpec},
	{"RestoreCalledOff", snapshots, (*suite).restoreCalledOff},
	{"RestoredFiles", isolatedSnapshots, (*suite).restoredFiles},
	{"RestoredOutput", snapshots, (*suite).restoredOutput},
	{"RestoredExit", snapshots, (*suite).restoredExit},
	{"RestoredLimits", limitedSnapshots, (*suite).restoredLimits},
	{"RestoredMemoryHog", limitedSnapshots, (*suite).restoredMemoryHog},
	{"RestoredCPUHog", limitedSnapshots, (*suite).restoredCPUHog},

	{"HostIsHidden", isolation, (*suite).hostIsHidden},
	{"Writable", isolation, (*suite).writable},
	{"Users", isolation, (*suite).users},
	{"Mounts", isolation, (*suite).mounts},
	{"Egress", egress, (*suite).egress},
	{"Image", images, (*suite).image},
	{"WritableRoot", images, (*suite).writableRoot},
	{"ImageRefused", noImages, (*suite).imageRefused},

	{"MemoryHog", limits, (*suite).memoryHog},
	{"ForkBomb", limits, (*suite).forkBomb},
	{"ProcessLimit", limits, (*suite).processLimit},
	{"DiskFiller", limits, (*suite).diskFiller},
	{"CPUHog", limits, (*suite).cpuHog},
}
