package build

import (
	"regexp"
	"slices"
	"strings"
)

// commandArgs turns the text of a command into arguments. A shell is used only for what needs one, and where it can be it
// is replaced by the command (exec): a shell in between costs memory and keeps signals from the app.
func commandArgs(text string) []string {
	text = strings.TrimSpace(text)
	words, how := splitWords(text)
	switch how {
	case plainWords:
		if isAssignment(words[0]) {
			return append([]string{"env"}, words...)
		}
		return words
	case oneCommand:
		if isAssignment(text) {
			return []string{"sh", "-c", "exec env " + text}
		}
		return []string{"sh", "-c", "exec " + text}
	}
	return []string{"sh", "-c", text}
}

// What it takes to run a text.
type shape int

const (
	script     shape = iota // several commands, or words that only a shell knows
	oneCommand              // one command, with something for a shell to fill in
	plainWords              // words, perhaps in quotes
)

// shellWords are commands and keywords that are part of the shell.
var shellWords = []string{"cd", "exec", "export", "set", "unset", "source", ".", "eval", "trap", "ulimit", "umask", "wait", "read", "exit", ":",
	"if", "for", "while", "until", "case", "time", "alias", "{", "!", "[["}

// splitWords splits a text as a shell would, and says whether that is all a shell would do with it.
func splitWords(text string) ([]string, shape) {
	var words []string
	var word strings.Builder
	how, inWord, quote := plainWords, false, byte(0)
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case quote == '\'' && c != '\'':
			word.WriteByte(c)
		case quote != 0 && c == quote:
			quote = 0
		case c == '$' || c == '`':
			how = min(how, oneCommand)
		case c == '\\' && i+1 < len(text) && (quote == 0 || strings.IndexByte("\"\\$`", text[i+1]) >= 0):
			i++
			word.WriteByte(text[i])
			inWord = true
		case quote == '"':
			word.WriteByte(c)
		case c == '\'' || c == '"':
			quote, inWord = c, true
		case strings.IndexByte(";&|()\n#", c) >= 0:
			return nil, script
		case strings.IndexByte("*?[]{}~<>!", c) >= 0:
			how, inWord = min(how, oneCommand), true
			word.WriteByte(c)
		case c == ' ' || c == '\t':
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		default:
			word.WriteByte(c)
			inWord = true
		}
	}
	if inWord {
		words = append(words, word.String())
	}
	if quote != 0 || len(words) == 0 && how == plainWords || len(words) > 0 && slices.Contains(shellWords, words[0]) {
		return nil, script
	}
	return words, how
}

var assignable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// isAssignment reports whether a command begins with a variable for its environment.
func isAssignment(text string) bool {
	name, _, ok := strings.Cut(text, "=")
	return ok && assignable.MatchString(name)
}

// joinWords writes arguments as a text that commandArgs reads back.
func joinWords(words []string) string {
	quoted := make([]string, len(words))
	for i, word := range words {
		quoted[i] = word
		if word == "" || strings.ContainsAny(word, " \t\n\"'\\$`;&|()<>*?[]{}~!#") {
			quoted[i] = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}
