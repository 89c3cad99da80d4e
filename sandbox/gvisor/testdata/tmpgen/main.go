package main
import ("fmt";"time";"gvisor.dev/gvisor/runsc/boot/filter/config";_ "gvisor.dev/gvisor/pkg/sentry/platform/systrap")
func main(){ t:=time.Now(); p,err:=config.PrecompiledPrograms(); fmt.Println(len(p),err,time.Since(t)); for _,x:=range p { fmt.Println(x.Name, len(x.Bytecode32), x.VarOffsets)} }
