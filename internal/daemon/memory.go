package daemon

import (
	"os"
	"runtime/debug"
)

// What the runtime may take before it collects garbage more often than by its own
// measure, which is when there is as much garbage as there is in use. What zwrmd keeps
// is a few MiB; a look at all VMs takes some more, for a moment.
const (
	memoryBase  = 32 << 20
	memoryPerVM = 512 // of those that the subnet holds
)

// limitMemory sets the limit, unless who started zwrmd has set one. It is no limit of
// what there is room for: with more in use, time goes into collecting.
func limitMemory(capacity int) {
	if _, set := os.LookupEnv("GOMEMLIMIT"); !set {
		debug.SetMemoryLimit(memoryBase + memoryPerVM*int64(capacity))
	}
}
