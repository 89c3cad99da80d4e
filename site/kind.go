package site

import (
	"path"
	"regexp"
	"strings"
)

const html = "text/html; charset=utf-8"

// kinds are the types of files by extension. The table is our own, since that of a machine depends on what is installed.
var kinds = map[string]string{
	".html": html, ".htm": html, ".xhtml": "application/xhtml+xml",
	".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".mjs": "text/javascript; charset=utf-8",
	".cjs": "text/javascript; charset=utf-8", ".json": "application/json", ".map": "application/json", ".jsonld": "application/ld+json",
	".geojson": "application/geo+json", ".webmanifest": "application/manifest+json", ".wasm": "application/wasm",
	".txt": "text/plain; charset=utf-8", ".md": "text/markdown; charset=utf-8", ".csv": "text/csv; charset=utf-8",
	".vtt": "text/vtt; charset=utf-8", ".ics": "text/calendar; charset=utf-8", ".xml": "text/xml; charset=utf-8",
	".rss": "application/rss+xml; charset=utf-8", ".atom": "application/atom+xml; charset=utf-8", ".yaml": "application/yaml", ".yml": "application/yaml",
	".svg": "image/svg+xml", ".png": "image/png", ".apng": "image/apng", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif",
	".webp": "image/webp", ".avif": "image/avif", ".ico": "image/x-icon", ".bmp": "image/bmp", ".tif": "image/tiff", ".tiff": "image/tiff",
	".woff": "font/woff", ".woff2": "font/woff2", ".ttf": "font/ttf", ".otf": "font/otf", ".eot": "application/vnd.ms-fontobject",
	".mp4": "video/mp4", ".m4v": "video/mp4", ".webm": "video/webm", ".ogv": "video/ogg", ".mov": "video/quicktime", ".mpeg": "video/mpeg",
	".mp3": "audio/mpeg", ".m4a": "audio/mp4", ".aac": "audio/aac", ".ogg": "audio/ogg", ".oga": "audio/ogg", ".opus": "audio/ogg",
	".wav": "audio/wav", ".flac": "audio/flac", ".weba": "audio/webm", ".m3u8": "application/vnd.apple.mpegurl", ".mpd": "application/dash+xml", ".ts": "video/mp2t",
	".pdf": "application/pdf", ".zip": "application/zip", ".gz": "application/gzip", ".br": "application/octet-stream", ".zst": "application/zstd",
	".tar": "application/x-tar", ".7z": "application/x-7z-compressed", ".bin": "application/octet-stream", ".data": "application/octet-stream",
	".glb": "model/gltf-binary", ".gltf": "model/gltf+json", ".rtf": "application/rtf", ".epub": "application/epub+zip",
}

func kindOf(name string) string {
	if kind, known := kinds[strings.ToLower(path.Ext(name))]; known {
		return kind
	}
	return "application/octet-stream"
}

// compressible reports whether files of a kind get smaller.
func compressible(kind string) bool {
	kind, _, _ = strings.Cut(kind, ";")
	switch kind {
	case "application/json", "application/wasm", "image/svg+xml", "image/x-icon", "image/bmp", "application/yaml", "font/ttf", "font/otf",
		"application/vnd.ms-fontobject", "application/vnd.apple.mpegurl", "application/rtf", "model/gltf-binary":
		return true
	}
	return strings.HasPrefix(kind, "text/") || strings.HasSuffix(kind, "+json") || strings.HasSuffix(kind, "+xml")
}

var (
	// Directories in which build tools put nothing whose name they do not change with its content.
	keptDirs = []string{"_next/static/", "_astro/", "_app/immutable/", "_nuxt/"}

	hashForm = regexp.MustCompile(`[.\-_]([A-Za-z0-9_-]{8,64})\.(?:[a-z]+\.)?[a-z0-9]+$`)
	hexForm  = regexp.MustCompile(`^[0-9a-f]+$`)
)

// keeps reports whether a file is known by a name that changes with its content, so that a browser may keep it. A hash in a
// name is hexadecimal with digits and letters in it; in a directory called assets any that no word looks like. A page
// never is.
func keeps(name string) bool {
	if kindOf(name) == html {
		return false
	}
	for _, dir := range keptDirs {
		if strings.HasPrefix(name, dir) {
			return true
		}
	}
	match := hashForm.FindStringSubmatch(path.Base(name))
	if match == nil {
		return false
	}
	hash := match[1]
	if i := strings.LastIndexAny(hash, "-_"); i >= 0 && len(hash)-i > 8 {
		hash = hash[i+1:]
	}
	digits := strings.ContainsAny(hash, "0123456789")
	if hexForm.MatchString(hash) {
		return digits && strings.ContainsAny(hash, "abcdef") // 20240131 is a day
	}
	upper, lower := strings.ToLower(hash) != hash, strings.ToUpper(hash) != hash
	inAssets := strings.HasPrefix(name, "assets/") || strings.Contains(name, "/assets/")
	return inAssets && lower && (upper || digits) && len(hash) >= 8
}
