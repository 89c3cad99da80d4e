package process

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/lull-dev/lull/sandbox"
)

// command makes the command of a spec out of paths inside a sandbox one with paths on the host.
func command(spec sandbox.Spec) (*exec.Cmd, error) {
	hosts := hostPaths(spec.Mounts)
	cmd := &exec.Cmd{Dir: hosts.path(spec.Dir)}
	for _, arg := range spec.Args {
		cmd.Args = append(cmd.Args, hosts.path(arg))
	}
	cmd.Env = []string{} // not nil: nothing of the node's environment
	search := ""
	for _, pair := range spec.Env {
		key, value, _ := strings.Cut(pair, "=")
		value = hosts.list(value)
		if key == "PATH" {
			search = value
		}
		cmd.Env = append(cmd.Env, key+"="+value)
	}
	if info, err := os.Stat(cmd.Dir); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("working directory %s does not exist on this host: the process sandbox has no files of its own", spec.Dir)
	}
	path, err := look(cmd.Args[0], search, cmd.Dir)
	if err != nil {
		return nil, err
	}
	cmd.Path = path
	return cmd, nil
}

// look finds a program as a shell in dir would that has this PATH.
func look(name, search, dir string) (string, error) {
	if strings.Contains(name, "/") {
		return executable(inDir(name, dir))
	}
	err := error(os.ErrNotExist)
	for _, entry := range filepath.SplitList(search) {
		path, lookErr := executable(inDir(filepath.Join(entry, name), dir))
		if lookErr == nil {
			return path, nil
		}
		if !errors.Is(lookErr, os.ErrNotExist) {
			err = lookErr
		}
	}
	return "", fmt.Errorf("find %s in PATH: %w", name, err)
}

func inDir(path, dir string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

func executable(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if info.IsDir() || info.Mode()&0o111 == 0 {
		return "", fmt.Errorf("%s: %w", path, os.ErrPermission)
	}
	return path, nil
}

// hostPaths are a sandbox's mounts. The last one that covers a path wins, as the latest mount does.
type hostPaths []sandbox.Mount

// path returns the host's path of a path inside; anything else, such as a flag, is returned as it is.
func (h hostPaths) path(inside string) string {
	for _, mount := range slices.Backward(h) {
		target := strings.TrimSuffix(mount.Target, "/")
		if rest, ok := strings.CutPrefix(inside, target); ok && (rest == "" || rest[0] == '/') {
			return mount.Source + rest
		}
	}
	return inside
}

// list does the same for a list of paths, as PATH is one.
func (h hostPaths) list(inside string) string {
	entries := strings.Split(inside, ":")
	for i, entry := range entries {
		entries[i] = h.path(entry)
	}
	return strings.Join(entries, ":")
}
