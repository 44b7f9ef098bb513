package image_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"zwrm/internal/image"
	"zwrm/internal/model"
	"zwrm/internal/peer"
)

// files returns a folder with a kernel, and other files to make images of.
func files(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	kernel := make([]byte, 4096)
	copy(kernel[0x202:], "HdrS")
	for name, content := range map[string]string{"kernel": string(kernel), "initrd": "cpio", "rootfs": "ext4", "empty": "", "text": "not a kernel"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestAddGetListRemove(t *testing.T) {
	dir, src := t.TempDir(), files(t)
	store := image.New(filepath.Join(dir, "images"), nil)
	if list, err := store.List(); err != nil || len(list) != 0 {
		t.Fatalf("list of nothing: %v, %v", list, err)
	}
	added, err := store.Add(t.Context(), image.Source{Opener: peer.Peer{}, Name: "small", Kernel: src + "/kernel", Initrd: src + "/initrd", Args: "quiet"})
	if err != nil {
		t.Fatal(err)
	}
	got, err := store.Get("small")
	if err != nil || got != added {
		t.Fatalf("got %+v, %v, want %+v", got, err, added)
	}
	if got.Args != "quiet" || got.Rootfs != "" || got.CreatedAt.IsZero() {
		t.Errorf("image %+v", got)
	}
	if text, err := os.ReadFile(got.Initrd); err != nil || string(text) != "cpio" {
		t.Errorf("initrd %q, %v", text, err)
	}
	if list, err := store.List(); err != nil || len(list) != 1 || list[0] != got {
		t.Errorf("list %v, %v", list, err)
	}
	if _, err := store.Add(t.Context(), image.Source{Opener: peer.Peer{}, Name: "small", Kernel: src + "/kernel"}); code(err) != model.Conflict {
		t.Errorf("second add: %v", err)
	}
	if err := store.Remove("small"); err != nil {
		t.Fatal(err)
	}
	if err := store.Remove("small"); code(err) != model.NotFound {
		t.Errorf("second remove: %v", err)
	}
	if _, err := store.Get("small"); code(err) != model.NotFound {
		t.Errorf("get after remove: %v", err)
	}
	entries, err := os.ReadDir(filepath.Join(dir, "images"))
	if err != nil || len(entries) != 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

func TestAddRefuses(t *testing.T) {
	src := files(t)
	tests := []struct {
		name   string
		source image.Source
		want   string
	}{
		{"no kernel", image.Source{Opener: peer.Peer{}}, "no kernel named"},
		{"relative", image.Source{Opener: peer.Peer{}, Kernel: "kernel"}, "not absolute"},
		{"missing", image.Source{Opener: peer.Peer{}, Kernel: src + "/nope"}, "no such file"},
		{"folder", image.Source{Opener: peer.Peer{}, Kernel: src}, "not a regular file"},
		{"empty", image.Source{Opener: peer.Peer{}, Kernel: src + "/empty"}, "is empty"},
		{"not a kernel", image.Source{Opener: peer.Peer{}, Kernel: src + "/text"}, "not a Linux kernel"},
		{"missing initrd", image.Source{Opener: peer.Peer{}, Kernel: src + "/kernel", Initrd: src + "/nope"}, "initrd: "},
		{"missing rootfs", image.Source{Opener: peer.Peer{}, Kernel: src + "/kernel", Rootfs: src + "/nope"}, "rootfs: "},
		{"ip=", image.Source{Opener: peer.Peer{}, Kernel: src + "/kernel", Args: "quiet ip=dhcp"}, "ZWRM sets"},
		{"newline", image.Source{Opener: peer.Peer{}, Kernel: src + "/kernel", Args: "a\nb"}, "control characters"},
		{"long args", image.Source{Opener: peer.Peer{}, Kernel: src + "/kernel", Args: strings.Repeat("a", 1025)}, "at most 1024"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			test.source.Name = "small"
			_, err := image.New(dir, nil).Add(t.Context(), test.source)
			if code(err) != model.Invalid || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want an invalid one with %q", err, test.want)
			}
			if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
				t.Errorf("left: %v, %v", entries, err)
			}
		})
	}
}

func TestBrokenOffAddLeavesNothing(t *testing.T) {
	dir, src := t.TempDir(), files(t)
	store := image.New(dir, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := store.Add(ctx, image.Source{Opener: peer.Peer{}, Name: "small", Kernel: src + "/kernel"}); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	crashed := filepath.Join(dir, ".new-small.123")
	if err := os.Mkdir(crashed, 0o700); err != nil {
		t.Fatal(err)
	}
	if list, err := store.List(); err != nil || len(list) != 0 {
		t.Errorf("list %v, %v: an unfinished image is none", list, err)
	}
	if _, err := store.Add(t.Context(), image.Source{Opener: peer.Peer{}, Name: "small", Kernel: src + "/kernel"}); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("folder holds %v, %v", entries, err)
	}
}

func code(err error) model.Code {
	var problem *model.Problem
	if errors.As(err, &problem) {
		return problem.Code
	}
	return ""
}
