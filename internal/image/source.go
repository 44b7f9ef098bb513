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

// part is a file of an image.
type part struct{ name, path string }

func (s Source) files() []part {
	return []part{{kernelFile, s.Kernel}, {initrdFile, s.Initrd}, {rootfsFile, s.Rootfs}}
}

// check refuses a source that no VM could be started from.
func (s Source) check() error {
	if s.Kernel == "" {
		return errors.New("no kernel named")
	}
	for _, p := range s.files() {
		if p.path == "" {
			continue
		}
		if !filepath.IsAbs(p.path) {
			return fmt.Errorf("path %q of the %s is not absolute", p.path, p.name)
		}
		if err := checkFile(p.path); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	if err := checkKernel(s.Kernel); err != nil {
		return fmt.Errorf("kernel: %w", err)
	}
	return checkArgs(s.Args)
}

func checkFile(path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%q is not a regular file", path)
	case info.Size() == 0:
		return fmt.Errorf("%q is empty", path)
	}
	return nil
}

// checkKernel looks for the mark of a kernel: of Linux on x86 (Linux
// Documentation/arch/x86/boot.rst, offset 0x202) and on arm64
// (Documentation/arch/arm64/booting.rst, offset 56), of an ELF file, or of gzip.
func checkKernel(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	head := make([]byte, 0x206)
	n, err := io.ReadFull(file, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
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
	return fmt.Errorf("%q is not a Linux kernel", path)
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

// copyFile copies a file and has it on the disk when it returns.
func copyFile(ctx context.Context, to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, untilDone{ctx, in})
	return errors.Join(err, out.Sync(), out.Close())
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
