package powercut_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	_ "modernc.org/sqlite" // the driver

	"zwrm/internal/image"
	"zwrm/internal/model"
	"zwrm/internal/store"
)

// contents is what zwrmd would find on a disk.
type contents struct {
	world
	resting map[int]bool // slots in quarantine
}

// read takes a disk that lost its power, has its file system recovered, and reads
// what zwrmd left. A file system or database that is not whole is an error.
func read(dir string, disk []byte) (contents, error) {
	dir, err := os.MkdirTemp(dir, "read")
	if err != nil {
		return contents{}, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "disk")
	if err := writeSparse(path, disk); err != nil {
		return contents{}, err
	}
	// -p replays the journal, and gives up where there is more to mend (e2fsck(8)).
	if out, err := exec.Command("e2fsck", "-fp", path).CombinedOutput(); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 1 {
			return contents{}, fmt.Errorf("file system is not whole: %w: %s", err, out)
		}
	}
	files := filepath.Join(dir, "files")
	if err := os.Mkdir(files, 0o700); err != nil {
		return contents{}, err
	}
	if out, err := exec.Command("debugfs", "-R", "rdump / "+files, path).CombinedOutput(); err != nil {
		return contents{}, fmt.Errorf("read file system: %w: %s", err, out)
	}
	found, err := readDatabase(filepath.Join(files, "state.db"))
	if err != nil {
		return contents{}, fmt.Errorf("database: %w", err)
	}
	images, err := image.New(filepath.Join(files, "images"), nil).List()
	if err != nil {
		return contents{}, err
	}
	for _, img := range images {
		found.images[string(img.Name)] = true
	}
	return found, nil
}

// writeSparse writes a file without its zeroes, which are most of a disk.
func writeSparse(path string, content []byte) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	const block = 64 << 10
	nothing := make([]byte, block)
	for at := 0; at < len(content) && err == nil; at += block {
		if part := content[at:min(at+block, len(content))]; !bytes.Equal(part, nothing[:len(part)]) {
			_, err = file.WriteAt(part, int64(at))
		}
	}
	return errors.Join(err, file.Truncate(int64(len(content))), file.Close())
}

// readDatabase reads it as zwrmd does, and then has SQLite look at every page.
func readDatabase(path string) (contents, error) {
	ctx := context.Background()
	db, err := store.Open(ctx, path, nil)
	if err != nil {
		return contents{}, err
	}
	state, err := db.State(ctx)
	if err := errors.Join(err, db.Close()); err != nil {
		return contents{}, err
	}
	if err := checkIntegrity(path); err != nil {
		return contents{}, err
	}
	return contentsOf(state), nil
}

func checkIntegrity(path string) error {
	db, err := sql.Open("sqlite", path)
	if err != nil {
		return err
	}
	defer db.Close()
	var finding string
	if err := db.QueryRow("PRAGMA integrity_check(1)").Scan(&finding); err != nil {
		return err
	}
	if finding != "ok" {
		return fmt.Errorf("integrity_check: %s", finding)
	}
	var orphans int
	if err := db.QueryRow("SELECT count(*) FROM pragma_foreign_key_check").Scan(&orphans); err != nil {
		return err
	}
	if orphans != 0 {
		return fmt.Errorf("%d rows belong to nobody", orphans)
	}
	return nil
}

// contentsOf returns what zwrmd makes of the rows when it starts: an app's row decides,
// so VMs past its scale go, as do those that are on their way out.
func contentsOf(state store.State) contents {
	found := contents{world{map[string]app{}, map[string]vm{}, map[string]bool{}}, map[int]bool{}}
	for _, a := range state.Apps {
		if a.Spec.Image != "" {
			found.apps[string(a.Name)] = app{a.Spec.Scale, a.Spec.MemoryMiB}
		}
	}
	for _, v := range state.VMs {
		past := !v.Attachment && string(v.Name) >= fmt.Sprintf("%s-%d", v.AppName, found.apps[string(v.AppName)].scale)
		if v.State != model.Stopping && !past {
			found.vms[string(v.Name)] = vm{string(v.AppName), v.Attachment, int(v.Slot)}
		}
	}
	for _, rest := range state.Released {
		found.resting[int(rest.Slot)] = true
	}
	return found
}
