package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// Load reads the configuration file and lays the environment (of the form of
// os.Environ) over it. The error is an *Errors unless the file cannot be read.
func Load(path string, env []string) (Config, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Config{}, fmt.Errorf("read configuration: %w; \"zwrmd --generate-config\" prints one to start from", err)
	}
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	return load(path+":", string(text), env)
}

// Parse is Load for the text of a file. The error is an *Errors.
func Parse(text string, env []string) (Config, error) {
	return load("line ", text, env)
}

// load does the work of Load. place stands before the line number in the
// message about a syntax error.
func load(place, text string, env []string) (Config, error) {
	var l loader
	l.settings = l.raw.settings()
	l.variables = map[string]string{}
	for _, s := range l.settings {
		s.setText(s.def)
	}
	if problem := l.readTOML(place, text); problem != nil {
		// Half a file says nothing about the values of the other half.
		return Config{}, &Errors{[]Problem{*problem}}
	}
	l.readEnv(env)
	config := l.config()
	if len(l.problems) > 0 {
		return Config{}, &Errors{l.problems}
	}
	return config, nil
}

// loader is the state of one load.
type loader struct {
	raw       raw
	settings  []setting         // of raw
	variables map[string]string // key -> environment variable that set it
	problems  []Problem
}

// report adds a problem and says which variable its value comes from.
func (l *loader) report(p Problem) {
	key, _, _ := strings.Cut(p.Key, "[") // an item of a list comes from where the list does
	p.Env = l.variables[key]
	l.problems = append(l.problems, p)
}

// faulty reports whether one of the keys has a problem, so that what it is
// compared with must not be blamed.
func (l *loader) faulty(keys ...string) bool {
	return slices.ContainsFunc(l.problems, func(p Problem) bool { return slices.Contains(keys, p.Key) })
}

// setting returns the setting of the key, if there is one.
func (l *loader) setting(key string) (setting, bool) {
	i := slices.IndexFunc(l.settings, func(s setting) bool { return s.key == key })
	if i < 0 {
		return setting{}, false
	}
	return l.settings[i], true
}

// isSection reports whether keys stand below the path.
func (l *loader) isSection(path string) bool {
	return slices.ContainsFunc(l.settings, func(s setting) bool { return strings.HasPrefix(s.key, path+".") })
}
