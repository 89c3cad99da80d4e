// Command server is what the tests build images of: it says what it sees.
package main

import (
	"fmt"
	"net/http"
	"os"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		made, err := os.ReadFile("/srv/made")
		_, shell := os.Stat("/bin/sh")
		fmt.Fprintf(w, "%d:%d %s %q %v %v %s", os.Getuid(), os.Getgid(), os.Args[1:], made, err, shell == nil, os.Getenv("GREETING"))
	})
	if err := http.ListenAndServe(":"+os.Getenv("PORT"), nil); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
