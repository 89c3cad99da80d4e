package gvisor

import (
	"fmt"
	"os/exec"
	"sort"
	"testing"
	"time"
	"os"
	"strconv"
	"strings"
)

func TestTmpPrograms(t *testing.T) {
	driver := newDriver(t)
	dir := helloDir(t)
	for _, args := range [][]string{{"true"}, {"node", "--version"}, {"node", "-e", "0"}, {"node", "--jitless", "-e", "0"}, {"node", "--v8-pool-size=0", "-e", "0"}, {"python3", "-c", "0"}, {"node", "--snapshot-blob", "x", "-e", "0"}} {
		var bare, st, tot, cpu []time.Duration
		for i := range 10 {
			began := time.Now()
			exec.Command(args[0], args[1:]...).Run()
			bare = append(bare, time.Since(began))
			spec := helloSpec(fmt.Sprint("p", i), dir)
			spec.Args = args
			spec.Limits.CPU = 0
			began = time.Now()
			sb, err := driver.Start(t.Context(), spec)
			if err != nil {
				t.Fatal(err)
			}
			st = append(st, time.Since(began))
			<-sb.Done()
			tot = append(tot, time.Since(began))
			b, _ := os.ReadFile("/sys/fs/cgroup/cpuacct/" + driver.slot.Name() + "/" + spec.ID + "/cpuacct.usage")
			n, _ := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
			cpu = append(cpu, time.Duration(n))
			sb.Close()
		}
		fmt.Print(args, " ")
		for _, x := range [][]time.Duration{bare, st, tot, cpu} {
			sort.Slice(x, func(i, j int) bool { return x[i] < x[j] })
			fmt.Print(x[0].Round(time.Millisecond), " ", x[len(x)/2].Round(time.Millisecond), " | ")
		}
		fmt.Println()
	}
}
