package image

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"zwrm/internal/effect"
	"zwrm/internal/model"
)

// Image is a guest image. Kernel, Initrd and Rootfs are paths in the store;
// Initrd and Rootfs may be empty.
type Image struct {
	Name      model.Name
	Kernel    string
	Initrd    string
	Rootfs    string
	Args      string // added to the kernel command line
	CreatedAt time.Time
}

// Source is what an image is made of. The paths are absolute, of files on this
// host; Initrd and Rootfs may be empty.
type Source struct {
	Name   model.Name
	Kernel string
	Initrd string
	Rootfs string // a raw disk image
	Args   string
	Opener Opener
}

// Opener opens the files that an image is made of, with the rights of whoever asks for
// the image: an image is no way to read what only root may.
type Opener interface {
	Open(path string) (*os.File, error)
}

// The files of an image's folder.
const (
	kernelFile = "kernel"
	initrdFile = "initrd"
	rootfsFile = "rootfs"
	facts      = "image.json"
)

// unfinished begins the name of a folder that is being filled. No image has such
// a name, since a DNS label has no dot.
const unfinished = ".new-"

// The side effects of a Store.
const (
	opMakeRoot     effect.Op = "image.make-root-folder"
	opMakeFolder   effect.Op = "image.make-folder"
	opCopy         effect.Op = "image.copy-file"
	opFacts        effect.Op = "image.write-facts"
	opFinish       effect.Op = "image.finish"
	opRetire       effect.Op = "image.retire"
	opRemoveFolder effect.Op = "image.remove-folder"
)

// Store is a folder of images, each in a folder of its own:
//
//	DIR/NAME/kernel, initrd, rootfs, image.json
type Store struct {
	dir     string
	hook    effect.Hook // of files and folders that come and go
	changes sync.Mutex  // one Add or Remove at a time; reading needs no lock
}

// New returns the Store in a folder, which need not be there yet.
func New(dir string, hook effect.Hook) *Store { return &Store{dir: dir, hook: hook} }

// record is the content of image.json.
type record struct {
	Args      string    `json:"args"`
	CreatedAt time.Time `json:"created_at"`
}

// Add copies the files of the source into a new image. Errors of the request are
// *model.Problem. A crash leaves at most an unfinished folder, which the next Add
// removes.
func (s *Store) Add(ctx context.Context, source Source) (Image, error) {
	s.changes.Lock()
	defer s.changes.Unlock()
	parts, err := source.open()
	if err != nil {
		return Image{}, &model.Problem{Code: model.Invalid, Err: fmt.Errorf("add image %q: %w", source.Name, err)}
	}
	defer closeParts(parts)
	if _, err := os.Lstat(s.path(source.Name)); err == nil {
		return Image{}, exists(source.Name)
	}
	if err := effect.Do(s.hook, opMakeRoot, func() error { return os.MkdirAll(s.dir, 0o700) }); err != nil {
		return Image{}, fmt.Errorf("add image %q: %w", source.Name, err)
	}
	if err := s.sweep(); err != nil {
		return Image{}, fmt.Errorf("add image %q: %w", source.Name, err)
	}
	var folder string
	err = effect.Do(s.hook, opMakeFolder, func() (err error) {
		folder, err = os.MkdirTemp(s.dir, unfinished+string(source.Name)+".")
		return err
	})
	if err != nil {
		return Image{}, fmt.Errorf("add image %q: %w", source.Name, err)
	}
	if err := s.fill(ctx, folder, parts, source.Args); err != nil {
		return Image{}, errors.Join(fmt.Errorf("add image %q: %w", source.Name, err), s.removeFolder(folder))
	}
	if err := effect.Do(s.hook, opFinish, func() error { return os.Rename(folder, s.path(source.Name)) }); err != nil {
		return Image{}, errors.Join(fmt.Errorf("add image %q: %w", source.Name, err), s.removeFolder(folder))
	}
	if err := syncPath(s.dir); err != nil {
		return Image{}, fmt.Errorf("add image %q: %w", source.Name, err)
	}
	return s.Get(source.Name)
}

// Sweep removes what a crash left of images: folders that were not yet filled, or not
// yet removed. Add and Remove do so by themselves.
func (s *Store) Sweep() error {
	s.changes.Lock()
	defer s.changes.Unlock()
	if err := s.sweep(); err != nil {
		return fmt.Errorf("remove unfinished images: %w", err)
	}
	return nil
}

// Get returns an image, or a *model.Problem that says there is none.
func (s *Store) Get(name model.Name) (Image, error) {
	text, err := os.ReadFile(filepath.Join(s.path(name), facts))
	if errors.Is(err, fs.ErrNotExist) {
		return Image{}, missing(name)
	}
	if err != nil {
		return Image{}, fmt.Errorf("read image %q: %w", name, err)
	}
	var r record
	if err := json.Unmarshal(text, &r); err != nil {
		return Image{}, fmt.Errorf("read image %q: %w", name, err)
	}
	img := Image{Name: name, Args: r.Args, CreatedAt: r.CreatedAt}
	for _, part := range []struct {
		file string
		path *string
	}{{kernelFile, &img.Kernel}, {initrdFile, &img.Initrd}, {rootfsFile, &img.Rootfs}} {
		path := filepath.Join(s.path(name), part.file)
		if _, err := os.Stat(path); err == nil {
			*part.path = path
		} else if !errors.Is(err, fs.ErrNotExist) {
			return Image{}, fmt.Errorf("read image %q: %w", name, err)
		}
	}
	if img.Kernel == "" {
		return Image{}, model.Problemf(model.NotFound, "image %q has lost its kernel", name).
			WithHint("remove it with: zwrm image rm %s, and add it again", name)
	}
	return img, nil
}

// List returns all images, by name. One that cannot be read is an error.
func (s *Store) List() ([]Image, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list images: %w", err)
	}
	images := []Image{}
	for _, entry := range entries {
		name, err := model.ParseName(entry.Name())
		if err != nil || !entry.IsDir() {
			continue
		}
		img, err := s.Get(name)
		if err != nil {
			return nil, err
		}
		images = append(images, img)
	}
	slices.SortFunc(images, func(a, b Image) int { return cmp.Compare(a.Name, b.Name) })
	return images, nil
}

// Remove removes an image, or returns a *model.Problem that says there is none.
// That no VM uses it is for the caller to see to.
func (s *Store) Remove(name model.Name) error {
	s.changes.Lock()
	defer s.changes.Unlock()
	if err := s.sweep(); err != nil {
		return fmt.Errorf("remove image %q: %w", name, err)
	}
	// Away under its name first, so that a crash leaves no image without a part.
	going := filepath.Join(s.dir, unfinished+string(name)+".rm")
	err := effect.Do(s.hook, opRetire, func() error { return os.Rename(s.path(name), going) })
	if errors.Is(err, fs.ErrNotExist) {
		return missing(name)
	}
	if err == nil {
		err = syncPath(s.dir) // else a power cut brings it back
	}
	if err != nil {
		return fmt.Errorf("remove image %q: %w", name, err)
	}
	if err := s.removeFolder(going); err != nil {
		return fmt.Errorf("remove image %q: %w", name, err)
	}
	return nil
}

// fill puts the files of an image into its unfinished folder.
func (s *Store) fill(ctx context.Context, folder string, parts []part, args string) error {
	for _, part := range parts {
		if err := effect.Do(s.hook, opCopy, func() error { return copyFile(ctx, filepath.Join(folder, part.name), part.file) }); err != nil {
			return fmt.Errorf("copy %s: %w", part.name, err)
		}
	}
	text, err := json.Marshal(record{Args: args, CreatedAt: time.Now().UTC()})
	if err != nil {
		return err
	}
	if err := effect.Do(s.hook, opFacts, func() error {
		return os.WriteFile(filepath.Join(folder, facts), append(text, '\n'), 0o600)
	}); err != nil {
		return err
	}
	return errors.Join(syncPath(filepath.Join(folder, facts)), syncPath(folder))
}

// sweep removes what is left of earlier attempts.
func (s *Store) sweep() error {
	old, err := filepath.Glob(filepath.Join(s.dir, unfinished+"*"))
	if err != nil {
		return err
	}
	for _, path := range old {
		if err := s.removeFolder(path); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) removeFolder(path string) error {
	return effect.Do(s.hook, opRemoveFolder, func() error { return os.RemoveAll(path) })
}

func (s *Store) path(name model.Name) string { return filepath.Join(s.dir, string(name)) }

func exists(name model.Name) error {
	return model.Problemf(model.Conflict, "image %q exists already", name).
		WithHint("zwrm image rm %s removes it", name)
}

func missing(name model.Name) error {
	return model.Problemf(model.NotFound, "no image named %q", name).WithHint("zwrm image ls lists the images")
}
