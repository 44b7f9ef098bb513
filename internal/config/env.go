package config

import "strings"

// envPrefix begins the variables of the daemon. ZWRM_SOCKET, which has no
// section, is the command line's.
const envPrefix = "ZWRM_"

// envName returns the variable of a key or the beginning of those of a section:
// "network.bridge.name" is ZWRM_NETWORK_BRIDGE_NAME.
func envName(path string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(path, ".", "_"))
}

// readEnv stores the values of the environment and reports variables that are of
// a section but of no key of it. It ignores every other variable.
func (l *loader) readEnv(env []string) {
	byName := map[string]setting{}
	for _, s := range l.settings {
		byName[envName(s.key)] = s
	}
	for _, variable := range env {
		name, text, _ := strings.Cut(variable, "=")
		s, ok := byName[name]
		if !ok {
			l.reportVariable(name)
			continue
		}
		l.variables[s.key] = name
		if !s.setText(text) {
			kind, form := s.typeName()
			l.report(Problem{Key: s.key, Value: quote(text), What: "not " + kind, Mend: form})
		}
	}
}

// reportVariable reports a variable that looks like one of ours and is none. A
// misspelt section goes by unseen: other programs may have variables in ZWRM_.
func (l *loader) reportVariable(variable string) {
	rest, ok := strings.CutPrefix(variable, envPrefix)
	section, name, split := strings.Cut(rest, "_")
	if !ok || !split {
		return
	}
	prefix := envPrefix + section + "_"
	var names []string
	for _, s := range l.settings {
		if known, ok := strings.CutPrefix(envName(s.key), prefix); ok {
			names = append(names, known)
		}
	}
	if len(names) == 0 {
		return // not a section
	}
	best := nearest(name, names)
	if best != "" {
		best = prefix + best
	}
	l.report(Problem{Key: printable(variable), What: "unknown variable", Mend: suggestion(best)})
}
