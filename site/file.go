package site

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"sync"
	"syscall"
	"time"
)

// file is a regular file that was found, open.
type file struct {
	*os.File
	key
}

// key is what a file's content is known by. A release's files do not change; a directory that is served while somebody
// works on it has to move the time or the size.
type key struct {
	name    string
	size    int64
	changed time.Time
}

// open returns nil if there is no such file, or it is not to be seen.
func (s *site) open(name string) *file {
	if hidden("/" + name) {
		return nil
	}
	f, _ := s.look(name)
	return f
}

// look opens a file, or says that name is a directory. It does not wait for the writer of a pipe.
func (s *site) look(name string) (f *file, dir bool) {
	opened, err := s.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, false
	}
	info, err := opened.Stat()
	if err != nil || !info.Mode().IsRegular() {
		opened.Close()
		return nil, err == nil && info.IsDir()
	}
	return &file{opened, key{name, info.Size(), info.ModTime()}}, false
}

// find looks for what a clean path names: moved is the path under which it is to be asked for.
func (s *site) find(p string) (f *file, moved string) {
	if hidden(p) {
		return nil, ""
	}
	name := strings.Trim(p, "/")
	if strings.HasSuffix(p, "/") {
		if f := s.open(path.Join(name, "index.html")); f != nil || name == "" {
			return f, ""
		}
		for _, other := range []string{name, name + ".html"} {
			if f := s.open(other); f != nil {
				f.Close()
				return nil, "/" + name
			}
		}
		return nil, ""
	}
	f, dir := s.look(name)
	if f != nil {
		return f, ""
	}
	if dir {
		if f := s.open(path.Join(name, "index.html")); f != nil {
			f.Close()
			return nil, "/" + name + "/"
		}
	}
	return s.open(name + ".html"), ""
}

// findTarget looks for what a rule leads to, wherever that is.
func (s *site) findTarget(to string) *file {
	to, _, _ = strings.Cut(to, "?")
	to, err := url.PathUnescape(to)
	if err != nil || strings.ContainsRune(to, 0) {
		return nil
	}
	p := cleaned(to)
	f, moved := s.find(p)
	if moved != "" {
		f, _ = s.find(moved)
	}
	return f
}

// hidden reports whether a path is not for the public: names that begin with a dot, and what the app is deployed by.
func hidden(p string) bool {
	name := strings.Trim(p, "/")
	switch name {
	case "lull.yaml", "lull.yml", "genezio.yaml", "genezio.yml":
		return true
	}
	for segment := range strings.SplitSeq(name, "/") {
		if strings.HasPrefix(segment, ".") && segment != ".well-known" {
			return true
		}
	}
	return false
}

// serve answers with a file, packed if the client likes it so.
func (s *site) serve(w http.ResponseWriter, r *http.Request, f *file) {
	tag, err := s.tags.of(f)
	if err != nil {
		w.Header().Set("Cache-Control", "no-store")
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	header := w.Header()
	kind := kindOf(f.name)
	header.Set("Content-Type", kind)
	header.Set("Cache-Control", "no-cache")
	if _, missing := w.(statusWriter); !missing && keeps(f.name) && r.URL.Path == "/"+f.name {
		header.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	if compressible(kind) && f.size >= minPacked {
		header.Set("Vary", "Accept-Encoding")
		if r.Header.Get("Range") == "" && s.servePacked(w, r, f, tag) {
			return
		}
	}
	header.Set("ETag", `"`+tag+`"`)
	http.ServeContent(w, r, "", f.changed, f)
}

// tags remembers what files hash to. The zero value is ready.
type tags struct {
	mu    sync.Mutex
	known map[key]*tag
}

type tag struct {
	once sync.Once
	sum  string
	err  error
}

// maxTags bounds the memory; a site of more files has some of them hashed again.
const maxTags = 50_000

// of hashes a file's content, once.
func (t *tags) of(f *file) (string, error) {
	t.mu.Lock()
	known := t.known[f.key]
	if known == nil {
		if t.known == nil || len(t.known) >= maxTags {
			t.known = map[key]*tag{}
		}
		known = &tag{}
		t.known[f.key] = known
	}
	t.mu.Unlock()
	known.once.Do(func() { known.sum, known.err = digest(f) })
	if known.err != nil { // it may be better the next time
		t.mu.Lock()
		delete(t.known, f.key)
		t.mu.Unlock()
	}
	return known.sum, known.err
}

// digest reads a file from its begin, and goes back there.
func digest(f *file) (string, error) {
	hash := sha256.New()
	if _, err := io.Copy(hash, io.NewSectionReader(f.File, 0, f.size)); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)[:12]), nil
}
