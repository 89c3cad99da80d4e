//go:build race

package gvisor

func init() { raceEnabled = true }
