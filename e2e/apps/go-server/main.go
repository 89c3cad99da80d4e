// Command go-server answers with what it was asked.
package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
)

func main() {
	http.HandleFunc("GET /hello/{name}", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello %s\n", r.PathValue("name"))
	})
	http.HandleFunc("POST /echo", func(w http.ResponseWriter, r *http.Request) {
		// Answer while the question is still coming.
		if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
			log.Print(err)
		}
		w.Header().Set("Trailer", "X-Bytes")
		n, err := io.Copy(w, r.Body)
		if err != nil {
			log.Print(err)
		}
		w.Header().Set("X-Bytes", fmt.Sprint(n))
	})
	log.Fatal(http.ListenAndServe(":5000", nil))
}
