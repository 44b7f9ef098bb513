package config

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/BurntSushi/toml"
)

// readTOML stores the values of the file and reports keys that are unknown or
// of a wrong type. It returns a problem of its own when the text is not TOML.
//
// The text goes through a tree of maps, since the decoder would stop at the
// first value of a wrong type and take "Subnet" for "subnet".
func (l *loader) readTOML(place, text string) *Problem {
	tree := map[string]any{}
	meta, err := toml.Decode(text, &tree)
	if err != nil {
		return syntaxProblem(place, err)
	}
	sections := map[string]bool{} // of the paths read so far: whether keys of ours stand below
	for _, key := range meta.Keys() {
		// Each part by itself: the parser lists [network.bridge] without [network].
		for depth := 1; depth <= len(key); depth++ {
			path := key[:depth]
			isSection, known := sections[path.String()]
			if !known {
				isSection = l.readKey(path, lookup(tree, path))
				sections[path.String()] = isSection
			}
			if !isSection {
				break
			}
		}
	}
	return nil
}

func syntaxProblem(place string, err error) *Problem {
	problem := &Problem{Key: place + "1", What: err.Error(),
		Mend: `"zwrmd --generate-config" prints a file of the right form`}
	var syntax toml.ParseError
	if errors.As(err, &syntax) {
		problem.Key = place + strconv.Itoa(syntax.Position.Line)
		problem.What = printable(syntax.Message) // may quote a line break
	}
	return problem
}

// lookup returns the value at the path. Every name but the last is a table.
func lookup(tree map[string]any, path toml.Key) any {
	last := len(path) - 1
	for _, name := range path[:last] {
		tree, _ = tree[name].(map[string]any)
	}
	return tree[path[last]]
}

// readKey stores or reports one value. It reports whether the value is a
// section, whose keys come next.
func (l *loader) readKey(path toml.Key, value any) bool {
	key := path.String()
	if s, ok := l.setting(key); ok {
		l.setTOML(s, value)
		return false
	}
	_, isTable := value.(map[string]any)
	switch {
	case !l.isSection(key):
		// The value is not shown: it may be a secret that has no place here.
		what := "unknown key"
		if isTable {
			what = "unknown section"
		}
		l.report(Problem{Key: printable(key), What: what, Mend: suggestion(l.nearestKey(path))})
		return false
	case !isTable:
		l.report(Problem{Key: key, Value: show(value), What: typeOf(value) + ", not a section",
			Mend: fmt.Sprintf("write its keys below a line [%s]", key)})
		return false
	}
	return true
}

// setTOML stores a value of the file in its setting, or reports its type.
func (l *loader) setTOML(s setting, value any) {
	ok := true
	switch field := s.field.(type) {
	case *string:
		ok = assign(field, value)
	case *bool:
		ok = assign(field, value)
	case *int64:
		ok = assign(field, value)
	case *[]string:
		var items []any
		if ok = assign(&items, value); ok {
			*field = l.strings(s.key, items)
		}
	}
	if !ok {
		name, form := s.typeName()
		l.report(Problem{Key: s.key, Value: show(value), What: typeOf(value) + ", not " + name, Mend: form})
	}
}

func assign[T any](field *T, value any) bool {
	typed, ok := value.(T)
	if ok {
		*field = typed
	}
	return ok
}

// strings returns the items and reports those that are not strings. They stay in
// the list, empty, so that the place of an item in a later message is right.
func (l *loader) strings(key string, items []any) []string {
	texts := make([]string, len(items))
	for i, item := range items {
		if !assign(&texts[i], item) {
			l.report(Problem{Key: fmt.Sprintf("%s[%d]", key, i), Value: show(item),
				What: typeOf(item) + ", not a string", Mend: "put it in quotes"})
		}
	}
	return texts
}
