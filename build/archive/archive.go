// Package archive packs a directory into a compressed tar file and unpacks one safely: what comes out lies inside the
// directory it was meant for, whatever the archive says.
//
// There are two forms. An upload is what a user sends: links must stay inside, owners are forgotten and modes are made
// plain, because the app runs as another user than the one who packed it. A release is what this node has built: it keeps
// modes, owners and links as they are, since they are meant inside a sandbox, where /usr is another place than here.
package archive

import (
	"fmt"
	"path"
	"strings"

	"github.com/lull-dev/lull"
)

// Limits bound what an archive may hold. A limit of 0 is none.
type Limits struct {
	Bytes   lull.Size // of all files together, unpacked
	Entries int
	Ratio   int // of unpacked to packed bytes, counted after the first 64 MB
}

// Options say what is packed or accepted.
type Options struct {
	Limits Limits

	// Ignore leaves out what the directory's .lullignore says, else its .genezioignore, else its .dockerignore, and what
	// never belongs into an upload, such as .git. Rules, in the syntax of a .gitignore, come before those. For Pack only.
	Ignore bool
	Rules  string

	// Only, if not empty, packs these files and directories alone; slash-separated, from the top. For Pack only.
	Only []string

	// AsIs keeps modes (without setuid and setgid), owners and links as they are. The tree is for a sandbox; code outside
	// of one must not follow its links.
	AsIs bool
}

// Upload are the options for what a user sends.
func Upload() Options {
	return Options{Ignore: true, Limits: Limits{Bytes: 2 * lull.GB, Entries: 200_000, Ratio: 200}}
}

// Release are the options for what a node has built, which may be the file system of an image.
func Release() Options {
	return Options{AsIs: true, Limits: Limits{Bytes: 16 * lull.GB, Entries: 2_000_000}}
}

// maxName is the longest path an archive may hold: the kernel's own limit.
const maxName = 4096

func invalid(hint, format string, args ...any) error {
	return &lull.Error{Kind: lull.KindInvalid, Message: "archive: " + fmt.Sprintf(format, args...), Hint: hint}
}

func tooLarge(format string, args ...any) error {
	return &lull.Error{Kind: lull.KindTooLarge, Message: "archive: " + fmt.Sprintf(format, args...),
		Hint: "leave files out with a .lullignore file, which is written like a .gitignore"}
}

// Local returns the clean form of an entry's name: relative, without "..", "." for the top itself. It can be kept: it is a
// copy of at most 4096 bytes, where the name that tar.Reader gives may be a part of all the entry's records.
func Local(name string) (string, error) {
	switch {
	case name == "":
		return "", invalid("", "an entry has no name")
	case len(name) > maxName:
		return "", invalid("", "the name %s… is longer than %d bytes", quote(name[:60]), maxName)
	case strings.ContainsRune(name, 0):
		return "", invalid("", "the name %s holds a NUL byte", quote(name))
	case path.IsAbs(name) || climbs(name):
		return "", invalid("", "%s would be written outside the app's directory", quote(name))
	}
	for part := range strings.SplitSeq(name, "/") {
		if len(part) > 255 {
			return "", invalid("", "the name %s… is longer than 255 bytes", quote(part[:60]))
		}
	}
	return strings.Clone(path.Clean(name)), nil
}

func climbs(name string) bool {
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return true
		}
	}
	return false
}

// inside reports whether a link at name with this target stays inside, as far as the text of the two tells.
func inside(name, target string) bool {
	if path.IsAbs(target) {
		return false
	}
	end := path.Join(path.Dir(name), target)
	return end != ".." && !strings.HasPrefix(end, "../")
}

// quote makes a name from outside fit for a terminal; plain names stay as they are.
func quote(name string) string {
	if quoted := fmt.Sprintf("%q", name); quoted != `"`+name+`"` {
		return quoted
	}
	return name
}

// tally counts what goes through against the limits.
type tally struct {
	limits  Limits
	bytes   int64
	entries int
}

func (t *tally) entry() error {
	t.entries++
	if t.limits.Entries > 0 && t.entries > t.limits.Entries {
		return tooLarge("holds more than %d files", t.limits.Entries)
	}
	return nil
}

func (t *tally) file(size int64) error {
	if size < 0 {
		return invalid("", "a file has a negative size")
	}
	if t.limits.Bytes > 0 && size > int64(t.limits.Bytes)-t.bytes {
		return tooLarge("holds more than %s", t.limits.Bytes)
	}
	t.bytes += size
	return nil
}
