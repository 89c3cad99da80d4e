package build

import (
	"context"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// goApp is a directory with a go.mod.
type goApp struct {
	output string // where the compiled program is to lie; "": where binary says
}

func (*goApp) name() string      { return "a Go app" }
func (*goApp) tools() []string   { return []string{"go"} }
func (*goApp) env(*job) []string { return nil }

func (g *goApp) build(ctx context.Context, j *job) error {
	if j.lookTool("go") == "" {
		return missing("go", "a Go app", "install it on the node (apt-get install golang-go), or deploy the program: CGO_ENABLED=0 GOOS=linux go build -o app, with nothing else in the directory")
	}
	program, err := g.main(j)
	if err != nil {
		return err
	}
	cache := j.inside(cacheDir)
	return j.step(ctx, step{
		args: []string{"go", "build", "-trimpath", "-o", g.binary(j), program},
		// Without cgo the program is static: it needs nothing of the host. VCS stamps would need git and .git.
		env: []string{"CGO_ENABLED=0", "GOFLAGS=-buildvcs=false -modcacherw", "GOPATH=/tmp/go", "GOCACHE=" + cache + "/go-build",
			"GOMODCACHE=" + cache + "/go-mod", "GOTELEMETRY=off", "GOWORK=off"},
		hint: "if modules cannot be fetched from this node: go mod vendor, and deploy with the vendor directory",
	})
}

// binary is where the compiled program lies, from the top of the app: where the manifest's run: ./server looks for it, or
// out of the way.
func (g *goApp) binary(j *job) string {
	if g.output != "" {
		return g.output
	}
	named := firstWord(j.manifest.Run)
	if strings.HasPrefix(named, "./") && filepath.IsLocal(named) && !j.has(named) {
		return named
	}
	return "./" + path.Join(ownDir, "bin", j.app)
}

func (g *goApp) command(j *job) (string, error) {
	if j.manifest.Build != "" {
		return "", invalid("write run: into lull.yaml", "lull.yaml says how to build the app, but not how to start it")
	}
	if _, err := g.main(j); err != nil {
		return "", err
	}
	return g.binary(j), nil
}

// main finds the package to build: the top, or the only one in cmd.
func (g *goApp) main(j *job) (string, error) {
	if isMain(j, ".") {
		return ".", nil
	}
	entries, _ := fs.ReadDir(j.root.FS(), "cmd")
	var found []string
	for _, entry := range entries {
		if entry.IsDir() && isMain(j, path.Join("cmd", entry.Name())) {
			found = append(found, "./cmd/"+entry.Name())
		}
	}
	if own := "./cmd/" + j.app; slices.Contains(found, own) {
		return own, nil
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", invalid("say how in lull.yaml: build: go build -o server ./PATH and run: ./server",
			"there is no Go program to build: neither the top of the module nor a directory in cmd is package main")
	}
	return "", invalid("say which one in lull.yaml: build: go build -o server "+found[0]+" and run: ./server",
		"there are several Go programs: %s", strings.Join(found, ", "))
}

// isMain reports whether a directory holds a program.
func isMain(j *job, dir string) bool {
	names, err := fs.Glob(j.root.FS(), path.Join(dir, "*.go"))
	if err != nil {
		return false
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, found, err := j.fileText(name)
		if err != nil || !found {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, text, parser.PackageClauseOnly)
		if err == nil && file.Name.Name == "main" {
			return true
		}
	}
	return false
}
