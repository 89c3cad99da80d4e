package image

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/lull-dev/lull/build/archive"
)

// maxUsers bounds how much of an image's list of users is read.
const maxUsers = 1 << 20

// User is who a process runs as.
type User struct {
	UID, GID int
	Home     string
}

// String returns the numeric form, 33:33.
func (u User) String() string { return fmt.Sprintf("%d:%d", u.UID, u.GID) }

// LookUp finds a user in the file system of an image at dir, as the engine that made the image would: name is a name or
// a number, perhaps with a group behind a colon, and empty means root.
func LookUp(dir, name string) (User, error) {
	tree, err := newTree(dir, archive.Limits{})
	if err != nil {
		return User{}, err
	}
	defer tree.root.Close()
	who, group, hasGroup := strings.Cut(name, ":")
	if who == "" {
		who = "0"
	}
	user := User{Home: "/"}
	entry := tree.entryOf("etc/passwd", func(fields []string) bool {
		return len(fields) >= 6 && isID(fields[2]) && isID(fields[3]) && (fields[0] == who || fields[2] == who)
	})
	switch {
	case entry != nil:
		user.UID, user.GID = id(entry[2]), id(entry[3])
		if path.IsAbs(entry[5]) {
			user.Home = path.Clean(entry[5])
		}
	case isID(who):
		user.UID = id(who)
	default:
		return User{}, invalid("the name must be in its /etc/passwd; a number always works", "there is no user %q in the image", who)
	}
	if user.UID == 0 && entry == nil {
		user.Home = "/root"
	}
	if !hasGroup {
		return user, nil
	}
	user.GID, err = tree.group(group)
	return user, err
}

func (t *tree) group(name string) (int, error) {
	if isID(name) {
		return id(name), nil
	}
	entry := t.entryOf("etc/group", func(fields []string) bool { return len(fields) >= 3 && isID(fields[2]) && fields[0] == name })
	if entry == nil {
		return 0, invalid("the name must be in its /etc/group; a number always works", "there is no group %q in the image", name)
	}
	return id(entry[2]), nil
}

// entryOf returns the first line of a file that fits, split at its colons.
func (t *tree) entryOf(name string, fits func(fields []string) bool) []string {
	file, err := t.openFile(name)
	if err != nil {
		return nil
	}
	defer file.Close()
	for lines := bufio.NewScanner(io.LimitReader(file, maxUsers)); lines.Scan(); {
		if fields := strings.Split(lines.Text(), ":"); fits(fields) {
			return fields
		}
	}
	return nil
}

// openFile opens a regular file of the image that is not a link itself.
func (t *tree) openFile(name string) (*os.File, error) {
	dir, err := t.resolve(path.Dir(name), missing)
	if err != nil {
		return nil, err
	}
	real := path.Join(dir, path.Base(name))
	info, err := t.root.Lstat(real)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file", name)
	}
	return t.root.Open(real)
}

func isID(text string) bool {
	_, err := strconv.ParseUint(text, 10, 31)
	return err == nil
}

// id reads what isID accepts.
func id(text string) int {
	number, _ := strconv.ParseUint(text, 10, 31)
	return int(number)
}
