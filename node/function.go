package node

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/function/runtime"
	"github.com/lull-dev/lull/sandbox"
)

// asFunction adds to spec what the runtime of a function needs: itself, the layers, and what it has to know.
func (n *Node) asFunction(spec *sandbox.Spec, rel lull.Release, dir string) {
	m := rel.Manifest
	spec.Mounts = append(spec.Mounts, n.tools())
	if layers := filepath.Join(dir, ".lull", "layers"); isDir(layers) {
		spec.Mounts = append(spec.Mounts, sandbox.Mount{Source: layers, Target: lull.LayersDir, Mode: sandbox.Layered})
	}
	config := runtime.Config{
		Name: rel.App, Version: fmt.Sprint(rel.Number), Handler: m.Function.Handler, Runtime: m.Function.Runtime, Payload: m.Function.Payload,
		Concurrency: m.Concurrency, Timeout: m.Timeout.Request.Std().Milliseconds(), Memory: int64(m.Resources.Memory),
		Request: int64(m.Function.Limits.Request), Response: int64(m.Function.Limits.Response), Streamed: int64(m.Function.Limits.Streamed),
		Key: n.invokeKey(rel.App),
	}
	if n.iso.driver.Capabilities().Ports {
		config.HTTP = rel.Process.HTTP
	}
	spec.Env = append(spec.Env, "LAMBDA_TASK_ROOT="+m.FilesDir(), "LAMBDA_RUNTIME_DIR="+lull.RuntimeDir, "LULL_LAYERS="+lull.LayersDir,
		runtime.Variable+"="+config.Encode())
	url := n.servicesURL(rel.App)
	spec.Env = append([]string{ // of two with one name the later counts: the app's own
		"AWS_ENDPOINT_URL_LAMBDA=" + url, "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI=" + url,
		"AWS_ACCESS_KEY_ID=lull", "AWS_SECRET_ACCESS_KEY=lull", // AWS's clients want to sign with something
	}, spec.Env...)
}

// tools is the mount of lull.RuntimeDir. It is layered, not read-only, so that a sandbox made ahead will do.
func (n *Node) tools() sandbox.Mount {
	return sandbox.Mount{Source: n.toolsDir, Target: lull.RuntimeDir, Mode: sandbox.Layered}
}

// usesTools reports whether a process is started from lull.RuntimeDir.
func usesTools(args []string) bool {
	for _, arg := range args {
		if strings.Contains(arg, lull.RuntimeDir+"/") {
			return true
		}
	}
	return false
}

// invokeKey proves to a function's runtime that an invocation comes from the node. It is the same after a restart of the
// node, because environments outlive that, and for all releases of an app, because one may be replaced at any moment.
func (n *Node) invokeKey(app string) string {
	sum := hmac.New(sha256.New, []byte(n.token))
	fmt.Fprintf(sum, "invoke %s", app)
	return hex.EncodeToString(sum.Sum(nil))
}

// executable is the program that environments of functions are started from.
func (n *Node) executable() (string, error) {
	if n.cfg.Executable != "" {
		return n.cfg.Executable, nil
	}
	path, err := os.Executable()
	return cmp.Or(path, "/proc/self/exe"), err
}

func isDir(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.IsDir()
}
