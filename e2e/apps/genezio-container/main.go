// Command server is what the container runs. The test compiles it, as there is no image with a compiler.
package main

import (
	"fmt"
	"net/http"
	"os"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		dir, _ := os.Getwd()
		fmt.Fprint(w, "from the box in "+dir)
	})
	if err := http.ListenAndServe(":9000", nil); err != nil {
		panic(err)
	}
}
