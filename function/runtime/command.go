package runtime

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// isCustom reports whether the function brings its own program, named bootstrap.
func isCustom(runtime string) bool {
	return strings.HasPrefix(runtime, "provided") || runtime == "go1.x"
}

// command finds the program that runs the function: its bootstrap, AWS's runtime client if the function brings it, or ours.
// It may add to e what the program needs.
func command(c Config, e *environment) ([]string, error) {
	switch {
	case isCustom(c.Runtime):
		return bootstrap(c, e)
	case strings.HasPrefix(c.Runtime, "nodejs"):
		return nodeClient(c, e)
	case strings.HasPrefix(c.Runtime, "python"):
		return pythonClient(c, e)
	}
	return nil, fmt.Errorf("runtime %s is not known: it must be nodejs…, python… or provided…, with a file bootstrap", c.Runtime)
}

func bootstrap(c Config, e *environment) ([]string, error) {
	for _, dir := range []string{e.task, e.layers} {
		path := filepath.Join(dir, "bootstrap")
		info, err := os.Stat(path)
		if err != nil || info.IsDir() {
			continue
		}
		if info.Mode()&0o111 == 0 {
			return nil, fmt.Errorf("%s cannot be executed: make it executable (chmod +x bootstrap) before it is deployed", path)
		}
		return []string{path}, nil
	}
	return nil, fmt.Errorf("runtime %s needs an executable file named bootstrap: there is none in %s or %s", c.Runtime, e.task, e.layers)
}

func nodeClient(c Config, e *environment) ([]string, error) {
	bin := filepath.Join(e.task, "node_modules", "aws-lambda-ric", "bin")
	for _, name := range []string{"index.mjs", "index.js"} {
		if path := filepath.Join(bin, name); isFile(path) {
			return []string{"node", path, c.Handler}, nil
		}
	}
	if path := filepath.Join(e.task, "node_modules", ".bin", "aws-lambda-ric"); isFile(path) {
		return []string{path, c.Handler}, nil
	}
	if c.HTTP > 0 {
		e.values["LULL_FUNCTION_HTTP"] = c.direct(e.arn(c))
	}
	return ours(e, "node", "node", "client.mjs")
}

// pythonDirs is where packages may lie below the function's files: beside it, where other tools put them, and where our build does.
var pythonDirs = []string{"", "packages", "package", ".lull/python"}

func pythonClient(c Config, e *environment) ([]string, error) {
	for _, name := range pythonDirs {
		dir := filepath.Join(e.task, name)
		if isFile(filepath.Join(dir, "awslambdaric", "__main__.py")) {
			e.values["PYTHONPATH"] = joined(dir, splitList(e.values["PYTHONPATH"]))
			return []string{"python3", "-m", "awslambdaric", c.Handler}, nil
		}
	}
	return ours(e, "python3", "python", "client.py")
}

// ours is a client of our own.
func ours(e *environment, program string, file ...string) ([]string, error) {
	path := filepath.Join(append([]string{e.tools}, file...)...)
	if !isFile(path) {
		return nil, fmt.Errorf("%s, which runs the function, is not there", path)
	}
	return []string{program, path}, nil
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

func splitList(list string) []string {
	if list == "" {
		return nil
	}
	return filepath.SplitList(list)
}
