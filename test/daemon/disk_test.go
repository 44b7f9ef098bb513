package daemon_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"zwrm/test/zwrmtest"
)

// The disk that is filled or made read-only while zwrmd works is in test/powercut,
// which has a whole machine for it. Here is what happens at the start.

// mountDisk puts a disk of its own in place of a folder.
func mountDisk(t *testing.T, dir string, flags uintptr) {
	t.Helper()
	must(t, os.MkdirAll(dir, 0o700))
	if err := unix.Mount("disk", dir, "tmpfs", flags, "size=8m"); err != nil {
		t.Fatalf("mount disk on %q: %v", dir, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %q: %v", dir, err)
		}
	})
}

// fill leaves no byte of a disk free, and returns the file that does.
func fill(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "ballast")
	file, err := os.Create(path)
	must(t, err)
	defer file.Close()
	for err == nil {
		_, err = file.Write(bytes.Repeat([]byte("x"), 4096))
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("fill disk: %v", err)
	}
	return path
}

// TestStartOnFullDisk: zwrmd says that the disk is full, makes no network, and starts
// once there is room, with all that was there.
func TestStartOnFullDisk(t *testing.T) {
	t.Parallel()
	for name, had := range map[string]bool{"first start": false, "later start": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := zwrmtest.NewHost(t)
			d := h.NewDaemon(t, private())
			mountDisk(t, filepath.Dir(d.Database), 0)
			if had {
				d.Start(t)
				d.Attach(t, "one", "web")
				d.Stop(t)
			}
			ballast := fill(t, filepath.Dir(d.Database))
			before := h.Dump(t)
			r := d.Run(t)
			if r.Status != failed {
				t.Errorf("exit status %d, want %d", r.Status, failed)
			}
			contains(t, "stderr", r.Stderr, d.Database)
			if !bytes.Contains([]byte(r.Stderr), []byte("is full")) && !bytes.Contains([]byte(r.Stderr), []byte("no space left")) {
				t.Errorf("zwrmd does not say that the disk is full: %s", r.Stderr)
			}
			h.Same(t, before)
			must(t, os.Remove(ballast))
			d.Start(t)
			if got := len(d.VMs(t)) == 1; got != had {
				t.Errorf("after there is room the attachment is there: %t, want %t", got, had)
			}
		})
	}
}

// TestStartOnReadOnlyDisk: zwrmd says that the disk is read-only, and makes no network.
func TestStartOnReadOnlyDisk(t *testing.T) {
	t.Parallel()
	h := zwrmtest.NewHost(t)
	d := h.Start(t, private())
	d.Attach(t, "one", "web")
	d.Stop(t)
	dir := filepath.Dir(d.Database)
	must(t, unix.Mount(dir, dir, "", unix.MS_BIND, ""))
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }) // done below, unless that fails
	must(t, unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	before := h.Dump(t)
	r := d.Run(t)
	if r.Status != failed {
		t.Errorf("exit status %d, want %d", r.Status, failed)
	}
	contains(t, "stderr", r.Stderr, d.Database, "read-only")
	h.Same(t, before)
	must(t, unix.Unmount(dir, 0))
	d.Start(t)
	if got := len(d.VMs(t)); got != 1 {
		t.Errorf("after the disk can be written there are %d VMs, want 1", got)
	}
}

// TestImagesDiskFull: images have a disk of their own, which is full. That refuses
// images only.
func TestImagesDiskFull(t *testing.T) {
	t.Parallel()
	h := zwrmtest.NewHost(t)
	d := h.NewDaemon(t, private())
	images := filepath.Join(filepath.Dir(d.Config), "images")
	mountDisk(t, images, 0)
	d.Start(t)
	ballast := fill(t, images)
	add := []string{"image", "add", "small", "--kernel", zwrmtest.Image(t, "kernel")}
	r := d.Zwrm(t, append(add, "-o", "json")...)
	if r.Status != 1 {
		t.Errorf("exit status %d, want 1", r.Status)
	}
	contains(t, "stderr", r.Stderr, `"code":"storage"`, "no space left on device", "make room on that disk")
	if left, err := os.ReadDir(images); err != nil || len(left) != 1 {
		t.Errorf("a refused image leaves %v, %v", left, err)
	}
	d.Attach(t, "one", "web")
	must(t, os.Remove(ballast))
	must(t, unix.Mount("", images, "", unix.MS_REMOUNT, "size=64m")) // a kernel has more than 8 MiB
	d.Must(t, add...)
}
