// Package client has the programs that run a function's code: clients of the Lambda Runtime API for Node.js and Python, and
// the server for Python apps that are a WSGI or an ASGI object. They are files for a sandbox, where the interpreter of the
// app's choice runs them:
//
//	node    RUNTIME/node/client.mjs                   # the handler is in _HANDLER, the files in LAMBDA_TASK_ROOT
//	python3 RUNTIME/python/client.py
//	python3 RUNTIME/python/serve.py FILE OBJECT       # listens on PORT
package client

import (
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Files has the directories node and python.
//
//go:embed node/*.mjs python/*.py
var Files embed.FS

// Write puts Files below dir, which it creates, readable by every user, as those in a sandbox are nobody on the host. A file
// that is there already is replaced in one step, so that a sandbox which is starting reads the old or the new one.
func Write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("write the runtime clients: %w", err)
	}
	err := fs.WalkDir(Files, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		path := filepath.Join(dir, filepath.FromSlash(name))
		if entry.IsDir() {
			return readableDir(path)
		}
		content, err := Files.ReadFile(name)
		if err != nil {
			return err
		}
		return replace(path, content)
	})
	if err != nil {
		return fmt.Errorf("write the runtime clients: %w", err)
	}
	return nil
}

// readableDir sets the mode by itself, because of the umask.
func readableDir(path string) error {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	return os.Chmod(path, 0o755)
}

func replace(path string, content []byte) error {
	file, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err == nil {
		err = file.Chmod(0o644)
	}
	if closed := file.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		_ = os.Remove(file.Name())
	}
	return err
}
