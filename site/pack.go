package site

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"
)

const (
	minPacked = 1 << 10  // less fits a packet anyhow
	maxPacked = 16 << 20 // more is not packed here: a site that has such a file brings it packed
	maxKept   = 32 << 20 // packed bodies in memory, of one site
)

// encodings are what a body can be packed with, the best first. Those that pack do so here; the others have to lie beside
// the file.
var encodings = []struct {
	name, suffix string
	pack         func(w io.Writer) (io.WriteCloser, error)
}{
	{"br", ".br", nil},
	{"zstd", ".zst", func(w io.Writer) (io.WriteCloser, error) {
		return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithEncoderConcurrency(1),
			zstd.WithWindowSize(8<<20)) // browsers take no larger window
	}},
	{"gzip", ".gz", func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriterLevel(w, gzip.BestCompression) }},
}

// accepted tells which encodings a client takes.
func accepted(r *http.Request) (takes map[string]bool) {
	takes = map[string]bool{}
	any := false
	refused := map[string]bool{}
	for _, line := range r.Header["Accept-Encoding"] {
		for part := range strings.SplitSeq(line, ",") {
			name, parameters, _ := strings.Cut(part, ";")
			name = strings.ToLower(strings.TrimSpace(name))
			q, given := strings.CutPrefix(strings.ReplaceAll(strings.ToLower(parameters), " ", ""), "q=")
			weight, err := strconv.ParseFloat(q, 64)
			yes := !given || err == nil && weight > 0
			switch {
			case name == "*":
				any = yes
			case yes:
				takes[name] = true
			default:
				refused[name] = true
			}
		}
	}
	if any && !refused["gzip"] {
		takes["gzip"] = true
	}
	return takes
}

// servePacked reports false if the file has to be served as it is.
func (s *site) servePacked(w http.ResponseWriter, r *http.Request, f *file, tag string) bool {
	takes := accepted(r)
	for _, encoding := range encodings { // those that were made with patience first
		if !takes[encoding.name] {
			continue
		}
		if beside := s.open(f.name + encoding.suffix); beside != nil {
			defer beside.Close()
			serveEncoded(w, r, f, beside, tag, encoding.name)
			return true
		}
	}
	if f.size > maxPacked {
		return false
	}
	for _, encoding := range encodings {
		if encoding.pack == nil || !takes[encoding.name] {
			continue
		}
		if settled(r, f, tag, encoding.name) {
			serveEncoded(w, r, f, bytes.NewReader(nil), tag, encoding.name)
			return true
		}
		body := s.packed.of(f, encoding.name, encoding.pack)
		if body == nil {
			return false
		}
		serveEncoded(w, r, f, bytes.NewReader(body), tag, encoding.name)
		return true
	}
	return false
}

func serveEncoded(w http.ResponseWriter, r *http.Request, f *file, body io.ReadSeeker, tag, encoding string) {
	w.Header().Set("ETag", tagOf(tag, encoding))
	http.ServeContent(encodedWriter{w, encoding}, r, "", f.changed, body)
}

// tagOf is the ETag of a packed file: other bytes, another tag.
func tagOf(tag, encoding string) string { return `"` + tag + "-" + encoding + `"` }

// settled reports whether the conditions of a request leave no body to be sent. ServeContent, which will judge them, is
// asked beforehand.
func settled(r *http.Request, f *file, tag, encoding string) bool {
	p := probe{header: http.Header{"Etag": {tagOf(tag, encoding)}, "Content-Type": {"text/plain"}}}
	http.ServeContent(&p, r, "", f.changed, bytes.NewReader(nil))
	return p.status != http.StatusOK
}

// probe takes an answer for its status.
type probe struct {
	header http.Header
	status int
}

func (p *probe) Header() http.Header         { return p.header }
func (p *probe) Write(b []byte) (int, error) { return len(b), nil }
func (p *probe) WriteHeader(status int)      { p.status = status }

// encodedWriter says how a body is packed, if there is one: a condition that failed is answered without. ServeContent sets
// the length, which it would not if it knew of the encoding.
type encodedWriter struct {
	http.ResponseWriter
	encoding string
}

func (w encodedWriter) WriteHeader(status int) {
	if status == http.StatusOK {
		w.Header().Set("Content-Encoding", w.encoding)
	}
	w.ResponseWriter.WriteHeader(status)
}

// packers are the places for files that are being packed, of all sites: half of the processors are for everything else.
var packers = make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))

// packed keeps packed bodies, so that each is made once: what was used longest ago goes first. The zero value is ready.
type packed struct {
	mu     sync.Mutex
	bodies map[packedKey]*packedBody
	size   int64
	clock  uint64
}

type packedKey struct {
	key
	encoding string
}

type packedBody struct {
	once sync.Once
	data []byte // nil if it is better served as it is; under once
	size int64  // accounted for; under mu
	used uint64 // under mu
}

// overhead is what an entry costs besides its body, roughly.
const overhead = 256

// of returns a file packed, nil if that does not help or there is no place for packing it now.
func (p *packed) of(f *file, encoding string, pack func(io.Writer) (io.WriteCloser, error)) []byte {
	k := packedKey{f.key, encoding}
	p.mu.Lock()
	if p.bodies == nil {
		p.bodies = map[packedKey]*packedBody{}
	}
	body := p.bodies[k]
	if body == nil {
		select {
		case packers <- struct{}{}: // given back by whoever packs
		default:
			p.mu.Unlock()
			return nil
		}
		body = &packedBody{}
		p.bodies[k] = body
	}
	p.clock++
	body.used = p.clock
	p.mu.Unlock()
	body.once.Do(func() {
		defer func() { <-packers }()
		body.data = packFile(f, pack)
		p.account(k, body)
	})
	return body.data
}

// account notes what a body takes and makes room.
func (p *packed) account(k packedKey, body *packedBody) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bodies[k] != body {
		return
	}
	body.size = int64(len(body.data)) + overhead
	p.size += body.size
	for p.size > maxKept {
		oldest := k
		for other, b := range p.bodies {
			if b.size > 0 && b.used < p.bodies[oldest].used {
				oldest = other
			}
		}
		p.size -= p.bodies[oldest].size
		delete(p.bodies, oldest)
		if oldest == k {
			return
		}
	}
}

func packFile(f *file, pack func(io.Writer) (io.WriteCloser, error)) []byte {
	var out bytes.Buffer
	w, err := pack(&out)
	if err != nil {
		return nil
	}
	n, err := io.Copy(w, io.NewSectionReader(f.File, 0, f.size))
	if closeErr := w.Close(); err != nil || closeErr != nil || n != f.size || int64(out.Len()) >= f.size*9/10 {
		return nil
	}
	return bytes.Clone(out.Bytes())
}
