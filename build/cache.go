package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/build/archive"
)

const (
	keptInstalls = 3           // per app: the current one, the one before, and a branch
	maxDownloads = 2 * lull.GB // per app; then the downloads are thrown away
	maxInstalls  = 2 * lull.GB // per app
)

// downloads is what package managers may keep for the app's next build. Its content is a stranger's: it is shown to the
// app's own builds, and never read here.
func (j *job) downloads() string { return filepath.Join(j.cache, "downloads") }

// installed holds archives of directories that an install has made, by the key of what it was made from.
func (j *job) installed() string { return filepath.Join(j.cache, "installed") }

// reuse fills a directory of the app from an earlier build with the same key, or else by install, and keeps the outcome.
// An empty key means that the outcome depends on more than a key can hold.
func (j *job) reuse(ctx context.Context, key, dir string, install func(context.Context) error) error {
	kept := filepath.Join(j.installed(), key+".tar.zst")
	if key != "" && j.restore(kept, dir) {
		j.out.note("dependencies unchanged, reused")
		return nil
	}
	if err := install(ctx); err != nil || key == "" {
		return err
	}
	if err := j.keep(kept, dir); err != nil {
		// The release is complete without it.
		j.config.Log.Warn("installed dependencies not kept", "app", j.app, "err", err)
	}
	return nil
}

func (j *job) restore(kept, dir string) bool {
	file, err := os.Open(kept)
	if err != nil {
		return false
	}
	defer file.Close()
	err = errors.Join(j.root.RemoveAll(dir), j.root.MkdirAll(dir, 0o755))
	if err == nil {
		err = archive.Unpack(file, filepath.Join(j.dir, dir), archive.Release())
	}
	if err != nil {
		j.config.Log.Warn("kept dependencies not usable", "app", j.app, "err", err)
		_ = errors.Join(os.Remove(kept), j.root.RemoveAll(dir))
		return false
	}
	// What has been of use is thrown away last.
	now := time.Now()
	_ = os.Chtimes(kept, now, now)
	return true
}

// keep writes the archive beside its place and moves it there: a half-written one is never found.
func (j *job) keep(kept, dir string) error {
	if !j.isRealDir(dir) {
		return nil // nothing was installed
	}
	file, err := os.CreateTemp(j.installed(), "new-")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	opts := archive.Release()
	opts.Limits.Bytes = maxInstalls
	err = archive.Pack(file, filepath.Join(j.dir, dir), opts)
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), kept)
}

// isRealDir reports whether a directory of the app is one all the way, and no link that a build has put there.
func (j *job) isRealDir(name string) bool {
	for ; name != "."; name = path.Dir(name) {
		if info, err := j.root.Lstat(name); err != nil || !info.IsDir() {
			return false
		}
	}
	return true
}

// trim keeps the app's cache within its bounds.
func (j *job) trim() error {
	entries, err := os.ReadDir(j.installed())
	if err != nil {
		return err
	}
	var files []fs.FileInfo
	var errs []error
	for _, entry := range entries {
		if !strings.HasSuffix(entry.Name(), ".tar.zst") { // half-written, by a node that died
			errs = append(errs, os.Remove(filepath.Join(j.installed(), entry.Name())))
		} else if info, err := entry.Info(); err == nil {
			files = append(files, info)
		}
	}
	slices.SortFunc(files, func(a, b fs.FileInfo) int { return b.ModTime().Compare(a.ModTime()) })
	total := lull.Size(0)
	for i, file := range files {
		total += lull.Size(file.Size())
		if i >= keptInstalls || total > maxInstalls {
			errs = append(errs, os.Remove(filepath.Join(j.installed(), file.Name())))
		}
	}
	if diskUse(j.downloads()) > maxDownloads {
		errs = append(errs, os.RemoveAll(j.downloads()))
	}
	return errors.Join(errs...)
}

// key names what an install depends on: the texts of files, and the tools it is done with.
type key struct{ parts []string }

func (k *key) add(parts ...string) { k.parts = append(k.parts, parts...) }

func (k *key) sum() string {
	hash := sha256.New()
	fmt.Fprintf(hash, "%s/%s\n", runtime.GOOS, runtime.GOARCH)
	for _, part := range k.parts {
		fmt.Fprintf(hash, "%d:%s\n", len(part), part)
	}
	return hex.EncodeToString(hash.Sum(nil))[:32]
}

// addFiles adds the texts of those files that are there.
func (k *key) addFiles(j *job, names ...string) error {
	for _, name := range names {
		text, found, err := j.fileText(name)
		if err != nil {
			return err
		}
		if found {
			k.add(name, text)
		}
	}
	return nil
}

// addTool adds what changes when a tool is updated.
func (k *key) addTool(j *job, name string) {
	full := j.lookTool(name)
	if resolved, err := filepath.EvalSymlinks(full); err == nil {
		full = resolved
	}
	if info, err := os.Stat(full); err == nil {
		k.add(full, fmt.Sprint(info.Size(), info.ModTime().UnixNano()))
	}
	// npm is a script that stays the same; its version is in the file beside it.
	if text, err := os.ReadFile(filepath.Join(filepath.Dir(full), "..", "package.json")); err == nil {
		k.add(string(text))
	}
}
