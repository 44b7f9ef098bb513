package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"

	"zwrm/internal/effect"
)

// lock is the lock file of a database, locked. The kernel gives the lock up when
// the process ends, however it ends. The file itself is never removed: another
// process may have opened it and be about to lock it.
type lock struct{ file *os.File }

// acquire locks the database, or returns a *LockedError that names the holder.
func acquire(path string, hook effect.Hook) (*lock, error) {
	var file *os.File
	err := effect.Do(hook, opLock, func() (err error) {
		file, err = os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("lock database %q: %w", path, err)
	}
	if err := flock(file, path, hook); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &lock{file}, nil
}

func flock(file *os.File, path string, hook effect.Hook) error {
	err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return &LockedError{Path: path, PID: holder(file)}
	}
	if err != nil {
		return fmt.Errorf("lock database %q: flock %q: %w", path, file.Name(), err)
	}
	if err := effect.Do(hook, opWritePID, func() error { return writePID(file) }); err != nil {
		return fmt.Errorf("lock database %q: %w", path, err)
	}
	return nil
}

// writePID writes over the old pid, then cuts: a disk that is full still has room for it.
func writePID(file *os.File) error {
	pid := strconv.Itoa(os.Getpid()) + "\n"
	if _, err := file.WriteAt([]byte(pid), 0); err != nil {
		return err
	}
	return file.Truncate(int64(len(pid)))
}

// holder returns the pid in the lock file, 0 when there is none to be read: its
// holder has locked the file and not yet written to it.
func holder(file *os.File) int {
	text, err := io.ReadAll(io.LimitReader(file, 32))
	if err != nil {
		return 0
	}
	line, _, _ := bytes.Cut(text, []byte("\n"))
	pid, err := strconv.Atoi(string(line))
	if err != nil {
		return 0
	}
	return pid
}

// release gives the lock up.
func (l *lock) release() error { return l.file.Close() }
