package gvisor

// installSeccomp is filled in once the rest works.
func installSeccomp() {}
