package vmm

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestFind(t *testing.T) {
	root := t.TempDir()
	for _, name := range []string{"web-0", "web-1", "empty"} {
		if err := os.Mkdir(filepath.Join(root, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	// Its child works in the folder too, but is no VMM.
	parent := launch(t, filepath.Join(root, "web-0"), "sh", "-c", "sleep 60 & wait")
	t.Cleanup(func() { unix.Kill(-parent.Identity().PID, unix.SIGKILL) }) // a session is a process group, too
	plain := launch(t, filepath.Join(root, "web-1"), "sleep", "1000")
	launch(t, t.TempDir(), "sleep", "1000") // elsewhere
	tests := []struct {
		name, root string
	}{
		{"plain", root},
		{"by a link", filepath.Join(t.TempDir(), "link")},
	}
	if err := os.Symlink(root, tests[1].root); err != nil {
		t.Fatal(err)
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			found, err := Find(test.root)
			if err != nil {
				t.Fatal(err)
			}
			if len(found) != 2 || found["web-0"] != parent.Identity() || found["web-1"] != plain.Identity() {
				t.Errorf("found %v, want web-0 %v and web-1 %v", found, parent.Identity(), plain.Identity())
			}
		})
	}
	if found, err := Find(filepath.Join(root, "none")); err != nil || len(found) != 0 {
		t.Errorf("Find where there is no folder: %v, %v", found, err)
	}
}
