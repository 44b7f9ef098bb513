package config

import (
	"reflect"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
)

// leaves returns a pointer to every field of a struct that is not a struct of
// this package itself, by its Go name, as in "Network.Bridge.Name".
func leaves(v reflect.Value, name string) map[string]any {
	found := map[string]any{}
	for i := range v.NumField() {
		field, path := v.Field(i), strings.TrimPrefix(name+"."+v.Type().Field(i).Name, ".")
		pkg := field.Type().PkgPath()
		if field.Kind() == reflect.Struct && (pkg == "" || pkg == reflect.TypeFor[Config]().PkgPath()) {
			for name, leaf := range leaves(field, path) {
				found[name] = leaf
			}
			continue
		}
		found[path] = field.Addr().Interface()
	}
	return found
}

// keyOf returns the key of a field: "Network.Bridge.TokenFile" is
// "network.bridge.token_file".
func keyOf(name string) string {
	var key strings.Builder
	for i := range len(name) {
		upper := name[i] >= 'A' && name[i] <= 'Z'
		lower := func(i int) bool { return i >= 0 && i < len(name) && name[i] >= 'a' && name[i] <= 'z' }
		if upper && (lower(i-1) || i > 0 && name[i-1] != '.' && lower(i+1)) { // behind "uid" of UIDBase, too
			key.WriteByte('_')
		}
		key.WriteString(strings.ToLower(name[i : i+1]))
	}
	return key.String()
}

// TestEveryFieldIsASetting fails when a field of raw has no key, two keys, a key
// of another name, or a type that no value can be stored in.
func TestEveryFieldIsASetting(t *testing.T) {
	var r raw
	settings := r.settings()
	fields := leaves(reflect.ValueOf(&r).Elem(), "")
	for name, field := range fields {
		var keys []string
		for _, s := range settings {
			if s.field == field {
				keys = append(keys, s.key)
			}
		}
		if len(keys) != 1 || keys[0] != keyOf(name) {
			t.Errorf("raw field %s has the keys %q, not %q", name, keys, keyOf(name))
		}
		switch field.(type) {
		case *string, *bool, *int64, *[]string:
		default:
			t.Errorf("raw field %s is of type %T, which nothing can be stored in", name, field)
		}
	}
	if len(settings) != len(fields) {
		t.Errorf("%d keys for %d fields", len(settings), len(fields))
	}
	for _, s := range settings {
		if !s.setText(s.def) {
			t.Errorf("%s: the default %q is not of the key's type", s.key, s.def)
		}
	}
}

// TestEveryFieldOfConfigIsSet fails when a field of Config is left empty by a
// file that sets every key.
func TestEveryFieldOfConfigIsSet(t *testing.T) {
	config, err := Parse(fullFile, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, field := range leaves(reflect.ValueOf(&config).Elem(), "") {
		if reflect.ValueOf(field).Elem().IsZero() {
			t.Errorf("%s is empty", name)
		}
	}
}

// TestDefaultFile fails when the default file misses a key, has one twice or one
// too many, gives another default than the table, or has a key without a comment.
func TestDefaultFile(t *testing.T) {
	var written, standard loader
	written.settings, standard.settings = written.raw.settings(), standard.raw.settings()
	if problem := written.readTOML("line ", Default()); problem != nil || len(written.problems) > 0 {
		t.Fatal(problem, written.problems)
	}
	for _, s := range standard.settings {
		s.setText(s.def)
	}
	var tree map[string]any
	meta, err := toml.Decode(Default(), &tree)
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range standard.settings {
		if !meta.IsDefined(strings.Split(s.key, ".")...) {
			t.Errorf("%s is not in the default file", s.key)
		}
		want, got := reflect.ValueOf(s.field).Elem(), reflect.ValueOf(written.settings[i].field).Elem()
		if want.Kind() == reflect.Slice && want.Len() == 0 && got.Len() == 0 {
			continue
		}
		if !reflect.DeepEqual(want.Interface(), got.Interface()) {
			t.Errorf("%s is %v in the default file and %v in the table", s.key, got, want)
		}
	}
	lines := strings.Split(Default(), "\n")
	for i, line := range lines {
		if name, _, isKey := strings.Cut(line, " = "); isKey && !strings.HasPrefix(line, "#") && !strings.HasPrefix(lines[i-1], "# ") {
			t.Errorf("%s has no comment", name)
		}
		if len(line) > 85 {
			t.Errorf("line %d has %d characters", i+1, len(line))
		}
	}
}

func TestEnvName(t *testing.T) {
	names := map[string]string{}
	var r raw
	for _, s := range r.settings() {
		if other, twice := names[envName(s.key)]; twice {
			t.Errorf("%s and %s share the variable %s", s.key, other, envName(s.key))
		}
		names[envName(s.key)] = s.key
	}
	if got := names["ZWRM_NETWORK_BRIDGE_NAME"]; got != "network.bridge.name" {
		t.Errorf("ZWRM_NETWORK_BRIDGE_NAME sets %q", got)
	}
}
