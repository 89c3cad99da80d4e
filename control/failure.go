package control

import (
	"errors"
	"strings"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/manifest"
)

// failure is an error on its way through the API.
type failure struct {
	Kind     lull.Kind `json:"kind"`
	Message  string    `json:"message"`
	Hint     string    `json:"hint,omitempty"`
	File     string    `json:"file,omitempty"` // that the problems are in
	Problems []problem `json:"problems,omitempty"`
}

// problem is a manifest.Problem.
type problem struct {
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Path    string `json:"path,omitempty"`
	Message string `json:"message"`
}

// failed is the body of an answer that is an error.
type failed struct {
	Error *failure `json:"error"`
}

// newFailure keeps of an error what the other side can use.
func newFailure(err error) *failure {
	f := &failure{Kind: lull.KindOf(err), Message: err.Error(), Hint: lull.HintOf(err)}
	var broken *manifest.Error
	if errors.As(err, &broken) {
		f.File = broken.File
		for _, p := range broken.Problems {
			f.Problems = append(f.Problems, problem{Line: p.Line, Column: p.Column, Path: p.Path, Message: p.Message})
		}
	}
	return f
}

// err is the error that the failure was made of, as far as it can be known. It is or wraps a *lull.Error; with problems it
// also wraps a *manifest.Error.
func (f *failure) err() error {
	err := &lull.Error{Kind: f.Kind, Message: strings.ToValidUTF8(f.Message, "\uFFFD"), Hint: f.Hint}
	if err.Kind == "" {
		err.Kind = lull.KindInternal
	}
	if err.Message == "" {
		err.Message = "the node answered with an error that says nothing"
	}
	if len(f.Problems) > 0 {
		broken := &manifest.Error{File: f.File}
		for _, p := range f.Problems {
			broken.Problems = append(broken.Problems,
				manifest.Problem{Line: p.Line, Column: p.Column, Path: p.Path, Message: p.Message})
		}
		err.Err = broken
	}
	return err
}

// line is one of the lines with which a deploy or rollback is answered: events, and then one of the other two. A line with
// none of them says that the node is still there.
type line struct {
	Event *Event    `json:"event,omitempty"`
	Done  *Deployed `json:"done,omitempty"`
	Error *failure  `json:"error,omitempty"`
}

// logLine is one of the lines with which a question for logs is answered.
type logLine struct {
	Entry *LogEntry `json:"entry,omitempty"`
	Error *failure  `json:"error,omitempty"`
}
