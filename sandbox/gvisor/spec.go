package gvisor

import (
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/sandbox"
)

// rootCapabilities are what "0:0" may do inside its sandbox: what a build needs to install packages, nothing that
// reaches the network's or the kernel's settings. Other users have none.
var rootCapabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_SETGID", "CAP_SETUID", "CAP_SYS_CHROOT",
}

// Limits on open files: what a server with many streams wants, and what a program gets that goes through all numbers.
const (
	openFilesSoft = 65_536
	openFilesHard = 1 << 20
)

// sharedMemory bounds /dev/shm, which is memory of the app and counts as such.
const sharedMemory = 64 * lull.MB

// ociSpec describes the sandbox to gVisor.
func ociSpec(spec sandbox.Spec, who user, bundle, namespace string) *specs.Spec {
	capabilities := &specs.LinuxCapabilities{}
	if who.UID == 0 {
		capabilities = &specs.LinuxCapabilities{Bounding: rootCapabilities, Effective: rootCapabilities, Permitted: rootCapabilities}
	}
	return &specs.Spec{
		Version:  specs.Version,
		Hostname: hostName,
		Root:     &specs.Root{Path: filepath.Join(bundle, rootDir)},
		Mounts:   ociMounts(spec),
		Process: &specs.Process{
			Args: spec.Args, Env: spec.Env, Cwd: spec.Dir,
			User:            specs.User{UID: uint32(who.UID), GID: uint32(who.GID)},
			Capabilities:    capabilities,
			NoNewPrivileges: true,
			Rlimits:         []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: openFilesSoft, Hard: openFilesHard}},
		},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{
			{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace},
			{Type: specs.NetworkNamespace, Path: namespace},
		}},
	}
}

// ociMounts returns the mounts that gVisor makes; the layered ones are part of the root.
func ociMounts(spec sandbox.Spec) []specs.Mount {
	mounts := spec.Mounts
	if spec.Root == "" {
		mounts = append([]sandbox.Mount{{Source: "/usr", Target: "/usr", Mode: sandbox.ReadOnly}}, mounts...)
	}
	all := []specs.Mount{
		{Destination: "/dev/shm", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=1777", fmt.Sprintf("size=%d", int64(sharedMemory))}},
		// gVisor puts a tmpfs without a limit on an empty /tmp that has no mount. This one is of a type it does not know,
		// which it passes over: /tmp is part of the root and its limit.
		{Destination: "/tmp", Type: "part-of-root"},
	}
	for _, m := range mounts {
		access := "rw"
		switch m.Mode {
		case sandbox.Layered:
			continue
		case sandbox.ReadOnly:
			access = "ro"
		}
		all = append(all, specs.Mount{Destination: path.Clean(m.Target), Type: "bind", Source: m.Source, Options: []string{"rbind", access}})
	}
	return all
}

func writeSpec(spec *specs.Spec, bundle string) error {
	data, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(bundle, "config.json"), data, 0o600)
}

// rootOf plans the root file system. etc is the synthetic /etc.
func rootOf(spec sandbox.Spec, who user, etc string) root {
	r := root{Image: spec.Root, Write: spec.WritableRoot, Etc: etc, Dirs: []dir{
		{Path: "/proc", Mode: 0o555}, {Path: "/sys", Mode: 0o555}, {Path: "/dev", Mode: 0o755},
		{Path: "/tmp", Mode: 0o1777}, {Path: "/var/tmp", Mode: 0o1777}, {Path: "/run", Mode: 0o755},
	}}
	if spec.Root == "" {
		r.Links, r.Binds = hostRuntime()
		r.Binds = append(r.Binds, bind{Source: etc, Target: "/etc", Shown: true})
	}
	if spec.WritableRoot {
		return r // whoever builds an image makes its working directory
	}
	mounts := slices.Clone(spec.Mounts)
	slices.SortStableFunc(mounts, func(a, b sandbox.Mount) int { return len(a.Target) - len(b.Target) })
	for _, m := range mounts {
		r.Binds = append(r.Binds, bind{Source: m.Source, Target: path.Clean(m.Target), Shown: m.Mode == sandbox.Layered})
	}
	for _, place := range []string{homeOf(spec.Env), spec.Dir} {
		if place = path.Clean(place); r.lacks(place) {
			r.Dirs = append(r.Dirs, dir{Path: place, Mode: 0o755, UID: who.UID, GID: who.GID})
		}
	}
	return r
}

// hostRuntime returns what of the host's root is the runtime of environments without an image: /usr, and where programs
// and libraries are besides, which on most systems are links to it.
func hostRuntime() (links []link, binds []bind) {
	links = []link{{"/var/run", "../run"}}
	binds = []bind{{Source: "/usr", Target: "/usr"}}
	for _, name := range []string{"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"} {
		if to, err := os.Readlink(name); err == nil {
			links = append(links, link{name, to})
		} else if exists(name) {
			binds = append(binds, bind{Source: name, Target: name, Shown: true})
		}
	}
	return links, binds
}

// lacks reports whether path is a directory to make: it is not the root, and not in a place where something is shown.
func (r root) lacks(place string) bool {
	if place == "/" || !path.IsAbs(place) {
		return false
	}
	for _, d := range r.Dirs {
		if d.Path == place {
			return false
		}
	}
	return !slices.ContainsFunc(r.Binds, func(b bind) bool { return within(place, b.Target) }) &&
		!slices.ContainsFunc(r.Links, func(l link) bool { return within(place, l.Path) })
}

func within(place, dir string) bool { return place == dir || strings.HasPrefix(place, dir+"/") }

func homeOf(env []string) (home string) {
	for _, pair := range env {
		if value, ok := strings.CutPrefix(pair, "HOME="); ok {
			home = value
		}
	}
	return home
}

// checkMounts reports what is wrong with mounts that would otherwise show late and unclearly.
func checkMounts(spec sandbox.Spec) error {
	for i, m := range spec.Mounts {
		if !path.IsAbs(m.Target) || path.Clean(m.Target) == "/" {
			return fmt.Errorf("mount %s: target %q is not an absolute path below the root", m.Source, m.Target)
		}
		if _, err := os.Stat(m.Source); err != nil {
			return fmt.Errorf("mount on %s: %w", m.Target, err)
		}
		for _, other := range spec.Mounts[:i] {
			if path.Clean(other.Target) == path.Clean(m.Target) {
				return fmt.Errorf("mount %s: %s is mounted on %s already", m.Source, other.Source, m.Target)
			}
		}
		if err := checkPlace(spec, m); err != nil {
			return err
		}
	}
	return nil
}

// checkPlace makes sure that the place for a mount inside another is there already, as otherwise it would be made on
// the host.
func checkPlace(spec sandbox.Spec, m sandbox.Mount) error {
	target := path.Clean(m.Target)
	outer := slices.Clone(spec.Mounts)
	if spec.Root == "" {
		outer = append(outer, sandbox.Mount{Source: "/usr", Target: "/usr"})
	}
	for _, o := range outer {
		inside, nested := strings.CutPrefix(target, path.Clean(o.Target)+"/")
		if nested && !exists(filepath.Join(o.Source, inside)) {
			return fmt.Errorf("mount %s: there is no %s in %s, which is mounted on %s", m.Source, inside, o.Source, o.Target)
		}
	}
	return nil
}
