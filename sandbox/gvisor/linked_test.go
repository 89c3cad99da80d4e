package gvisor

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The linker checks the name of what go:linkname takes from gVisor, and that only where it is linked; nobody checks its
// type. So what is declared here is compared with gVisor's source.
func TestLinkedFunctionIsAsDeclared(t *testing.T) {
	const name = "createInterfacesAndRoutesFromNS" // connectNetwork here
	gvisors := funcType(t, sourceDir(t, "gvisor.dev/gvisor/runsc/sandbox"), name)
	ours := funcType(t, ".", "connectNetwork")
	switch {
	case ours == "":
		t.Fatal("there is no connectNetwork any more: this test wants another name")
	case gvisors == "":
		t.Errorf("gVisor has no runsc/sandbox.%s any more, which connectNetwork stands for: look at what Sandbox.Restore does instead", name)
	case gvisors != ours:
		t.Errorf("gVisor's %s has changed: it is %s, connectNetwork is %s", name, gvisors, ours)
	}
}

// sourceDir returns where the source of a package lies.
func sourceDir(t *testing.T, path string) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-f", "{{.Dir}}", path).CombinedOutput()
	if err != nil {
		t.Fatalf("go list %s: %v\n%s", path, err, out)
	}
	return strings.TrimSpace(string(out))
}

// funcType returns the types of a function's parameters and results as they are written in the source, or "".
func funcType(t *testing.T, dir, name string) string {
	t.Helper()
	sources, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(sources) == 0 {
		t.Fatalf("no sources in %s: %v", dir, err)
	}
	for _, source := range sources {
		file, err := parser.ParseFile(token.NewFileSet(), source, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == name {
				return written(f.Type.Params) + " " + written(f.Type.Results)
			}
		}
	}
	return ""
}

// written lists the types in a list of parameters, one for each.
func written(list *ast.FieldList) string {
	var all []string
	for _, field := range list.List {
		for range max(len(field.Names), 1) {
			all = append(all, types.ExprString(field.Type))
		}
	}
	return "(" + strings.Join(all, ", ") + ")"
}
