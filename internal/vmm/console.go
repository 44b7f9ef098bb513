package vmm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"zwrm/internal/effect"
)

// rotatedLog holds what Trim took out of the console log.
const rotatedLog = ConsoleLog + ".1"

// Console is the log of a guest's console. The VMM appends to it (O_APPEND) and
// keeps it open, so it cannot be renamed away: it is cut by copying and emptying.
//
//	console.log      written by the VMM
//	console.log.1    what was written before, from the last Trim
type Console struct{ dir string }

// NewConsole returns the console log in a VM's folder.
func NewConsole(dir string) Console { return Console{dir} }

// create makes an empty log when there is none, and gives it to the VM's user.
// That is done before a VMM starts, so that the VMM opens a file that is known to
// be one.
func (c Console) create(user User, hook effect.Hook) error {
	var log *os.File
	err := effect.Do(hook, opConsole, func() (err error) {
		log, err = openRegular(c.path(ConsoleLog), os.O_WRONLY|os.O_CREATE)
		return err
	})
	if err != nil {
		return fmt.Errorf("create console log: %w", err)
	}
	err = effect.Do(hook, opGiveConsole, func() error { return log.Chown(int(user.ID), int(user.ID)) })
	if err := errors.Join(err, log.Close()); err != nil {
		return fmt.Errorf("create console log: %w", err)
	}
	return nil
}

// Trim cuts a log that has more than limit bytes: its last part is kept as the
// rotated log, in place of the one before. Both together then have about limit
// bytes, and at most twice as many when the guest writes all the while.
//
// On a full disk the log is cut and nothing of it kept.
//
// What the guest writes between the end of the copy and the cut is lost. A crash
// between the two leaves the last part in both files, until the next Trim.
func (c Console) Trim(limit int64, hook effect.Hook) error {
	log, err := openRegular(c.path(ConsoleLog), os.O_RDWR)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("trim console log: %w", err)
	}
	defer log.Close()
	info, err := log.Stat()
	if err == nil && info.Size() > limit {
		err = c.rotate(log, info.Size()-limit, 2*limit, hook)
		// A full disk has no room for a copy, and this log may be what filled it.
		if err == nil || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
			err = effect.Do(hook, opCutLog, func() error { return log.Truncate(0) })
		}
	}
	if err != nil {
		return fmt.Errorf("trim console log: %w", err)
	}
	return nil
}

// rotate copies at most size bytes from the offset of log to the rotated log.
func (c Console) rotate(log *os.File, offset, size int64, hook effect.Hook) error {
	if _, err := log.Seek(offset, io.SeekStart); err != nil {
		return err
	}
	next := c.path(rotatedLog + ".new")
	if err := effect.Do(hook, opCopyLog, func() error { return copyTo(next, io.LimitReader(log, size)) }); err != nil {
		return err
	}
	return effect.Do(hook, opKeepLog, func() error { return os.Rename(next, c.path(rotatedLog)) })
}

// copyTo writes a file anew, or leaves none.
func copyTo(path string, from io.Reader) error {
	kept, err := openRegular(path, os.O_WRONLY|os.O_CREATE)
	if err != nil {
		return err
	}
	err = kept.Truncate(0) // what a crash here left
	if err == nil {
		_, err = io.Copy(kept, from)
	}
	if err = errors.Join(err, kept.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// Tail returns the last n lines, without control characters: they are shown to
// people on a terminal, and a guest wrote them.
func (c Console) Tail(n int) (string, error) {
	last, err := lastBytes(c.path(ConsoleLog), tailBytes)
	if err != nil {
		return "", fmt.Errorf("read console log: %w", err)
	}
	var before []byte
	if len(last) < tailBytes { // cut not long ago
		if before, err = lastBytes(c.path(rotatedLog), tailBytes-len(last)); err != nil {
			return "", fmt.Errorf("read console log: %w", err)
		}
	}
	return lastLines(append(before, last...), n), nil
}

// Messages returns the last n lines that the VMM of the folder said, as Tail does.
func Messages(dir string, n int) (string, error) {
	last, err := lastBytes(filepath.Join(dir, MessagesLog), tailBytes)
	if err != nil {
		return "", fmt.Errorf("read the VMM's messages: %w", err)
	}
	return lastLines(last, n), nil
}

// pollEvery is how often a follower looks for more. Polling sees what inotify
// does and needs no descriptor while nothing happens.
const pollEvery = 250 * time.Millisecond

// Copy writes the rotated log and the log to w, byte for byte. With follow it
// then goes on with what the guest writes, through cuts and restarts of the VMM,
// until ctx ends, which is no error. What is cut before w took it is missing.
func (c Console) Copy(ctx context.Context, w io.Writer, follow bool) error {
	_, err := copyFrom(ctx, c.path(rotatedLog), 0, w)
	var offset int64
	if err == nil {
		offset, err = copyFrom(ctx, c.path(ConsoleLog), 0, w)
	}
	if err == nil && !follow {
		err = ctx.Err()
	}
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for err == nil && follow && ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-ticker.C:
			offset, err = copyFrom(ctx, c.path(ConsoleLog), offset, w)
		}
	}
	if err != nil {
		return fmt.Errorf("copy console log: %w", err)
	}
	return nil
}

// copyFrom writes what a file has behind the offset to w and returns where it
// stopped. It does not wait for a guest that writes faster than w takes. A file
// that is shorter than the offset was cut, or is a new one: it is written from
// its start. A file that is not there is empty.
func copyFrom(ctx context.Context, path string, offset int64, w io.Writer) (int64, error) {
	file, err := openRegular(path, os.O_RDONLY)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return offset, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return offset, err
	}
	size := info.Size()
	if size < offset {
		offset = 0
	}
	for offset < size && ctx.Err() == nil {
		const chunk = 64 << 10
		n, err := io.Copy(w, io.NewSectionReader(file, offset, min(chunk, size-offset)))
		offset += n
		if err != nil || n == 0 {
			return offset, err // 0 bytes: cut while we read
		}
	}
	return offset, nil
}

func (c Console) path(name string) string { return filepath.Join(c.dir, name) }

// tailBytes is how much of the end of a file is looked at for its last lines.
const tailBytes = 64 << 10

// lastBytes returns at most n bytes from the end of a file, none when it is not there.
func lastBytes(path string, n int) ([]byte, error) {
	file, err := openRegular(path, os.O_RDONLY)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	start := max(0, info.Size()-int64(n))
	return io.ReadAll(io.NewSectionReader(file, start, int64(n)))
}

// lastLines returns the last n lines that are not blank.
func lastLines(data []byte, n int) string {
	text := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' {
			return -1
		}
		return r
	}, strings.ToValidUTF8(string(data), "?"))
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
