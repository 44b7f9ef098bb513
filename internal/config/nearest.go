package config

import (
	"fmt"
	"strings"

	"github.com/BurntSushi/toml"
)

// suggestion returns what to do about an unknown name. best may be empty.
func suggestion(best string) string {
	if best == "" {
		return `remove it; "zwrmd --generate-config" prints all that is known`
	}
	return fmt.Sprintf("did you mean %q?", best)
}

// nearestKey returns the known key or section that an unknown one is most
// likely meant to be, or "". That is one with a similar name in the same section,
// else the only one with the same name in a section above or below.
func (l *loader) nearestKey(unknown toml.Key) string {
	last := len(unknown) - 1
	section, name := unknown[:last].String(), unknown[last]
	var siblings, namesakes []string
	for _, path := range l.paths() {
		switch {
		case parent(path) == section:
			siblings = append(siblings, lastName(path))
		case lastName(path) == strings.ToLower(name) && nested(parent(path), section):
			namesakes = append(namesakes, path)
		}
	}
	if best := nearest(name, siblings); best != "" {
		return strings.TrimPrefix(section+"."+best, ".")
	}
	if len(namesakes) == 1 {
		return namesakes[0]
	}
	return ""
}

// paths returns every key and every section.
func (l *loader) paths() []string {
	var paths []string
	known := map[string]bool{"": true}
	for _, s := range l.settings {
		for section := s.section(); !known[section]; section = parent(section) {
			known[section] = true
			paths = append(paths, section)
		}
		paths = append(paths, s.key)
	}
	return paths
}

// nested reports whether one of the sections lies in the other.
func nested(a, b string) bool {
	return a == "" || b == "" || strings.HasPrefix(a, b+".") || strings.HasPrefix(b, a+".")
}

// nearest returns the candidate that takes the fewest typing errors to become
// name, or "" when all are too far away to be meant. Case does not count.
func nearest(name string, candidates []string) string {
	limit := 1 + min(len(name)/4, 2)
	name = strings.ToLower(name)
	best := ""
	for _, candidate := range candidates {
		if gap := len(candidate) - len(name); max(gap, -gap) > limit {
			continue // also keeps the work small when the name is very long
		}
		if d := distance(name, strings.ToLower(candidate)); d <= limit {
			best, limit = candidate, d-1
		}
	}
	return best
}

// distance counts the typing errors between two words: a letter too many, a
// letter missing, a wrong letter, or two neighbours swapped (the restricted
// Damerau-Levenshtein distance).
func distance(a, b string) int {
	above, row := make([]int, len(b)+1), make([]int, len(b)+1)
	var aboveThat []int
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		aboveThat, above, row = above, row, make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			wrong := 1
			if a[i] == b[j] {
				wrong = 0
			}
			row[j+1] = min(above[j+1]+1, row[j]+1, above[j]+wrong)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], aboveThat[j-1]+1)
			}
		}
	}
	return row[len(b)]
}
