package runtime

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Directories as they are inside a sandbox, unless the environment says otherwise.
const (
	taskDir   = "/var/task"
	layersDir = "/opt"
	toolsDir  = "/var/runtime"
)

// An environment is a process's variables. Those that name directories of the runtime are kept as fields.
type environment struct {
	values map[string]string
	task   string // the function's files
	layers string
	tools  string // our clients
	region string
}

// readEnvironment takes the runtime's own variables, as KEY=value, of which the last counts.
func readEnvironment(list []string) *environment {
	e := &environment{values: map[string]string{}}
	for _, entry := range list {
		if key, value, ok := strings.Cut(entry, "="); ok && key != "" {
			e.values[key] = value
		}
	}
	e.task = e.or("LAMBDA_TASK_ROOT", taskDir)
	e.layers = e.or("LULL_LAYERS", layersDir)
	e.tools = e.or("LAMBDA_RUNTIME_DIR", toolsDir)
	e.region = e.or("AWS_REGION", "us-east-1")
	return e
}

// or returns a variable, or otherwise if it is not set.
func (e *environment) or(key, otherwise string) string {
	if value := e.values[key]; value != "" {
		return value
	}
	return otherwise
}

// arn is the function's name for AWS. There is no account.
func (e *environment) arn(c Config) string {
	return "arn:aws:lambda:" + e.region + ":000000000000:function:" + c.Name
}

// forFunction returns the variables of the function's process: those that the app set, and those that AWS documents. What AWS
// reserves is ours, what it merely defines is the app's if the app sets it, and to a search path we add.
func (e *environment) forFunction(c Config, api string) []string {
	values := map[string]string{}
	for key, value := range e.values {
		if key != Variable {
			values[key] = value
		}
	}
	for key, value := range e.reserved(c, api) {
		values[key] = value
	}
	for key, value := range defined {
		if _, ok := values[key]; !ok {
			values[key] = value
		}
	}
	for key, dirs := range e.paths(c) {
		values[key] = joined(values[key], dirs)
	}
	list := make([]string, 0, len(values))
	for key, value := range values {
		list = append(list, key+"="+value)
	}
	slices.Sort(list)
	return list
}

// Defined are variables that an app may set otherwise. The locale is one that every system has.
var defined = map[string]string{
	"TZ":                       ":UTC",
	"LANG":                     "C.UTF-8",
	"AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR", // there is no X-Ray daemon, which is no reason to fail
}

func (e *environment) reserved(c Config, api string) map[string]string {
	now := time.Now().UTC()
	values := map[string]string{
		"_HANDLER":                        c.Handler,
		"AWS_LAMBDA_RUNTIME_API":          api,
		"AWS_REGION":                      e.region,
		"AWS_DEFAULT_REGION":              e.region,
		"AWS_LAMBDA_FUNCTION_NAME":        c.Name,
		"AWS_LAMBDA_FUNCTION_VERSION":     c.Version,
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": strconv.FormatInt(c.megabytes(), 10),
		"AWS_LAMBDA_INITIALIZATION_TYPE":  "on-demand",
		"AWS_LAMBDA_LOG_GROUP_NAME":       "/aws/lambda/" + c.Name,
		"AWS_LAMBDA_LOG_STREAM_NAME":      fmt.Sprintf("%s/[%s]%s", now.Format("2006/01/02"), c.Version, randomHex(16)),
		"LAMBDA_TASK_ROOT":                e.task,
		"LAMBDA_RUNTIME_DIR":              e.tools,
	}
	if !isCustom(c.Runtime) { // AWS does not define it for those either
		values["AWS_EXECUTION_ENV"] = "AWS_Lambda_" + c.Runtime
	}
	if c.Concurrency > 1 {
		values["AWS_LAMBDA_MAX_CONCURRENCY"] = strconv.Itoa(c.Concurrency)
	}
	return values
}

// megabytes is the memory size in the unit that Lambda counts it in.
func (c Config) megabytes() int64 { return c.Memory >> 20 }

// paths are the directories to search, after those that the app named.
func (e *environment) paths(c Config) map[string][]string {
	in := func(dir string, names ...string) string { return filepath.Join(append([]string{dir}, names...)...) }
	paths := map[string][]string{
		"PATH":            {"/usr/local/bin", "/usr/bin", "/bin", in(e.layers, "bin")},
		"LD_LIBRARY_PATH": {e.task, in(e.task, "lib"), in(e.layers, "lib")},
	}
	if major, ok := strings.CutPrefix(c.Runtime, "nodejs"); ok {
		major, _, _ = strings.Cut(major, ".")
		paths["NODE_PATH"] = []string{in(e.layers, "nodejs", "node"+major, "node_modules"), in(e.layers, "nodejs", "node_modules"),
			in(e.tools, "node_modules")}
	}
	if strings.HasPrefix(c.Runtime, "python") {
		paths["PYTHONPATH"] = []string{in(e.layers, "python"), in(e.layers, "python", "lib", c.Runtime, "site-packages")}
	}
	return paths
}

// joined appends to a list of directories those that it does not hold.
func joined(list string, more []string) string {
	var dirs []string
	if list != "" {
		dirs = filepath.SplitList(list)
	}
	for _, dir := range more {
		if !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return strings.Join(dirs, string(os.PathListSeparator))
}
