package manifest

import (
	"reflect"
	"slices"
	"strings"

	"github.com/lull-dev/lull"
)

// meant are words that other tools use for a key of ours.
var meant = map[string]string{
	"command": "run", "cmd": "run", "start": "run", "entrypoint": "run", "environment": "env", "replicas": "scale.max",
	"instances": "scale.max", "healthcheck": "ready", "health": "ready", "hosts": "domains", "network": "egress",
	"limits": "resources", "crons": "schedules", "cron": "schedules",
}

// unknown is the message about a key that does not exist in the group at path.
func unknown(name, path string, fields map[string]reflect.Value) string {
	message := "is not a known key"
	if guess := guess(name, path, fields); guess != "" {
		return message + ": did you mean " + guess + "?"
	}
	if path != "" {
		return message + ": " + path + " has " + strings.Join(sortedNames(fields), ", ")
	}
	return message
}

// guess returns the key that was probably meant, or "".
func guess(name, path string, fields map[string]reflect.Value) string {
	word := strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(name))
	best, bestDistance := "", max(1, len(word)/3)+1
	for _, candidate := range sortedNames(fields) {
		if distance := editDistance(word, candidate); distance < bestDistance {
			best, bestDistance = candidate, distance
		}
	}
	switch {
	case best != "":
		return join(path, best)
	case path == "" && meant[word] != "":
		return meant[word]
	}
	return elsewhere(word)
}

// elsewhere finds a key of that name in another group: memory is resources.memory.
func elsewhere(word string) string {
	defaults := lull.DefaultManifest()
	top := reflect.ValueOf(&defaults).Elem()
	fields := fieldsOf(top)
	for _, group := range sortedNames(fields) {
		if group == word {
			return group
		}
		if field := fields[group]; field.Kind() == reflect.Struct && slices.Contains(names(field), word) {
			return group + "." + word
		}
	}
	return ""
}

func names(v reflect.Value) []string { return sortedNames(fieldsOf(v)) }

func sortedNames(fields map[string]reflect.Value) []string {
	sorted := make([]string, 0, len(fields))
	for name := range fields {
		sorted = append(sorted, name)
	}
	slices.Sort(sorted)
	return sorted
}

// editDistance counts the letters to insert, delete, replace or swap with their neighbour to turn a into b.
func editDistance(a, b string) int {
	if len(a) > 40 || len(b) > 40 {
		return 40
	}
	var rows [42][42]int
	for i := range len(a) + 1 {
		for j := range len(b) + 1 {
			switch {
			case i == 0 || j == 0:
				rows[i][j] = i + j
			case a[i-1] == b[j-1]:
				rows[i][j] = rows[i-1][j-1]
			default:
				rows[i][j] = 1 + min(rows[i-1][j], rows[i][j-1], rows[i-1][j-1])
			}
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
