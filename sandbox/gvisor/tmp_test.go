package gvisor_test

import (
	"testing"
	"time"
	"os"
	"fmt"
	"bytes"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/sandbox"
)

func TestTmpHog(t *testing.T) {
	d := newDriver(t)
	for i := range 6 {
	var out bytes.Buffer
	began := time.Now()
	sb, err := d.Start(t.Context(), sandbox.Spec{ID: fmt.Sprint("hog",i), Args: []string{"python3", "-c", `
import os,sys,time,subprocess
p=subprocess.Popen([sys.executable,"-c","l=[]\nwhile True: l.append(bytearray(b'x')*(1<<20))"])
print("child", p.wait(), flush=True)
time.sleep(1)
sys.exit(9)
`}, Env: []string{"PATH=/usr/bin"}, Dir: "/tmp", Limits: lull.Resources{Memory: 128 * lull.MB, CPU: 1, Disk: 64 * lull.MB, Processes: 64}, Stdout: &out, Stderr: &out})
	if err != nil {
		t.Fatal(err)
	}
		select {
		case <-sb.Done():
		case <-time.After(20*time.Second):
		}
		f, _ := os.ReadFile(fmt.Sprintf("/sys/fs/cgroup/memory/lull0/hog%d/memory.oom_control",i)); g, _ := os.ReadFile("/sys/fs/cgroup/memory/lull0/hog/memory.max_usage_in_bytes")
	took:=time.Since(began)
	sb.Stop(0)
	fmt.Printf("%v %+v %s %s %s\n", took, sb.Exit(), out.String()[:min(out.Len(),600)], f, g)
	sb.Close()
	}
}
