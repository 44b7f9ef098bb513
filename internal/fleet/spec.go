package fleet

import (
	"zwrm/internal/model"
)

// The bounds of what a VM may have. A Linux guest does not boot in less memory;
// the upper bounds are those of the machine types that the drivers use.
const (
	minMemoryMiB     = 32
	maxMemoryMiB     = 1 << 20
	maxCPUs          = 64
	defaultMemoryMiB = 128
	defaultCPUs      = 1
)

// checkName refuses an app whose VMs could not be named: their names are host names,
// and longer than the app's.
func (f *Fleet) checkName(name model.Name) error {
	last := name.VMName(f.Layout.Capacity() - 1)
	if _, err := model.ParseName(string(last)); err != nil {
		return model.Problemf(model.Invalid, "the VMs of app %q would have too long names: %w", name, err)
	}
	return nil
}

// checkSpec fills in defaults and refuses what no VM can be made of.
func (f *Fleet) checkSpec(spec model.Spec) (model.Spec, error) {
	if spec.MemoryMiB == 0 {
		spec.MemoryMiB = defaultMemoryMiB
	}
	if spec.CPUs == 0 {
		spec.CPUs = defaultCPUs
	}
	switch {
	case spec.MemoryMiB < minMemoryMiB || spec.MemoryMiB > maxMemoryMiB:
		return spec, model.Problemf(model.Invalid, "memory of %d MiB is out of range: %d to %d MiB", spec.MemoryMiB, minMemoryMiB, maxMemoryMiB)
	case spec.CPUs < 0 || spec.CPUs > maxCPUs:
		return spec, model.Problemf(model.Invalid, "%d CPUs are out of range: 1 to %d", spec.CPUs, maxCPUs)
	case spec.Image == "":
		return spec, model.Problemf(model.Invalid, "no image named").WithHint("zwrm image ls lists the images")
	}
	if err := f.checkScale(spec.Scale); err != nil {
		return spec, err
	}
	_, err := f.Images.Get(spec.Image)
	return spec, err
}

func (f *Fleet) checkScale(n int) error {
	_, free, _ := f.slots.Counts()
	switch {
	case n < 0:
		return model.Problemf(model.Invalid, "scale %d is below 0", n)
	case n > f.Layout.Capacity():
		return model.Problemf(model.Exhausted, "scale %d is past the capacity of subnet %s, which is %d VMs: %d are free",
			n, f.Layout.Subnet(), f.Layout.Capacity(), free)
	}
	return nil
}
