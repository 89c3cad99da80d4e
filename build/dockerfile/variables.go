package dockerfile

import (
	"runtime"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/shell"

	"github.com/lull-dev/lull"
)

// variables are what a $NAME can stand for, KEY=value; of two with the same key the later one counts.
type variables struct {
	escape rune
	list   []string
}

// platformVariables are there without an ARG before the first FROM, and after an ARG without a value in a stage.
func platformVariables() []string {
	arch := runtime.GOARCH
	var list []string
	for _, of := range []string{"TARGET", "BUILD"} {
		list = append(list, of+"PLATFORM=linux/"+arch, of+"OS=linux", of+"ARCH="+arch, of+"VARIANT=")
	}
	return list
}

func (v variables) withPlatform() variables {
	return variables{v.escape, slices.Concat(platformVariables(), v.list)}
}

func (v *variables) set(key, value string) {
	v.list = slices.DeleteFunc(v.list, func(entry string) bool { return strings.HasPrefix(entry, key+"=") })
	v.list = append(v.list, key+"="+value)
}

func (v variables) get(key string) (string, bool) {
	for _, entry := range slices.Backward(v.list) {
		if value, ok := strings.CutPrefix(entry, key+"="); ok {
			return value, true
		}
	}
	return "", false
}

// size is how much all of them hold.
func (v variables) size() (size int) {
	for _, entry := range v.list {
		size += len(entry)
	}
	return size
}

// expand replaces the variables in a word, and removes its quotes.
func (v variables) expand(word string) (string, error) {
	lex, err := v.lexer(word)
	if err != nil {
		return "", err
	}
	text, _, err := lex.ProcessWord(word, shell.EnvsFromSlice(v.list))
	return text, bounded(err, text)
}

// expandRaw replaces the variables and leaves the quotes.
func (v variables) expandRaw(text string) (string, error) {
	lex, err := v.lexer(text)
	if err != nil {
		return "", err
	}
	lex.RawQuotes, lex.RawEscapes = true, true
	text, _, err = lex.ProcessWord(text, shell.EnvsFromSlice(v.list))
	return text, bounded(err, text)
}

// words replaces the variables in a text and splits it.
func (v variables) words(text string) ([]string, error) {
	lex, err := v.lexer(text)
	if err != nil {
		return nil, err
	}
	words, err := lex.ProcessWords(text, shell.EnvsFromSlice(v.list))
	return words, bounded(err, strings.Join(words, " "))
}

// lexer refuses what could become very long: each variable in the text may stand for all that variables hold.
func (v variables) lexer(text string) (*shell.Lex, error) {
	if len(text) > maxWord || v.size() > maxWord || strings.Count(text, "$")*v.size() > 256*maxWord {
		return nil, invalid("", "a text with variables is longer than %s", lull.Size(maxWord))
	}
	return shell.NewLex(v.escape), nil
}

func bounded(err error, text string) error {
	switch {
	case err != nil:
		return invalid("", "%s", err)
	case len(text) > maxWord:
		return invalid("", "a text with variables is longer than %s", lull.Size(maxWord))
	}
	return nil
}
