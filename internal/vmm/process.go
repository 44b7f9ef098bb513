package vmm

// Process is a running VMM.
type Process struct{}
