package build

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/sandbox"
)

// Where a step finds things inside its sandbox, besides the app's files in lull.AppDir.
const cacheDir = "/cache"

// toolPath is where commands are looked for, while building and while running: what the host has in /usr.
const toolPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// certificates is the bundle that most distributions keep the certificate authorities in that the host trusts. Node and
// pip bring their own list, which lacks the ones that an operator has added for a network with its own.
const certificates = "/etc/ssl/certs/ca-certificates.crt"

// stopGrace is how long a step that is called off may take to clean up.
const stopGrace = 2 * time.Second

// step is one command of a build.
type step struct {
	args   []string
	title  string    // how it is printed; empty: args
	env    []string  // on top of the usual
	stdout io.Writer // takes the standard output, which is then not printed
	hint   string    // what to do if it fails
}

func (s step) String() string {
	if s.title != "" {
		return s.title
	}
	return joinWords(s.args)
}

// step runs a command in a sandbox of its own and waits for it.
func (j *job) step(ctx context.Context, s step) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	j.out.begin()
	if s.stdout == nil {
		j.out.note("$ %s", s)
	}
	j.ran = true
	stdout, stderr := &lineWriter{out: j.out}, &lineWriter{out: j.out}
	spec := sandbox.Spec{
		ID:     "build-" + strings.ToLower(rand.Text()[:16]),
		Mounts: []sandbox.Mount{{Source: j.dir, Target: j.inside(lull.AppDir), Mode: sandbox.ReadWrite}, {Source: j.downloads(), Target: j.inside(cacheDir), Mode: sandbox.ReadWrite}},
		Args:   s.args,
		Env:    j.stepEnv(s.env),
		Dir:    j.inside(lull.AppDir),
		User:   "0:0",
		Limits: j.limits.resources,
		Egress: lull.Egress{lull.EgressInternet},
		Stdout: stdout,
		Stderr: stderr,
	}
	if s.stdout != nil {
		spec.Stdout = s.stdout
	}
	exit, err := j.execute(ctx, spec)
	stdout.flush()
	stderr.flush()
	var known *lull.Error
	if errors.As(err, &known) {
		return &lull.Error{Kind: known.Kind, Message: "build: " + s.String() + " was stopped: " + known.Message + j.out.last(), Hint: s.hint}
	}
	if err != nil {
		return err
	}
	return j.judge(s, exit)
}

// execute starts a sandbox and returns how its process ended, once the sandbox is gone.
func (j *job) execute(ctx context.Context, spec sandbox.Spec) (sandbox.Exit, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	running, err := j.config.Driver.Start(ctx, spec)
	if err != nil {
		if ctx.Err() != nil {
			return sandbox.Exit{}, context.Cause(ctx)
		}
		return sandbox.Exit{}, fmt.Errorf("start build sandbox: %w", err)
	}
	// Started here, ends with ctx, which this function ends and then waits for it.
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		j.watchDisk(ctx, cancel)
	}()
	select {
	case <-running.Done():
	case <-ctx.Done():
		running.Stop(stopGrace)
	}
	called := context.Cause(ctx)
	cancel(nil)
	<-watched
	exit := running.Exit()
	if err := running.Close(); err != nil {
		j.config.Log.Warn("build sandbox not removed", "sandbox", spec.ID, "err", err)
	}
	return exit, called
}

// watchDisk ends the step when its files have become too large: a mounted directory has no limit of its own.
func (j *job) watchDisk(ctx context.Context, cancel context.CancelCauseFunc) {
	ticker := time.NewTicker(j.limits.look)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if used := diskUse(j.dir) + diskUse(j.downloads()); used > j.limits.resources.Disk {
			cancel(&lull.Error{Kind: lull.KindBuild, Message: "it had more than " + j.limits.resources.Disk.String() + " on disk"})
			return
		}
	}
}

// diskUse adds up what lies in a directory. Files that come and go meanwhile do not matter.
func diskUse(dir string) lull.Size {
	total := lull.Size(0)
	_ = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return nil
		}
		if info, err := entry.Info(); err == nil {
			total += lull.Size(info.Size())
		}
		return nil
	})
	return total
}

// judge turns an end into an error, unless it was a good one.
func (j *job) judge(s step, exit sandbox.Exit) error {
	limits := j.limits.resources
	var how string
	switch {
	case exit.Err != nil:
		return fmt.Errorf("build sandbox broke: %w", exit.Err)
	case exit.Limit == sandbox.LimitMemory:
		how = "went over the " + limits.Memory.String() + " of memory that a build has"
	case exit.Limit == sandbox.LimitProcesses:
		how = fmt.Sprintf("went over the %d processes that a build has", limits.Processes)
	case exit.Limit == sandbox.LimitDisk:
		how = "went over the " + limits.Disk.String() + " on disk that a build has"
	case exit.Code == 0 && exit.Signal == "":
		return nil
	default:
		how = exit.Describe(limits)
	}
	return &lull.Error{Kind: lull.KindBuild, Message: "build: " + s.String() + " " + how + j.out.last(), Hint: s.hint}
}

// stepEnv is the environment of a step: little and the same everywhere. What the operator has set wins.
func (j *job) stepEnv(more []string) []string {
	env := []string{"PATH=" + toolPath + ":/usr/local/go/bin:/usr/lib/go/bin", "HOME=/tmp", "LANG=C.UTF-8", "CI=true", "NO_COLOR=1", "TERM=dumb"}
	if _, err := os.Stat(certificates); err == nil {
		env = append(env, "NODE_EXTRA_CA_CERTS="+certificates, "PIP_CERT="+certificates)
	}
	return mergeEnv(env, more, j.config.Env)
}

// mergeEnv puts lists of KEY=value on top of each other; of two with the same key the later one stays. The result is sorted.
func mergeEnv(lists ...[]string) []string {
	values := map[string]string{}
	for _, entry := range slices.Concat(lists...) {
		if key, value, ok := strings.Cut(entry, "="); ok && key != "" {
			values[key] = value
		}
	}
	merged := make([]string, 0, len(values))
	for key, value := range values {
		merged = append(merged, key+"="+value)
	}
	slices.Sort(merged)
	return merged
}

// lookTool finds a command of the host that sandboxes see, too. It returns "" if there is none.
func (j *job) lookTool(name string) string {
	path := ""
	for _, entry := range j.stepEnv(nil) {
		if value, ok := strings.CutPrefix(entry, "PATH="); ok {
			path = value
		}
	}
	for dir := range strings.SplitSeq(path, ":") {
		full := filepath.Join(dir, name)
		if info, err := os.Stat(full); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return full
		}
	}
	return ""
}

// inside is the path at which a step sees a directory. Without isolation there is only the host's own path.
func (j *job) inside(target string) string {
	switch {
	case j.isolated:
		return target
	case target == cacheDir:
		return j.downloads()
	}
	return j.dir
}

// fileText reads a file of the app if it is there, bounded. A link may not lead out.
func (j *job) fileText(name string) (text string, found bool, err error) {
	info, err := j.root.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxText {
		return "", false, &lull.Error{Kind: lull.KindInvalid, Err: err, Message: fmt.Sprintf("%s is not a file of at most %s inside the app's directory", name, lull.Size(maxText))}
	}
	data, err := j.root.ReadFile(name)
	if err != nil {
		return "", false, fmt.Errorf("read %s: %w", name, err)
	}
	return string(data), true, nil
}

// maxText bounds the files that are read into memory; lock files of large apps have 5 MB.
const maxText = 32 << 20

// has reports whether the app has a regular file of that name.
func (j *job) has(name string) bool {
	info, err := j.root.Stat(name)
	return err == nil && info.Mode().IsRegular()
}

// firstOf returns the first of the names that the app has a file of, or "".
func (j *job) firstOf(names ...string) string {
	for _, name := range names {
		if j.has(name) {
			return name
		}
	}
	return ""
}
