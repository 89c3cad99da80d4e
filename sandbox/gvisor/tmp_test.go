package gvisor

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sort"
	"testing"
	"time"
)

func TestTmpStart(t *testing.T) {
	dir := helloDir(t)
	var bare, bw []time.Duration
	for i := 0; i < 15; i++ {
		l, _ := net.Listen("tcp", "127.0.0.1:0")
		addr := l.Addr().String()
		_, port, _ := net.SplitHostPort(addr)
		l.Close()
		began := time.Now()
		cmd := exec.Command("node", "server.js")
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "HOST=127.0.0.1", "PORT="+port)
		cmd.Start()
		firstResponse(t, func(ctx context.Context) (net.Conn, error) { var d net.Dialer; return d.DialContext(ctx, "tcp", addr) })
		bw = append(bw, time.Since(began))
		cmd.Process.Kill()
		cmd.Wait()
		bare = append(bare, cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())
	}
	sort.Slice(bare, func(i, j int) bool { return bare[i] < bare[j] })
	sort.Slice(bw, func(i, j int) bool { return bw[i] < bw[j] })
	fmt.Println("bare cpu", bare[0], bare[0], "wall", bw[0], bw[0])
	driver := newDriver(t)
	var tot, st, used, us, ls []time.Duration
	for i := range 15 {
		spec := helloSpec(fmt.Sprint("h", i), dir)
		spec.Limits.CPU = 0
		began := time.Now()
		sb, err := driver.Start(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		st = append(st, time.Since(began))
		u, _ := sb.Usage()
		us = append(us, u.CPU)
		listens(t, sb)
		ls = append(ls, time.Since(began))
		firstResponse(t, func(ctx context.Context) (net.Conn, error) { return sb.Dial(ctx, 8080) })
		tot = append(tot, time.Since(began))
		u, _ = sb.Usage()
		used = append(used, u.CPU)
		if i >= 12 {
			o, _ := exec.Command("sh", "-c", "for p in $(cat /sys/fs/cgroup/pids/lull*/"+spec.ID+"/cgroup.procs); do awk '{print $1,$2,\"utime\",$14,\"stime\",$15,\"thr\",$20,\"minflt\",$10}' /proc/$p/stat; done").CombinedOutput()
			fmt.Println(string(o))
		}
		sb.Close()
	}
	for _, x := range [][]time.Duration{tot, st, used, us, ls} {
		sort.Slice(x, func(i, j int) bool { return x[i] < x[j] })
		fmt.Print(x[0].Round(time.Millisecond), " ", x[len(x)/2].Round(time.Millisecond), " | ")
	}
	fmt.Println("cpu")
}
