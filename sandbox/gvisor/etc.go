package gvisor

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// hostName is what every environment takes itself for.
const hostName = "lull"

// unprivileged is the user and group that an environment runs as unless told otherwise.
const unprivileged = 1000

// imageEtc are the files of /etc that also an image's environment gets, whatever the image has in their place.
var imageEtc = []string{"hosts", "hostname", "resolv.conf"}

// fromHost are the files and directories of the host's /etc, as patterns, that the host's runtime cannot do without and
// that tell nothing about the host: where libraries are, which certificates to trust, what is part of a language's
// installation. Not the settings of package managers, which may hold passwords.
var fromHost = []string{
	"ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "os-release", "debian_version",
	"ssl/certs", "ssl/openssl.cnf", "ca-certificates.conf", "ca-certificates", "pki/tls/certs", "pki/ca-trust/extracted",
	"mime.types", "services", "protocols", "python3*", "java-*",
}

// makeEtc fills a directory with the synthetic /etc of environments.
func makeEtc(at string, nameServers []netip.Addr) error {
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	var resolv strings.Builder
	for _, server := range nameServers {
		fmt.Fprintf(&resolv, "nameserver %s\n", server)
	}
	resolv.WriteString("options timeout:2 attempts:3\n")
	for name, text := range map[string]string{
		"hosts":         "127.0.0.1 localhost " + hostName + "\n::1 localhost ip6-localhost ip6-loopback\n",
		"hostname":      hostName + "\n",
		"resolv.conf":   resolv.String(),
		"nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nservices: files\nprotocols: files\n",
		"passwd": "root:x:0:0:root:/root:/bin/sh\n" +
			fmt.Sprintf("app:x:%d:%d:app:/home/app:/bin/sh\n", unprivileged, unprivileged) +
			"nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
		"group":     fmt.Sprintf("root:x:0:\ntty:x:5:\napp:x:%d:\nnogroup:x:65534:\n", unprivileged),
		"host.conf": "multi on\n",
	} {
		if err := os.WriteFile(filepath.Join(at, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	for _, pattern := range fromHost {
		paths, err := filepath.Glob(filepath.Join("/etc", pattern))
		if err != nil {
			return err
		}
		for _, path := range paths {
			if err := copyTree(path, filepath.Join(at, strings.TrimPrefix(path, "/etc/"))); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("copy %s: %w", path, err)
			}
		}
	}
	return makeLocaltime(at, hostZone("/etc"))
}

// zoneInfo is where time zones are by their names.
const zoneInfo = "/usr/share/zoneinfo"

// makeLocaltime sets the time zone. As a link it tells its name; where it is a copy, ICU (and so Node, for the date in
// its first response) compares it with all six hundred zones there are, for a tenth of a second.
func makeLocaltime(at, zone string) error {
	if err := os.WriteFile(filepath.Join(at, "timezone"), []byte(zone+"\n"), 0o644); err != nil {
		return err
	}
	return os.Symlink(filepath.Join(zoneInfo, zone), filepath.Join(at, "localtime"))
}

// hostZone returns the name of the time zone that this /etc sets, UTC if it cannot be told.
func hostZone(etc string) string {
	linked, _ := os.Readlink(filepath.Join(etc, "localtime"))
	_, linked, _ = strings.Cut(linked, "zoneinfo/")
	named, _ := os.ReadFile(filepath.Join(etc, "timezone"))
	for _, zone := range []string{linked, strings.TrimSpace(string(named))} {
		if filepath.IsLocal(zone) && exists(filepath.Join(zoneInfo, zone)) {
			return zone
		}
	}
	return "UTC"
}

// copyTree copies a file or directory that everybody may read. Symbolic links stay links, except at the top.
func copyTree(from, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if !info.IsDir() {
		return copyFile(from, to)
	}
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, relative)
		switch {
		case entry.IsDir():
			return os.MkdirAll(target, 0o755)
		case entry.Type()&fs.ModeSymlink != 0:
			points, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(points, target)
		case entry.Type().IsRegular():
			return copyFile(path, target)
		}
		return nil
	})
}

// copyFile copies a file, unless the host keeps it from others.
func copyFile(from, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o004 == 0 {
		return nil
	}
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, info.Mode().Perm())
}
