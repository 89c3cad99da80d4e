package genezio

import (
	"strings"

	"github.com/lull-dev/lull/manifest"
)

// ParseEnv reads a file of variables, one NAME=value a line. A value may stand in single quotes, as it is, or in double
// quotes, with \n, \t, \" and \\; both may hold line ends. Elsewhere " #" begins a comment. file is the name that errors
// carry; they are a *manifest.Error and never hold a value.
func ParseEnv(data []byte, file string) (map[string]string, error) {
	env := map[string]string{}
	wrong := &manifest.Error{File: file}
	rest := strings.ReplaceAll(strings.TrimPrefix(string(data), "\ufeff"), "\r\n", "\n")
	for line := 1; rest != ""; {
		at := line
		var entry string
		entry, rest, _ = strings.Cut(rest, "\n")
		line++
		entry = strings.TrimSpace(entry)
		if entry == "" || strings.HasPrefix(entry, "#") {
			continue
		}
		name, value, ok := strings.Cut(strings.TrimPrefix(entry, "export "), "=")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if !ok || !shellName(name) {
			wrong.Problems = append(wrong.Problems, manifest.Problem{Line: at, Column: 1, Message: "is not NAME=value"})
			continue
		}
		if value == "" || value[0] != '"' && value[0] != '\'' {
			env[name] = uncommented(value)
			continue
		}
		whole := value[1:] + "\n" + rest
		text, length, closed := unquote(whole, value[0])
		if !closed || strings.ContainsRune(text, 0) {
			wrong.Problems = append(wrong.Problems, manifest.Problem{Line: at, Column: 1, Path: name, Message: "begins with a quote that does not end"})
			break
		}
		env[name] = text
		line += strings.Count(whole[:length], "\n")
		_, rest, _ = strings.Cut(whole[length:], "\n")
	}
	if len(wrong.Problems) > 0 {
		return nil, wrong
	}
	return env, nil
}

func uncommented(value string) string {
	if strings.HasPrefix(value, "#") {
		return ""
	}
	if i := strings.Index(value, " #"); i >= 0 {
		value = value[:i]
	}
	return strings.TrimSpace(strings.ReplaceAll(value, "\x00", ""))
}

// unquote reads up to the quote that ends the value, and says how long that was; closed is false if there is none.
func unquote(text string, quote byte) (value string, length int, closed bool) {
	var out strings.Builder
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == quote:
			return out.String(), i + 1, true
		case c == '\\' && quote == '"' && i+1 < len(text):
			i++
			switch text[i] {
			case 'n':
				out.WriteByte('\n')
			case 'r':
				out.WriteByte('\r')
			case 't':
				out.WriteByte('\t')
			case '"', '\\', '$':
				out.WriteByte(text[i])
			default:
				out.WriteString(text[i-1 : i+1])
			}
		default:
			out.WriteByte(c)
		}
	}
	return "", 0, false
}
