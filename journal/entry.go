// Package journal keeps what environments print: a bounded number of lines per app, in memory for a quick look and on
// disk for later.
package journal

import "time"

// Entry is one line of output.
type Entry struct {
	Time        time.Time `json:"time"`
	Environment string    `json:"environment"`
	Stream      string    `json:"stream"` // stdout, stderr, build, or lull for what the node itself has to say
	Text        string    `json:"text"`   // valid UTF-8 without its line end; may hold control characters
}

// StreamLull is the stream of what the node itself has to say.
const StreamLull = "lull"
