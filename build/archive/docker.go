package archive

import (
	"errors"
	"io/fs"
	"os"
	"strings"
)

// DockerIgnore is what a .dockerignore leaves out of the files that a Dockerfile may copy.
type DockerIgnore struct{ ig ignore }

// ReadDockerIgnore reads what is left out of a build with this Dockerfile: its own list, in NAME.dockerignore, or else the
// .dockerignore at the top. The directory that builds work in is always left out.
func ReadDockerIgnore(root *os.Root, dockerfile string) (*DockerIgnore, error) {
	d := &DockerIgnore{}
	text, err := readSmall(root, dockerfile+dockerIgnoreFile)
	if errors.Is(err, fs.ErrNotExist) {
		text, err = readSmall(root, dockerIgnoreFile)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	d.ig.addDocker(strings.TrimPrefix(text, "\ufeff"))
	return d, nil
}

// Match reports whether a file is left out; below says that the directory it is in is. descend says that a directory that
// is left out must be looked into all the same.
func (d *DockerIgnore) Match(name string, isDir, below bool) (ignored, descend bool) {
	if name == ".lull" {
		return true, false
	}
	ignored = below
	for _, r := range d.ig.rules {
		if r.negated == ignored && r.form.MatchString(name) {
			ignored = !r.negated
		}
	}
	return ignored, isDir && d.ig.descend
}
