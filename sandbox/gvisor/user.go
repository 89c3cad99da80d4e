package gvisor

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// user is who a process runs as.
type user struct{ UID, GID int }

// maxID is the largest user or group; the one above means "none" to the kernel.
const maxID = 1<<32 - 2

// findUser reads Spec.User: "", "uid", "uid:gid", "name" or "name:group", with names from the root's etc/passwd and
// etc/group.
func findUser(text, root string) (user, error) {
	if text == "" {
		return user{unprivileged, unprivileged}, nil
	}
	name, group, hasGroup := strings.Cut(text, ":")
	who, known := user{}, false
	entry := lookUp(root, "etc/passwd", name, 4)
	if entry != nil {
		who.UID, known = parseID(entry[2])
		gid, ok := parseID(entry[3])
		who.GID, known = gid, known && ok
	}
	if uid, ok := parseID(name); ok {
		who.UID, known = uid, true
	}
	if !known {
		return user{}, fmt.Errorf("user %q is not a number and not in /etc/passwd", name)
	}
	if !hasGroup {
		return who, nil
	}
	if gid, ok := parseID(group); ok {
		who.GID = gid
		return who, nil
	}
	if entry := lookUp(root, "etc/group", group, 3); entry != nil {
		if gid, ok := parseID(entry[2]); ok {
			who.GID = gid
			return who, nil
		}
	}
	return user{}, fmt.Errorf("group %q is not a number and not in /etc/group", group)
}

func parseID(text string) (int, bool) {
	n, err := strconv.ParseUint(text, 10, 32)
	return int(n), err == nil && n <= maxID
}

// lookUp returns the first line of a file in the format of passwd whose name, or number, is key, if it has at least
// that many fields. The file may come from an image: it may be anything, but it is not looked for outside the root.
func lookUp(root, file, key string, fields int) []string {
	f, err := os.OpenInRoot(root, file)
	if err != nil {
		return nil
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil
	}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		entry := strings.Split(lines.Text(), ":")
		if len(entry) >= fields && (entry[0] == key || entry[2] == key) {
			return entry
		}
	}
	return nil
}
