// Command image reports what its container gave it.
package main

import (
	"encoding/json"
	"log"
	"net/http"
	"os"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		dir, _ := os.Getwd()
		motd, _ := os.ReadFile("motd.txt")
		_, passwd := os.Stat("/usr/bin/python3")
		json.NewEncoder(w).Encode(map[string]any{
			"args":       os.Args,
			"dir":        dir,
			"greeting":   os.Getenv("GREETING"),
			"motd":       string(motd),
			"uid":        os.Getuid(),
			"gid":        os.Getgid(),
			"hostPython": passwd == nil,
		})
	})
	log.Fatal(http.ListenAndServe(":9000", nil))
}
