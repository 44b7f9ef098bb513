package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxArgs bounds the arguments of an image, in bytes. The kernel takes 2048 on
// x86 (COMMAND_LINE_SIZE), and needs some for the network and the driver.
const maxArgs = 1024

// part is a file of an image to be, open.
type part struct {
	name string
	file *os.File
}

// open opens the files of the source, and refuses those that no VM could be started
// from. What it looked at is what is copied later, whatever its path leads to then.
func (s Source) open() (parts []part, err error) {
	defer func() {
		if err != nil {
			closeParts(parts)
		}
	}()
	if s.Kernel == "" {
		return nil, errors.New("no kernel named")
	}
	for _, p := range []struct{ name, path string }{{kernelFile, s.Kernel}, {initrdFile, s.Initrd}, {rootfsFile, s.Rootfs}} {
		if p.path == "" {
			continue
		}
		if !filepath.IsAbs(p.path) {
			return parts, fmt.Errorf("path %q of the %s is not absolute", p.path, p.name)
		}
		file, err := s.Opener.Open(p.path)
		if err != nil {
			return parts, fmt.Errorf("%s: %w", p.name, err)
		}
		parts = append(parts, part{p.name, file})
		if err := checkFile(file); err != nil {
			return parts, fmt.Errorf("%s: %w", p.name, err)
		}
	}
	if err := checkKernel(parts[0].file); err != nil {
		return parts, fmt.Errorf("kernel: %w", err)
	}
	return parts, checkArgs(s.Args)
}

func closeParts(parts []part) {
	for _, p := range parts {
		_ = p.file.Close() // only read
	}
}

func checkFile(file *os.File) error {
	info, err := file.Stat()
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%q is not a regular file", file.Name())
	case info.Size() == 0: // so are the files of /proc
		return fmt.Errorf("%q is empty", file.Name())
	}
	return nil
}

// checkKernel looks for the mark of a kernel: of Linux on x86 (Linux
// Documentation/arch/x86/boot.rst, offset 0x202) and on arm64
// (Documentation/arch/arm64/booting.rst, offset 56), of an ELF file, or of gzip.
func checkKernel(file *os.File) error {
	head := make([]byte, 0x206)
	n, err := file.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	head = head[:n]
	for _, mark := range []struct {
		offset int
		bytes  string
	}{{0x202, "HdrS"}, {0x38, "ARM\x64"}, {0, "\x7fELF"}, {0, "\x1f\x8b"}} {
		if len(head) >= mark.offset && bytes.HasPrefix(head[mark.offset:], []byte(mark.bytes)) {
			return nil
		}
	}
	return fmt.Errorf("%q is not a Linux kernel", file.Name())
}

func checkArgs(args string) error {
	if len(args) > maxArgs {
		return fmt.Errorf("arguments have %d bytes: at most %d are allowed", len(args), maxArgs)
	}
	if strings.ContainsFunc(args, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return errors.New("arguments have control characters")
	}
	if slices.ContainsFunc(strings.Fields(args), func(arg string) bool { return strings.HasPrefix(arg, "ip=") }) {
		return errors.New("arguments set ip=, which ZWRM sets for each VM")
	}
	return nil
}

// copyFile copies a file and has it on the disk when it returns. Everybody may read
// the copy, since VMMs do, who are not root; nobody but root gets as far as its folder.
func copyFile(ctx context.Context, to string, from *os.File) error {
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, untilDone{ctx, from})
	return errors.Join(err, out.Chmod(0o444), out.Sync(), out.Close())
}

// untilDone reads until its context ends: a root file system may be large.
type untilDone struct {
	ctx context.Context
	io.Reader
}

// Read reads, unless the context has ended.
func (r untilDone) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

func syncPath(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}
