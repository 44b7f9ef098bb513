package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte(fullFile), 0o600); err != nil {
		t.Fatal(err)
	}
	config, err := Load(path, []string{"ZWRM_VMM_DRIVER=auto"})
	if err != nil {
		t.Fatal(err)
	}
	want := full(t)
	want.VMM.Driver = "auto"
	if !reflect.DeepEqual(config, want) {
		t.Errorf("got  %+v\nwant %+v", config, want)
	}
}

func TestLoadNamesTheFileOfASyntaxError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte("[network]\n\nsubnet 3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Load(path, nil)
	var problems *Errors
	if !errors.As(err, &problems) {
		t.Fatalf("error is %v", err)
	}
	if !strings.HasPrefix(err.Error(), path+":3: expected '.' or '='") {
		t.Errorf("error is %v", err)
	}
}

func TestLoadUnreadable(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "config.toml")
	_, err := Load(missing, nil)
	want := "read configuration: open " + missing + `: no such file or directory; "zwrmd --generate-config" prints one to start from`
	if !errors.Is(err, fs.ErrNotExist) || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	_, err = Load(dir, nil)
	if want := "read configuration: read " + dir + ": is a directory"; err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}
