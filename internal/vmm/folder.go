package vmm

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"zwrm/internal/effect"
)

// A VM's folder is its user's, so that the VMM can make its control socket there.
// A guest that broke into the VMM can put anything in it: links to files of the
// host, pipes that nobody reads, folders in folders without an end. zwrmd, which
// is root, follows no link there and waits for no pipe.

// PrepareFolder makes the folder of a VM, or takes up the one of its last VMM, and
// gives it to the VM's user, with a console log. Of what is in it only the console
// logs stay.
func PrepareFolder(dir string, user User, hook effect.Hook) error {
	if err := effect.Do(hook, opMakeFolder, func() error { return os.MkdirAll(dir, 0o700) }); err != nil {
		return fmt.Errorf("make the VM's folder: %w", err)
	}
	folder, err := openFolder(dir)
	if err != nil {
		return err
	}
	defer folder.Close()
	err = effect.Do(hook, opClearFolder, func() error {
		return empty(folder, func(name string) bool {
			return (name == ConsoleLog || name == rotatedLog) && plain(folder, name)
		})
	})
	if err == nil {
		err = effect.Do(hook, opGiveFolder, func() error { return folder.Chown(int(user.ID), int(user.ID)) })
	}
	if err != nil {
		return fmt.Errorf("prepare the VM's folder: %w", err)
	}
	return NewConsole(dir).create(user, hook)
}

// RemoveFolder removes the folder of a VM whose VMM is gone. That there is none is
// no error.
func RemoveFolder(dir string) error {
	folder, err := openFolder(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer folder.Close()
	if err := empty(folder, func(string) bool { return false }); err != nil {
		return fmt.Errorf("empty the VM's folder: %w", err)
	}
	return os.Remove(dir)
}

// openFolder opens a VM's folder itself, which is in a folder of root's.
func openFolder(dir string) (*os.File, error) {
	folder, err := os.OpenFile(dir, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("open the VM's folder: %w", err)
	}
	return folder, nil
}

// plain reports whether a name in the folder is a regular file with one name.
func plain(folder *os.File, name string) bool {
	var stat unix.Stat_t
	err := control(folder, func(fd int) error { return unix.Fstatat(fd, name, &stat, unix.AT_SYMLINK_NOFOLLOW) })
	return err == nil && stat.Mode&unix.S_IFMT == unix.S_IFREG && stat.Nlink == 1
}

// empty removes what is in the folder and not to be kept. Folders in it are
// emptied by bringing the folders they have up into this one: that takes as many
// descriptors and as much stack for a million that are in each other as for one,
// where going down into them, as os.RemoveAll does, ends zwrmd.
func empty(folder *os.File, keep func(name string) bool) error {
	moved := 0
	for {
		if _, err := folder.Seek(0, io.SeekStart); err != nil {
			return err
		}
		found, err := eachName(folder, func(name string) (bool, error) {
			if keep(name) {
				return false, nil
			}
			return true, remove(folder, name, func(sub *os.File, child string) error {
				moved++
				return move(sub, child, folder, ".moved-"+strconv.Itoa(moved))
			})
		})
		if err != nil || !found {
			return err
		}
	}
}

// eachName calls f for every name in a folder, in batches, and reports whether one
// of the calls did.
func eachName(folder *os.File, f func(name string) (bool, error)) (any bool, err error) {
	const batch = 1000
	for {
		names, err := folder.Readdirnames(batch)
		if errors.Is(err, io.EOF) {
			return any, nil
		}
		if err != nil {
			return any, err
		}
		for _, name := range names {
			did, err := f(name)
			if err != nil {
				return any, err
			}
			any = any || did
		}
	}
}

// remove removes a name from the folder. If it is a folder that has folders, up is
// called for those.
func remove(folder *os.File, name string, up func(sub *os.File, child string) error) error {
	err := unlink(folder, name, 0)
	if !errors.Is(err, unix.EISDIR) {
		return err
	}
	var sub *os.File
	err = control(folder, func(fd int) error {
		opened, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err == nil {
			sub = os.NewFile(uintptr(opened), name)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("open %q: %w", name, err)
	}
	defer sub.Close()
	for more := true; more; {
		if _, err := sub.Seek(0, io.SeekStart); err != nil {
			return err
		}
		more, err = eachName(sub, func(child string) (bool, error) {
			err := unlink(sub, child, 0)
			if errors.Is(err, unix.EISDIR) {
				err = up(sub, child)
			}
			return true, err
		})
		if err != nil {
			return err
		}
	}
	return unlink(folder, name, unix.AT_REMOVEDIR)
}

func unlink(folder *os.File, name string, flags int) error {
	err := control(folder, func(fd int) error { return unix.Unlinkat(fd, name, flags) })
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return &os.PathError{Op: "remove", Path: name, Err: err}
	}
	return nil
}

// move gives a folder another place. What has the new name already is replaced if
// it is an empty folder, else in the way.
func move(from *os.File, name string, to *os.File, as string) error {
	err := control(from, func(fromFD int) error {
		return control(to, func(toFD int) error { return unix.Renameat(fromFD, name, toFD, as) })
	})
	if err != nil {
		return &os.PathError{Op: "move", Path: name, Err: err}
	}
	return nil
}

// openRegular opens a file of a VM's folder. Anything but a regular file of one
// name is refused: a link in its place could lead zwrmd, which is root, to
// overwrite a file elsewhere, and a pipe to wait for ever.
func openRegular(path string, flags int) (*os.File, error) {
	file, err := os.OpenFile(path, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("%q is a symbolic link, not a file", path)
	}
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return nil, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !info.Mode().IsRegular() || !ok || stat.Nlink != 1 {
		file.Close()
		return nil, fmt.Errorf("%q is not a regular file with one name", path)
	}
	return file, nil
}
