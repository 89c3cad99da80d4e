package node

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/lull-dev/lull/function/client"
)

// makeTools makes the directory that is lull.RuntimeDir in the environments of functions: this program and the clients of the
// interpreters. It is named by its content, so that a snapshot of an environment that another version has started finds
// nothing in its place and is started anew. Those of other versions are removed.
func makeTools(data, executable string) (string, error) {
	root := filepath.Join(data, "runtime")
	version, err := toolsVersion(executable)
	if err != nil {
		return "", fmt.Errorf("make the directory of runtimes: %w", err)
	}
	dir := filepath.Join(root, version)
	if err := makeToolsIn(root, dir, executable); err != nil {
		return "", fmt.Errorf("make the directory of runtimes: %w", err)
	}
	return dir, nil
}

func makeToolsIn(root, dir, executable string) error {
	if err := os.MkdirAll(root, 0o711); err != nil {
		return err
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		return err
	}
	there := false
	for _, entry := range entries {
		if entry.Name() == filepath.Base(dir) {
			there = true
		} else if err := os.RemoveAll(filepath.Join(root, entry.Name())); err != nil {
			return err
		}
	}
	if there {
		return nil
	}
	draft, err := os.MkdirTemp(root, "new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(draft) // it has been renamed, if all went well
	if err := client.Write(draft); err != nil {
		return err
	}
	if err := placeProgram(executable, filepath.Join(draft, "lull")); err != nil {
		return err
	}
	return errors.Join(os.Chmod(draft, 0o755), os.Rename(draft, dir))
}

// placeProgram puts a program where an environment's unprivileged user can start it.
func placeProgram(from, to string) error {
	if info, err := os.Stat(from); err == nil && info.Mode().Perm()&0o555 == 0o555 && os.Link(from, to) == nil {
		return nil
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Chmod(0o755), out.Close())
}

// toolsVersion follows from all that goes into the directory. The program is told by size and time: to read it takes too long.
func toolsVersion(executable string) (string, error) {
	info, err := os.Stat(executable)
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	fmt.Fprintln(sum, info.Size(), info.ModTime().UnixNano())
	err = fs.WalkDir(client.Files, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := client.Files.ReadFile(name)
		fmt.Fprintln(sum, name, len(content))
		sum.Write(content)
		return err
	})
	return hex.EncodeToString(sum.Sum(nil))[:16], err
}
