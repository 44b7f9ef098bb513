package apitest

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"zwrm/internal/api"
	"zwrm/internal/doctor"
	"zwrm/internal/event"
	"zwrm/internal/image"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
	"zwrm/internal/verdict"
)

// Host is a host without a kernel. Its guests boot at once. It is safe for
// concurrent use.
type Host struct {
	Events event.Log

	layout ipam.Layout
	slots  *ipam.Allocator

	mu       sync.Mutex
	apps     map[model.Name]model.App
	vms      []model.VM
	images   map[model.Name]image.Image
	consoles map[model.Name]*console
	network  network
	stray    *verdict.Traced // what the kernel does with every packet; nil: what the rules say
	findings []doctor.Finding
	silent   bool
	faults   map[string]error
	lastApp  model.AppID
	lastVM   model.VMID
}

var (
	_ api.Apps         = (*Host)(nil)
	_ api.VMs          = (*Host)(nil)
	_ api.Images       = (*Host)(nil)
	_ api.ImageRemover = (*Host)(nil)
	_ api.Network      = (*Host)(nil)
	_ api.Tracer       = (*Host)(nil)
)

// New returns a Host of the subnet 172.16.0.0/26, which holds 16 VMs.
func New() *Host {
	layout, err := ipam.NewLayout(netip.MustParsePrefix("172.16.0.0/26"))
	if err != nil {
		panic(err)
	}
	return &Host{
		layout:   layout,
		slots:    ipam.NewAllocator(layout.Capacity(), 30*time.Second, Now),
		apps:     map[model.Name]model.App{},
		images:   map[model.Name]image.Image{},
		consoles: map[model.Name]*console{},
		faults:   map[string]error{},
	}
}

// Now returns the time that it always is on a Host.
func Now() time.Time { return time.Date(2026, time.July, 1, 12, 0, 0, 0, time.UTC) }

// Deps returns what the API needs to speak for the host.
func (h *Host) Deps() api.Deps {
	return api.Deps{
		Apps: h, VMs: h, Images: h, ImageRemover: h, Network: h, Tracer: h, Events: &h.Events,
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte("zwrm_vms 0\n"))
		}),
		Layout: h.layout,
		DNS:    []netip.Addr{netip.MustParseAddr("192.0.2.53")},
		Log:    slog.New(slog.DiscardHandler),
	}
}

// Fail makes the method of the given name return err from now on; nil ends it.
func (h *Host) Fail(method string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults[method] = err
}

// Silence makes guests stop answering.
func (h *Host) Silence() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.silent = true
}

// Kill ends the VMM of a VM, as when its guest panics.
func (h *Host) Kill(name model.Name, reason string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range h.vms {
		if h.vms[i].Name == name {
			h.vms[i].State, h.vms[i].Reason, h.vms[i].Process = model.Failed, reason, model.Process{}
		}
	}
}

// Deploy creates or updates an app.
func (h *Host) Deploy(_ context.Context, name model.Name, spec model.Spec) (model.App, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.faults["Deploy"]; err != nil {
		return model.App{}, err
	}
	if spec.MemoryMiB == 0 {
		spec.MemoryMiB = 128
	}
	if spec.CPUs == 0 {
		spec.CPUs = 1
	}
	if _, ok := h.images[spec.Image]; !ok {
		return model.App{}, model.Problemf(model.NotFound, "no image named %q", spec.Image).WithHint("zwrm image ls lists the images")
	}
	return h.bring(h.appOrNew(name), spec)
}

// Scale changes how many VMs an app has.
func (h *Host) Scale(_ context.Context, name model.Name, n int) (model.App, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.faults["Scale"]; err != nil {
		return model.App{}, err
	}
	app, ok := h.apps[name]
	if !ok {
		return model.App{}, noApp(name)
	}
	spec := app.Spec
	spec.Scale = n
	return h.bring(app, spec)
}

// Destroy removes an app and its VMs.
func (h *Host) Destroy(_ context.Context, name model.Name) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.faults["Destroy"]; err != nil {
		return err
	}
	if _, ok := h.apps[name]; !ok {
		return noApp(name)
	}
	delete(h.apps, name)
	h.remove(func(vm model.VM) bool { return vm.AppName == name })
	return nil
}

// Apps returns the apps by name.
func (h *Host) Apps(context.Context) ([]model.App, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var apps []model.App
	for _, app := range h.apps {
		apps = append(apps, app)
	}
	slices.SortFunc(apps, func(a, b model.App) int { return strings.Compare(string(a.Name), string(b.Name)) })
	return apps, h.faults["Apps"]
}

// App returns one app.
func (h *Host) App(_ context.Context, name model.Name) (model.App, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	app, ok := h.apps[name]
	if err := h.faults["App"]; err != nil || ok {
		return app, err
	}
	return app, noApp(name)
}

// Running counts the running VMs of each app.
func (h *Host) Running(context.Context) (map[model.AppID]int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	running := map[model.AppID]int{}
	for _, vm := range h.vms {
		if vm.State == model.Running {
			running[vm.App]++
		}
	}
	return running, h.faults["Running"]
}

// Await returns at once, or with the end of ctx when guests are silent.
func (h *Host) Await(ctx context.Context, _ model.Name) error {
	h.mu.Lock()
	silent, err := h.silent, h.faults["Await"]
	h.mu.Unlock()
	if silent {
		<-ctx.Done()
		return ctx.Err()
	}
	return err
}

// Add adds an image without copying anything.
func (h *Host) Add(_ context.Context, source image.Source) (image.Image, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.faults["Add"]; err != nil {
		return image.Image{}, err
	}
	if _, ok := h.images[source.Name]; ok {
		return image.Image{}, model.Problemf(model.Conflict, "an image named %q is there already", source.Name)
	}
	img := image.Image{Name: source.Name, Kernel: source.Kernel, Initrd: source.Initrd, Rootfs: source.Rootfs, Args: source.Args, CreatedAt: Now()}
	h.images[source.Name] = img
	return img, nil
}

// List returns the images by name.
func (h *Host) List() ([]image.Image, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var images []image.Image
	for _, img := range h.images {
		images = append(images, img)
	}
	slices.SortFunc(images, func(a, b image.Image) int { return strings.Compare(string(a.Name), string(b.Name)) })
	return images, h.faults["List"]
}

// RemoveImage removes an image that no app uses.
func (h *Host) RemoveImage(_ context.Context, name model.Name) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.images[name]; !ok {
		return model.Problemf(model.NotFound, "no image named %q", name).WithHint("zwrm image ls lists the images")
	}
	for _, app := range h.apps {
		if app.Spec.Image == name {
			return model.Problemf(model.Conflict, "image %q is in use by app %q", name, app.Name)
		}
	}
	delete(h.images, name)
	return nil
}

func (h *Host) appOrNew(name model.Name) model.App {
	app, ok := h.apps[name]
	if !ok {
		h.lastApp++
		app = model.App{ID: h.lastApp, Name: name, CreatedAt: Now()}
	}
	return app
}

// bring makes and removes VMs until the app is as the spec says.
func (h *Host) bring(app model.App, spec model.Spec) (model.App, error) {
	var have int
	for _, vm := range h.vms {
		if vm.App == app.ID && !vm.Attachment {
			have++
		}
	}
	slots, err := h.take(max(spec.Scale-have, 0))
	if err != nil {
		return app, err
	}
	for i, slot := range slots {
		h.add(model.VM{App: app.ID, AppName: app.Name, Name: app.Name.VMName(have + i), Slot: slot, Spec: spec})
	}
	h.remove(func(vm model.VM) bool { return vm.App == app.ID && !vm.Attachment && number(vm) >= spec.Scale })
	app.Spec = spec
	h.apps[app.Name] = app
	return app, nil
}

func (h *Host) take(n int) ([]ipam.Slot, error) {
	slots, err := h.slots.Take(n)
	var exhausted *ipam.ExhaustedError
	if errors.As(err, &exhausted) {
		return nil, model.Problemf(model.Exhausted, "%w", err).WithHint("subnet %s holds %d VMs in all", h.layout.Subnet(), h.layout.Capacity())
	}
	return slots, err
}

func (h *Host) add(vm model.VM) model.VM {
	h.lastVM++
	vm.ID, vm.State, vm.CreatedAt = h.lastVM, model.Running, Now()
	if !vm.Attachment {
		vm.Process.PID = 1000 + int(vm.ID)
	}
	h.vms = append(h.vms, vm)
	h.consoles[vm.Name] = newConsole()
	slices.SortFunc(h.vms, func(a, b model.VM) int {
		return cmp.Or(strings.Compare(string(a.AppName), string(b.AppName)), number(a)-number(b))
	})
	return vm
}

func (h *Host) remove(gone func(model.VM) bool) {
	for _, vm := range h.vms {
		if gone(vm) {
			h.slots.Return(vm.Slot)
			delete(h.consoles, vm.Name)
		}
	}
	h.vms = slices.DeleteFunc(h.vms, gone)
}

func noApp(name model.Name) error {
	return model.Problemf(model.NotFound, "no app named %q", name).WithHint("zwrm apps lists the apps")
}
