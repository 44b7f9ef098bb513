package nstest

import (
	"os"
	"testing"
)

// TempDir is t.TempDir with a short path, which leaves room for the name of a Unix
// socket, whose path has 107 bytes at most, and with folders that everybody may enter:
// t.TempDir's is in one of root's.
func TempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "zwrm")
	if err == nil {
		t.Cleanup(func() { os.RemoveAll(dir) })
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatalf("make folder: %v", err)
	}
	return dir
}
